"""Change the text of a live file as a person asks: compare and swap, so that a write of the bot meanwhile wins."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from agent.checks import check
from agent.core.errors import AgentError
from agent.core.model import CheckResult, Grade, Reason
from agent.core.naming import display
from agent.core.settle import Due
from agent.disk.staging import StagedFile
from agent.displaced import Displaced, Judged
from agent.look import Look, one_look
from agent.outcome import Ending, Outcome
from agent.pipeline import Pipeline
from agent.putback import put_back
from agent.workspace import Workspace

EDIT_MAX_BYTES = 64 * 1024 * 1024
Edit = Callable[[bytes], bytes]


class EditRefusedError(AgentError):
    """The edit cannot be made, or its result would not be good; nothing was changed."""


def edit_live(
    ws: Workspace, pipeline: Pipeline, rel: str, edit: Edit, displaced: list[Displaced], *, reason: Reason
) -> Outcome:
    """Make one attempt to have `rel` show what `edit` makes of its bytes; what it showed before is kept.

    The endings: HEALED; UNCHANGED, `edit` changed nothing; RACED, BUSY or CHANGED, try again; LEFT (with an
    `EditRefusedError`), SKIPPED, UNREADABLE or HEAL_FAILED, the live file is as it was.  Once edited, the new state is
    looked at like any change, for `reason`; the error says why it got no snapshot.  `displaced` gets the inode to keep
    an eye on.

    Raises:
        EditRefusedError: `edit` raised it.
        Otherwise as `Pipeline.run`.
    """
    due = Due(rel, quiet=True, first_at=ws.clock.monotonic())
    pipeline.run([due], Reason.PRE_RESTORE)
    with one_look(ws, rel, at_gate=False) as (root_fd, look):
        done = _swapped(ws, root_fd, look, edit, displaced)
    if done.ending is Ending.HEALED:
        seen = pipeline.run([due], reason)[0]
        return replace(done, state=seen.state, snapshot=seen.snapshot, error=seen.error)
    return done


def _swapped(ws: Workspace, root_fd: int, look: Look, edit: Edit, displaced: list[Displaced]) -> Outcome:
    refusal = _unfit(look)
    if refusal is not None:
        return refusal
    assert look.capture is not None
    assert look.result is not None
    caught, grade = look.capture, look.result.grade
    data = caught.content if isinstance(caught.content, bytes) else Path(caught.content.path).read_bytes()
    edited = edit(data)
    if edited == data:
        return Outcome(look.rel, Ending.UNCHANGED, grade=grade)
    result = check(edited, look.rule.check)
    if result.grade is not Grade.GOOD:
        return _not_good(look, result)
    try:
        done = put_back(
            ws, root_fd, look.rel, judged=Judged(caught, grade), good=hashlib.sha256(edited).hexdigest(),
            fill=partial(_write, edited),
        )  # fmt: skip
    except OSError as error:
        return Outcome(look.rel, Ending.HEAL_FAILED, grade=grade, error=error)
    if done.displaced is not None:
        displaced.append(done.displaced)
    ending = Ending.HEALED if done.done else Ending.RACED
    return Outcome(look.rel, ending, grade=grade, swap_undone=done.undone, quarantined=done.kept_as)


def _unfit(look: Look) -> Outcome | None:
    """The outcome for a state that has no text to be edited, or not now."""
    if look.capture is None or look.result is None:
        if look.outcome is not None and look.outcome.ending not in (Ending.WAITING, Ending.FORGOTTEN):
            return replace(look.outcome, grade=look.outcome.grade or Grade.UNREADABLE)
        return _refused(look, Grade.MISSING, "is missing", "`backup-agent restore` brings back all of it")
    if look.result.grade in (Grade.CORRUPT, Grade.UNREADABLE):
        grade = look.result.grade
        return _refused(look, grade, f"is {grade}", "`backup-agent restore` brings back all of it")
    if look.capture.signature.size_bytes > EDIT_MAX_BYTES:
        return _refused(look, look.result.grade, "is too large to be edited", "edit it by hand, with the bot stopped")
    return None


def _write(data: bytes, staged: StagedFile) -> bool:
    staged.write(data)
    return True


def _not_good(look: Look, result: CheckResult) -> Outcome:
    problems = "; ".join(str(problem) for problem in result.problems[:3])
    outcome = _refused(look, result.grade, f"would be {result.grade}: {problems}", "nothing was changed")
    return replace(outcome, problems=result.problems)


def _refused(look: Look, grade: Grade, what: str, hint: str) -> Outcome:
    return Outcome(look.rel, Ending.LEFT, grade=grade, error=EditRefusedError(f"{display(look.rel)} {what}", hint=hint))
