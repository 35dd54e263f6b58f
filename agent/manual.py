"""What a person asks for outright, past policy and guard: put a chosen snapshot back, accept a state, forget a file."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from agent.core.model import FileState, Grade, HealAction, Reason, Snapshot
from agent.core.settle import Due
from agent.disk.capture import CHUNK_BYTES
from agent.disk.draft import Draft, Refused
from agent.disk.staging import StagedFile
from agent.displaced import Displaced, Judged
from agent.look import Look, one_look
from agent.outcome import Ending, Outcome
from agent.pipeline import Pipeline
from agent.putback import put_back
from agent.workspace import Workspace


class Chosen(Struct, frozen=True):
    """A snapshot whose bytes were found whole, in a private copy: no rotation can take them away any more."""

    snapshot: Snapshot
    plain: StagedFile


@contextmanager
def choose(ws: Workspace, candidates: Sequence[Snapshot]) -> Iterator[Chosen | None]:
    """Lend the first of `candidates` that is whole; None when none is.

    Raises:
        OSError: the disk did not give the bytes, or has no room for the copy.
    """
    with ws.store.staging() as staging:
        for snapshot in candidates:
            plain = staging.create()
            try:
                if ws.store.copy_into(snapshot, plain):
                    yield Chosen(snapshot, plain)
                    return
            finally:
                plain.discard()
        yield None


def restore_chosen(ws: Workspace, pipeline: Pipeline, rel: str, chosen: Chosen, displaced: list[Displaced]) -> Outcome:
    """Make one attempt to have `rel` show the chosen bytes; whatever it showed before is kept.

    The endings: HEALED; UNCHANGED, the bytes were there already; RACED, BUSY or CHANGED, try again; SKIPPED, UNREADABLE
    or HEAL_FAILED, the live file is as it was.  A chosen good state is the newest good one afterwards, so that
    nothing it lacks makes it suspect; where that failed, the error says why.  `displaced` gets the inode to keep an
    eye on.

    Raises: as `Pipeline.run`.
    """
    pipeline.run([Due(rel, quiet=True, first_at=ws.clock.monotonic())], Reason.PRE_RESTORE)
    with one_look(ws, rel, at_gate=False) as (root_fd, look):
        caught = look.capture
        was = look.result.grade if look.result else Grade.MISSING
        if caught is None and not _is_gone(look):
            assert look.outcome is not None
            return replace(look.outcome, grade=look.outcome.grade or Grade.UNREADABLE)
        seen = Outcome(rel, Ending.UNCHANGED, grade=was, snapshot=chosen.snapshot, action=HealAction.RESTORE)
        if caught is not None and caught.digest == chosen.snapshot.digest:
            state, unkept = _stand(ws, look, chosen)
            return replace(seen, state=state, error=unkept)
        judged = Judged(caught, was) if caught is not None else None
        try:
            done = put_back(
                ws, root_fd, rel, judged=judged, good=chosen.snapshot.digest, fill=partial(_copy, chosen.plain)
            )
        except OSError as error:
            return replace(seen, ending=Ending.HEAL_FAILED, error=error)
        if done.displaced is not None:
            displaced.append(done.displaced)
        if not done.done:
            return replace(seen, ending=Ending.RACED, swap_undone=done.undone, quarantined=done.kept_as)
        state, unkept = _stand(ws, look, chosen)
        return replace(seen, ending=Ending.HEALED, quarantined=done.kept_as, state=state, error=unkept)


def accept_live(ws: Workspace, rel: str) -> Outcome:
    """Make the suspect state that `rel` shows a good one, the newest; a missing file is forgotten.

    The endings: PUBLISHED; UNCHANGED, it is good already; FORGOTTEN, its snapshots are kept; BUSY or CHANGED, try
    again; REFUSED, the snapshot could not be written; LEFT, SKIPPED or UNREADABLE, it cannot be accepted.

    Raises: as `Pipeline.run`.
    """
    with one_look(ws, rel, at_gate=False) as (_, look):
        if look.capture is None and _is_gone(look):
            ws.catalog.forget_file(rel)
            return Outcome(rel, Ending.FORGOTTEN, grade=Grade.MISSING)
        if look.outcome is not None:
            return look.outcome
        assert look.capture is not None
        assert look.result is not None
        grade, caught = look.result.grade, look.capture
        if grade not in (Grade.GOOD, Grade.SUSPECT):
            return Outcome(rel, Ending.LEFT, grade=grade, problems=look.result.problems)
        good = ws.catalog.newest(rel, Grade.GOOD)
        if good is not None and good.digest == caught.digest:
            return Outcome(rel, Ending.UNCHANGED, grade=grade, snapshot=good, state=_good_state(ws, look, good))
        accepted = _accepted(ws, look, good)
        if isinstance(accepted, Refused):
            return Outcome(rel, Ending.REFUSED, grade=grade, error=accepted.error)
        ending = Ending.PUBLISHED if grade is Grade.SUSPECT else Ending.UNCHANGED
        return Outcome(rel, ending, grade=grade, snapshot=accepted, state=_good_state(ws, look, accepted))


def _accepted(ws: Workspace, look: Look, good: Snapshot | None) -> Snapshot | Refused:
    """The live state is the newest good snapshot: the suspect copy of it moves there, or a new one is made."""
    assert look.capture is not None
    assert look.result is not None
    caught = look.capture
    aside = next((s for s in look.snapshots if s.grade is Grade.SUSPECT and s.digest == caught.digest), None)
    is_newer = aside is not None and (good is None or aside.taken_at > good.taken_at)
    if aside is None or not is_newer or not ws.store.is_intact(aside):
        return _publish(
            ws,
            Draft(
                look.rel, caught.content, caught.digest, caught.ownership, Grade.GOOD, Reason.MANUAL,
                look.result.shape, ws.stamp(look.rel),
            ),
        )  # fmt: skip
    accepted = ws.store.accept(aside)
    with ws.catalog.transaction():
        ws.catalog.remove_snapshots([aside])
        ws.catalog.add_snapshots([accepted])
    return accepted


def _good_state(ws: Workspace, look: Look, good: Snapshot) -> FileState:
    """The catalog knows that what the file shows is good."""
    assert look.capture is not None
    caught, now = look.capture, ws.clock.utc()
    past = look.past or FileState(look.rel, Grade.GOOD, now)
    state = replace(
        past, grade=Grade.GOOD, since=past.since if past.grade is Grade.GOOD else now, signature=caught.signature,
        digest=caught.digest, shape=good.shape, ownership=caught.ownership, mode=caught.mode, last_good_at=now,
        last_snapshot_at=good.taken_at, heals=0, healed_at=None, gave_up=False,
    )  # fmt: skip
    ws.catalog.save_files([state])
    return state


def _stand(ws: Workspace, look: Look, chosen: Chosen) -> tuple[FileState, Exception | None]:
    """The catalog knows of the chosen state; the signature stays open, so that the file is looked at.

    Return it, and why the chosen state did not become the newest snapshot, if it did not.
    """
    error: Exception | None = None
    now, snapshot = ws.clock.utc(), chosen.snapshot
    past = ws.catalog.file(look.rel) or FileState(look.rel, snapshot.grade, now)
    ownership = look.capture.ownership if look.capture else past.ownership
    state = replace(
        past, grade=snapshot.grade, since=now, signature=None, digest=snapshot.digest, ownership=ownership,
        heals=0, healed_at=None, gave_up=False,
    )  # fmt: skip
    if snapshot.grade is Grade.GOOD:
        newest = ws.catalog.newest(look.rel, Grade.GOOD)
        if newest is None or newest.digest != snapshot.digest:
            draft = Draft(
                look.rel, chosen.plain, snapshot.digest, ownership, Grade.GOOD, Reason.RESTORED, snapshot.shape,
                ws.stamp(look.rel),
            )  # fmt: skip
            again = _publish(ws, draft)
            if isinstance(again, Snapshot):
                newest = again
            else:
                error = again.error
        last = newest.taken_at if newest else None
        state = replace(state, shape=snapshot.shape or past.shape, last_good_at=now, last_snapshot_at=last)
    ws.catalog.save_files([state])
    return state, error


def _publish(ws: Workspace, draft: Draft) -> Snapshot | Refused:
    """The bytes of `draft` are the newest good snapshot of its file."""
    with ws.store.staging() as staging:
        done = ws.store.publish([draft], staging)[0]
    if isinstance(done, Snapshot):
        ws.catalog.add_snapshots([done])
    else:
        ws.is_doubtful = True  # the disk may hold more of it than was taken back
    return done


def _is_gone(look: Look) -> bool:
    """Whether the look found no file of this name."""
    if look.outcome is None:
        return look.capture is None
    return look.outcome.grade is Grade.MISSING or look.outcome.ending is Ending.FORGOTTEN


def _copy(plain: StagedFile, staged: StagedFile) -> bool:
    offset = 0
    while chunk := os.pread(plain.fd, CHUNK_BYTES, offset):
        staged.write(chunk)
        offset += len(chunk)
    return True
