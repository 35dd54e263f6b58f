"""One settled file, in order: capture, check, decide, publish or hold, rotate, record.  READ FIRST.

A batch of due files goes through each step together, so that they share their flushes.  The first three steps are
in `look.py`.  A file that is to be healed leaves here as `Ending.DAMAGED` and goes on in `healing.py`, which looks
once more before it acts.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from agent.checks import warnings_of
from agent.core.decide import Heal, LeaveAlone, Publish, Unchanged, Wait
from agent.core.errors import SpaceBudgetError
from agent.core.model import Grade, Problem, Reason
from agent.core.naming import display
from agent.core.settle import Due
from agent.core.stamp import next_stamp
from agent.disk.atomic import is_disk_full
from agent.disk.capture import IN_MEMORY_MAX_BYTES
from agent.disk.lock import LockSession
from agent.disk.publish import Draft, Prepared, Refused
from agent.disk.staging import StagingFolder
from agent.look import Look, Looker
from agent.outcome import Ending, Outcome
from agent.rotation import bound_aside, make_room, rotate
from agent.workspace import Workspace

_HELD_MAX_BYTES = 16 << 20  # of captured bytes; what more is due in the same batch follows


class Keeper(Protocol):
    """Keeps the files as they were before anything is done about them."""

    def before(self, looks: Sequence[Look], staging: StagingFolder) -> list[Look]:
        """Return the looks that are to go on, after all that they do not keep themselves was kept."""

    def after(self, looks: Sequence[Look], staging: StagingFolder) -> None:
        """The looks that went on have their snapshots, if they were given any."""


class Pipeline:
    """The way of every change through one workspace; several threads may use it, for different files.

    `progress` is called after each look, so that a service manager can be told that a long batch goes on.
    """

    def __init__(self, ws: Workspace, progress: Callable[[], None] = lambda: None) -> None:
        self._ws = ws
        self._looker = Looker(ws, prepares=True)
        self._progress = progress

    def run(
        self, dues: Sequence[Due], reason: Reason, *, at_gate: bool = False, keeper: Keeper | None = None
    ) -> list[Outcome]:
        """Take every due file as far as it goes without a heal; return how each look that went on ended.

        Raises:
            FileNotFoundError, NotADirectoryError: the data folder is not there; nothing was done.
            OSError: the backup folder cannot be opened; nothing was done.
            sqlite3.Error: the catalog failed; snapshots may have been published that it does not know.
        """
        ws, waiting = self._ws, iter(dues)
        outcomes: list[Outcome] = []
        with ExitStack() as held:
            root_fd = held.enter_context(ws.data_root())
            locks = held.enter_context(ws.locks.session())
            staging = held.enter_context(ws.store.staging())
            more = True
            while more:
                began, looks = ws.clock.monotonic(), list[Look]()
                try:
                    more = self._look_at(waiting, looks, root_fd, locks, staging, at_gate=at_gate)
                    going_on = looks if keeper is None else keeper.before(looks, staging)
                    self._publish(going_on, reason, staging, locks)
                    outcomes += self._conclude(going_on, began)
                    if keeper is not None:  # only now: should it fail, the catalog knows what was published
                        keeper.after(going_on, staging)
                finally:
                    for look in looks:
                        look.discard()
            return outcomes

    def _look_at(
        self,
        waiting: Iterator[Due],
        looks: list[Look],
        root_fd: int,
        locks: LockSession,
        staging: StagingFolder,
        *,
        at_gate: bool,
    ) -> bool:
        """Add to `looks` until they hold as much in memory as is good; return whether more may wait."""
        held_bytes = 0
        for due in waiting:
            look = self._look(root_fd, staging, due, locks, at_gate=at_gate)
            looks.append(look)
            self._progress()
            if look.capture is not None and isinstance(look.capture.content, bytes):
                held_bytes += len(look.capture.content)
            if held_bytes > _HELD_MAX_BYTES:
                return True
        return False

    def _look(self, root_fd: int, staging: StagingFolder, due: Due, locks: LockSession, *, at_gate: bool) -> Look:
        """Where the disk has no room for the copy that is checked, the space budget makes some, and we look again."""
        look = self._looker.look(root_fd, staging, due, at_gate=at_gate, locked=locks.take(due.rel))
        if look.outcome is None or look.outcome.ending is not Ending.REFUSED:
            return look
        try:
            size = os.stat(due.rel, dir_fd=root_fd, follow_symlinks=False).st_size
            thinned, _ = make_room(self._ws, size, locks=locks, held={due.rel})
        except OSError:
            return look  # it is told already that there is no room
        if thinned:
            look = self._looker.look(root_fd, staging, due, at_gate=at_gate, locked=True)
            look.thinned_count = thinned
        return look

    # publish or hold

    def _publish(self, looks: Sequence[Look], reason: Reason, staging: StagingFolder, locks: LockSession) -> None:
        """Make snapshots of all that are to be kept: good ones, suspect ones, and damaged ones left for a person."""
        drafts: list[tuple[Look, Draft]] = []
        for look in looks:
            if look.outcome is None and look.capture is not None and (kept := _grade_to_keep(look)) is not None:
                drafts.append((look, self._draft(look, kept, reason)))
            else:
                look.leave_room()
        if not drafts:
            return
        room = self._with_room(drafts, locks, held={look.rel for look in looks if _is_bad(look)})
        try:
            published = self._ws.store.publish([draft for _, draft in room], staging)
        except OSError as error:  # journal or folder: nothing was published, everything else goes on
            for look, draft in room:
                self._refuse(look, draft, error)
            return
        for (look, draft), done in zip(room, published, strict=True):
            if isinstance(done, Refused):
                self._refuse(look, draft, done.error)
            else:
                look.published = done
                look.snapshots = [done, *look.snapshots]

    def _draft(self, look: Look, grade: Grade, reason: Reason) -> Draft:
        caught, result = look.capture, look.result
        assert caught is not None
        assert result is not None
        if reason is Reason.CHANGE and not look.due.quiet:
            reason = Reason.INTERVAL
        taken_at = next_stamp(self._ws.clock.utc(), look.snapshots[0].taken_at if look.snapshots else None)
        prepared = look.prepared if look.prepared is not None and not _lacked_room(look.prepared) else None
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
                hint="raise backup.max_total_size, lower backup.min_free, or free space; good snapshots are held",
            )
            self._refuse(look, draft, full)
        return room

    def _refuse(self, look: Look, draft: Draft, error: Exception) -> None:
        """The state was not stored.  That it is not good is known all the same, so that good snapshots are held."""
        if isinstance(error, OSError):
            self._ws.is_doubtful = True  # the disk may hold more of it than was taken back
        look.leave_room()
        if draft.grade is not Grade.GOOD:
            self._looker.set_state(look, draft.grade)
        problems = look.result.problems if look.result else ()
        look.end(Ending.REFUSED, grade=draft.grade, error=error, problems=problems)

    # rotate, record

    def _conclude(self, looks: Sequence[Look], began: float) -> list[Outcome]:
        """Save what is known now, in one transaction, then rotate."""
        for look in looks:
            if look.outcome is None:
                self._end_decided(look)
        catalog = self._ws.catalog
        with catalog.transaction():
            catalog.add_snapshots(look.published for look in looks if look.published is not None)
            catalog.save_files(look.state for look in looks if look.state is not None)
        took_s = self._ws.clock.monotonic() - began
        return [self._rotated(look, took_s) for look in looks]

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
            look.end(
                Ending.PUBLISHED if grade is Grade.GOOD else Ending.HELD,
                grade=grade,
                snapshot=look.published,
                problems=problems,
                rolled_back_to=decision.rolled_back_to,
            )
        elif isinstance(decision, Unchanged):
            ending = Ending.UNCHANGED if grade is Grade.GOOD else Ending.HELD
            look.end(ending, grade=grade, problems=problems, is_news=news)
        elif isinstance(decision, Heal):
            look.end(Ending.DAMAGED, grade=grade, problems=problems, attempt=decision.attempt, is_news=news)
        elif isinstance(decision, LeaveAlone):
            kept = look.published.name if look.published else None
            look.end(Ending.LEFT, grade=grade, problems=problems, left_why=decision.why, is_news=news, quarantined=kept)

    def is_heavy(self, rel: str) -> bool:
        """Whether a look at `rel` takes so long that other files should not wait for it."""
        try:
            with self._ws.data_root() as root_fd:
                return os.stat(rel, dir_fd=root_fd, follow_symlinks=False).st_size > IN_MEMORY_MAX_BYTES
        except OSError:
            return False


def _lacked_room(prepared: Future[Prepared]) -> bool:
    """Whether the disk was full; the budget is about to make room, so the copy is worth another try."""
    return is_disk_full(prepared.exception())


def _is_bad(look: Look) -> bool:
    return look.result is not None and look.result.grade is not Grade.GOOD


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
