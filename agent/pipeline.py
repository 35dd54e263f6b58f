"""One settled file, in order: capture, check, decide, publish or hold, rotate, record.  READ FIRST.

Due files go through each step in portions that share their flushes; while one portion is on its way to the disk, the
next one is looked at.  The first three steps are in `look.py`.  A file that is to be healed leaves here as
`Ending.DAMAGED` and goes on in `healing.py`, which looks once more before it acts; a lone one may be healed at once.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import replace

from agent.checks import warnings_of
from agent.core.decide import Heal, LeaveAlone, Publish, Unchanged, Wait
from agent.core.errors import SpaceBudgetError
from agent.core.model import Grade, Problem, Reason
from agent.core.naming import display
from agent.core.settle import Due
from agent.core.stamp import next_stamp
from agent.disk.atomic import is_disk_full
from agent.disk.draft import Draft, Refused
from agent.disk.lock import LockSession
from agent.look import Look, Looker
from agent.outcome import Ending, Outcome
from agent.portion import HealAtOnce, Keeper, Portion
from agent.rotation import bound_aside, make_room, rotate
from agent.workspace import FAILURES, Workspace


class Pipeline:
    """The way of every change through one workspace; several threads may use it, for different files.

    `progress` is called after each look, so that a service manager can be told that a long batch goes on.
    """

    def __init__(self, ws: Workspace, progress: Callable[[], None] = lambda: None) -> None:
        self._ws = ws
        self._looker = Looker(ws, prepares=True)
        self._progress = progress

    def run(self, dues: Iterable[Due], reason: Reason, *, at_gate: bool = False) -> list[Outcome]:
        """As `outcomes`, all of them."""
        return list(self.outcomes(dues, reason, at_gate=at_gate))

    def outcomes(
        self, dues: Iterable[Due], reason: Reason, *, at_gate: bool = False, keeper: Keeper | None = None,
        heal: HealAtOnce = lambda _, __: None,
    ) -> Iterator[Outcome]:  # fmt: skip
        """Take every due file as far as it goes without a heal; yield how each look that went on ended.

        A damaged file that is alone is offered to `heal`, and how that ended is yielded behind its look.
        What was yielded is concluded and its file free for others, whatever becomes of those that follow.

        Raises:
            OSError: data or backup folder cannot be opened; nothing was done about the others.
            sqlite3.Error: the catalog failed; snapshots may have been published that it does not know.
        """
        waiting, on_its_way, more = iter(dues), Portion(self._ws), True
        try:
            while more:
                portion = Portion(self._ws)
                try:
                    try:
                        more = self._look_at(waiting, portion, at_gate=at_gate)
                    finally:  # what is on its way may be gone from the data folder by now
                        yield from self._finish(on_its_way, keeper)
                    if portion.looks and keeper is not None:
                        portion.going_on = keeper.before(portion.looks, portion.staging)
                    self._offer(portion, heal)
                    self._publish(portion, reason)
                    if more and portion.batch is not None:
                        portion.batch.flush_beside()
                except BaseException:
                    portion.close()
                    raise
                on_its_way = portion
            yield from self._finish(on_its_way, keeper)
        finally:
            on_its_way.close()

    def _look_at(self, waiting: Iterator[Due], portion: Portion, *, at_gate: bool) -> bool:
        """Look until the portion is whole; return whether more may wait."""
        for due in waiting:
            if not portion.looks:
                portion.open()
            portion.add(self._look(portion, due, at_gate=at_gate))
            self._progress()
            if portion.is_whole():
                return True
        return False

    def _look(self, portion: Portion, due: Due, *, at_gate: bool) -> Look:
        """Where the disk has no room for the copy that is checked, the space budget makes some, and we look again."""
        root_fd, staging = portion.root_fd, portion.staging
        look = self._looker.look(root_fd, staging, due, at_gate=at_gate, locked=portion.locks.take(due.rel))
        if look.outcome is None or look.outcome.ending is not Ending.REFUSED:
            return look
        try:
            size = os.stat(due.rel, dir_fd=root_fd, follow_symlinks=False).st_size
            thinned, _ = make_room(self._ws, size, locks=portion.locks, held={due.rel} | portion.not_good())
        except OSError:
            return look  # it is told already that there is no room
        if thinned:
            look = self._looker.look(root_fd, staging, due, at_gate=at_gate, locked=True)
            look.thinned_count = thinned
        return look

    def _finish(self, portion: Portion, keeper: Keeper | None) -> Iterator[Outcome]:
        """The portion has its snapshots, and they are known; it is closed before anybody hears of it."""
        if not portion.looks:
            return
        failure: Exception | None = None
        try:
            self._take_published(portion)
            outcomes = self._conclude(portion.going_on, took_s=self._ws.clock.monotonic() - portion.began)
            try:
                if keeper is not None:  # only now: should it fail, the catalog knows what was published
                    keeper.after(portion.going_on, portion.staging)
            except FAILURES as error:
                failure = error
        finally:
            portion.close()
        yield from outcomes
        if failure is not None:
            raise failure

    def _offer(self, portion: Portion, heal: HealAtOnce) -> None:
        """No other file waits for a lone one, and nobody worked on it since the look: the lock is still ours."""
        for look in portion.looks if len(portion.looks) == 1 else ():
            if look.outcome is None and isinstance(look.decision, Heal):
                self._looker.set_state(look, look.result.grade if look.result else Grade.MISSING)
                look.leave_room()  # a heal needs it
                healed = heal(portion.root_fd, look)
                self._end_decided(look)
                look.healed = healed and replace(healed, problems=look.result.problems if look.result else ())

    # publish or hold

    def _publish(self, portion: Portion, reason: Reason) -> None:
        """Write all that is to be kept: good states, suspect ones, and damaged ones left for a person."""
        looks = portion.going_on
        drafts: list[tuple[Look, Draft]] = []
        for look in looks:
            if look.outcome is None and look.capture is not None and (kept := _grade_to_keep(look)) is not None:
                drafts.append((look, self._draft(look, kept, reason)))
            else:
                look.leave_room()
        if not drafts:
            return
        portion.drafts = self._with_room(drafts, portion.locks, held=portion.not_good())
        try:
            portion.batch = self._ws.store.batch([draft for _, draft in portion.drafts], portion.staging)
        except OSError as error:
            self._refuse_all(portion, error)

    def _take_published(self, portion: Portion) -> None:
        """Wait until what was written is durable and read back; its looks have their snapshots."""
        if portion.batch is None:
            return
        try:
            published = portion.batch.finish()
        except OSError as error:
            self._refuse_all(portion, error)
            return
        for (look, draft), done in zip(portion.drafts, published, strict=True):
            if isinstance(done, Refused):
                self._refuse(look, draft, done.error)
            else:
                look.published = done
                look.snapshots = [done, *look.snapshots]

    def _refuse_all(self, portion: Portion, error: OSError) -> None:
        """Journal or folder failed: nothing was published, everything else goes on."""
        for look, draft in portion.drafts:
            self._refuse(look, draft, error)

    def _draft(self, look: Look, grade: Grade, reason: Reason) -> Draft:
        caught, result = look.capture, look.result
        assert caught is not None
        assert result is not None
        if reason is Reason.CHANGE and not look.due.quiet:
            reason = Reason.INTERVAL
        taken_at = next_stamp(self._ws.clock.utc(), look.snapshots[0].taken_at if look.snapshots else None)
        prepared = look.prepared
        if prepared is not None and is_disk_full(prepared.failure()):
            prepared = None  # the budget is about to make room: the copy is worth another try
        return Draft(
            look.rel, caught.content, caught.digest, caught.ownership, grade, reason, result.shape, taken_at,
            prepared=prepared,
        )  # fmt: skip

    def _with_room(
        self, drafts: Sequence[tuple[Look, Draft]], locks: LockSession, *, held: set[str]
    ) -> list[tuple[Look, Draft]]:
        """Return the drafts that the space budget has room for, thinning old copies for them."""
        room: list[tuple[Look, Draft]] = []
        need = written = 0
        for look, draft in drafts:
            size = look.capture.signature.size_bytes if look.capture else 0
            there = size if look.is_on_disk else 0
            try:
                thinned, short = make_room(self._ws, need + size, locks=locks, written_bytes=written + there, held=held)
                look.thinned_count += thinned
            except OSError as error:
                self._refuse(look, draft, error)
                continue
            if not short:
                need, written = need + size, written + there
                room.append((look, draft))
                continue
            full = SpaceBudgetError(
                f"no room for a snapshot of {display(look.rel)}: the space budget is short of {short} bytes",
                hint="raise backup.max_total_size, lower backup.min_free, or free space; good snapshots are held, and"
                " what migrations keep in _migration is never thinned",
            )
            self._refuse(look, draft, full)
        return room

    def _refuse(self, look: Look, draft: Draft, error: Exception) -> None:
        """The state was not stored.  That it is not good is known all the same, so that good snapshots are held."""
        if isinstance(error, OSError):
            self._ws.is_doubtful = True  # the disk may hold more of it than was taken back
        look.leave_room()
        self._looker.look_into(look)
        if draft.grade is not Grade.GOOD:
            self._looker.set_state(look, draft.grade)
        problems = look.result.problems if look.result else ()
        look.end(Ending.REFUSED, grade=draft.grade, error=error, problems=problems)

    # rotate, record

    def _conclude(self, looks: Sequence[Look], *, took_s: float) -> list[Outcome]:
        """Save what is known now, in one transaction, then rotate; `took_s`: until all was durable and read back."""
        for look in looks:
            if look.outcome is None:
                self._end_decided(look)
        catalog = self._ws.catalog
        with catalog.transaction():
            catalog.add_snapshots(look.published for look in looks if look.published is not None)
            catalog.save_files(state for look in looks if (state := look.newest_state) is not None)
        ended = ((self._rotated(look, took_s), look.healed) for look in looks)
        return [outcome for outcomes in ended for outcome in outcomes if outcome is not None]

    def _rotated(self, look: Look, took_s: float) -> Outcome:
        assert look.outcome is not None
        if look.published is None or look.state is None:
            return look.outcome
        outcome = replace(look.outcome, duration_s=took_s, warnings=_warnings(look))
        try:
            if look.published.grade is not Grade.GOOD:
                bound_aside(self._ws, look.rel)
                return outcome
            if len(look.snapshots) <= self._ws.config.backup.retention.keep_last:
                return outcome
            return replace(outcome, rotated_count=rotate(self._ws, look.rel, look.state))
        except OSError as error:
            return replace(outcome, rotation_error=error)

    def _end_decided(self, look: Look) -> None:
        self._looker.look_into(look)
        decision, result = look.decision, look.result
        problems = result.problems if result else ()
        grade = result.grade if result else Grade.MISSING
        if isinstance(decision, Wait):
            if decision.told:
                self._looker.set_state(look, grade)
            is_news = decision.told and (look.past is None or look.past.grade is not grade)
            look.end(Ending.WAITING, grade=grade, problems=problems, is_news=is_news)
            return
        news = look.is_news(grade)
        self._looker.set_state(look, grade)
        if isinstance(decision, Publish):
            ending, earlier = Ending.PUBLISHED if grade is Grade.GOOD else Ending.HELD, decision.rolled_back_to
            look.end(ending, grade=grade, snapshot=look.published, problems=problems, rolled_back_to=earlier)
        elif isinstance(decision, Unchanged):
            ending = Ending.UNCHANGED if grade is Grade.GOOD else Ending.HELD
            look.end(ending, grade=grade, problems=problems, is_news=news)
        elif isinstance(decision, Heal):
            look.end(Ending.DAMAGED, grade=grade, problems=problems, attempt=decision.attempt, is_news=news)
        elif isinstance(decision, LeaveAlone):
            kept = look.published.name if look.published else None
            look.end(Ending.LEFT, grade=grade, problems=problems, left_why=decision.why, is_news=news, quarantined=kept)


def _warnings(look: Look) -> tuple[Problem, ...]:
    """What is worth knowing about a state that was published as good."""
    if look.published is None or look.published.grade is not Grade.GOOD or look.capture is None or look.result is None:
        return ()
    content = look.capture.content
    return warnings_of(content, look.rule.check) if isinstance(content, bytes) else look.result.warnings


def _grade_to_keep(look: Look) -> Grade | None:
    """The grade under which this state is to be stored, if it is: damage that is left alone is kept in quarantine."""
    if isinstance(look.decision, Publish):
        return look.decision.grade
    if isinstance(look.decision, LeaveAlone) and look.capture is not None and look.result is not None:
        known = any(s.digest == look.capture.digest and s.grade is look.result.grade for s in look.snapshots)
        return None if known else look.result.grade
    return None
