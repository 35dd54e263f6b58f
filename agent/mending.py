"""Repair a file because a person or a migration asks for it: also one that was never good, and has no restore point."""

from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from agent.core.decide import Heal, LeftWhy, Wait, restore_candidates
from agent.core.model import FileState, Grade, HealAction
from agent.cure import Cure, Cures
from agent.displaced import Displaced, Judged
from agent.look import Look, one_look
from agent.outcome import Ending, Outcome
from agent.putback import put_back
from agent.rotation import bound_aside
from agent.workspace import Workspace


class Mending(Struct, frozen=True):
    """How it ended, and the repair that was, or would be, made."""

    outcome: Outcome
    cure: Cure | None = None


def mend(
    ws: Workspace,
    rel: str,
    displaced: list[Displaced],
    *,
    at_gate: bool = False,
    dry_run: bool = False,
    allow: Callable[[Cure], bool] = lambda _: True,
) -> Mending:
    """Make one attempt to have `rel` show its own bytes repaired, where there is exactly one way to; keep the original.

    The endings: HEALED; DAMAGED, it would be with `dry_run`; UNCHANGED, it is good; LEFT, it cannot be repaired so, or
    `allow` refused the way; WAITING, RACED, BUSY or CHANGED, try again; SKIPPED, UNREADABLE or HEAL_FAILED, the live
    file is as it was.  `displaced` gets the inode to keep an eye on.
    """
    with one_look(ws, rel, at_gate=at_gate) as (root_fd, look):
        early = _without_repair(look)
        if early is not None:
            return Mending(early)
        assert look.capture is not None
        assert look.result is not None
        seen = Outcome(
            rel, Ending.DAMAGED, grade=look.result.grade, was=look.past.grade if look.past else None,
            problems=look.result.problems, action=HealAction.REPAIR, attempt=1,
        )  # fmt: skip
        cure = Cures(ws, look, Heal((HealAction.REPAIR,), attempt=1)).repaired()
        if cure is None or not allow(cure):
            why = LeftWhy.NO_RESTORE_POINT if restore_candidates(look.snapshots) else LeftWhy.NEVER_GOOD
            return Mending(replace(seen, ending=Ending.LEFT, left_why=why, action=None))
        seen = replace(seen, detail=cure.explanation)
        if dry_run:
            return Mending(seen, cure)
        try:
            return Mending(_put_back(ws, root_fd, look, cure, seen, displaced), cure)
        except OSError as error:
            return Mending(replace(seen, ending=Ending.HEAL_FAILED, error=error), cure)


def _without_repair(look: Look) -> Outcome | None:
    """The outcome where there is nothing to repair, or not now."""
    if look.outcome is not None:
        gone = look.outcome.ending is Ending.FORGOTTEN or look.outcome.grade is Grade.MISSING
        return Outcome(look.rel, Ending.LEFT, grade=Grade.MISSING) if gone else look.outcome
    if look.capture is None or look.result is None:
        return Outcome(look.rel, Ending.LEFT, grade=Grade.MISSING)
    grade, problems = look.result.grade, look.result.problems
    if grade is Grade.GOOD:
        return Outcome(look.rel, Ending.UNCHANGED, grade=grade)
    if grade not in (Grade.CORRUPT, Grade.INVALID):
        return Outcome(look.rel, Ending.LEFT, grade=grade, problems=problems)
    if isinstance(look.decision, Wait):
        return Outcome(look.rel, Ending.WAITING, grade=grade, problems=problems)
    return None


def _put_back(
    ws: Workspace, root_fd: int, look: Look, cure: Cure, seen: Outcome, displaced: list[Displaced]
) -> Outcome:
    """The live file shows the repaired bytes, the original is in quarantine with its patch, the catalog knows."""
    assert look.capture is not None
    assert seen.grade is not None
    judged = Judged(look.capture, seen.grade)
    done = put_back(ws, root_fd, look.rel, judged=judged, good=cure.digest, fill=cure.fill)
    if done.displaced is not None:
        displaced.append(done.displaced)
    how = replace(seen, quarantined=done.kept_as, swap_undone=done.undone)
    if not done.done:
        return replace(how, ending=Ending.RACED)
    now = ws.clock.utc()
    past = look.past or FileState(look.rel, Grade.GOOD, now, ownership=look.capture.ownership)
    state = replace(
        past, grade=Grade.GOOD, since=now, signature=None, digest=cure.digest, shape=cure.shape, last_good_at=now,
        heals=0, healed_at=None, healed_grade=None, gave_up=False, is_mass_loss=False,
    )  # fmt: skip
    ws.catalog.save_files([state])
    if cure.patch and done.kept_as is not None:
        with suppress(FileExistsError):  # the very same damage was repaired before
            ws.store.attach_patch(done.kept_as, cure.patch)
    try:
        bound_aside(ws, look.rel)
    except OSError as error:
        return replace(how, ending=Ending.HEALED, state=state, rotation_error=error)
    return replace(how, ending=Ending.HEALED, state=state)
