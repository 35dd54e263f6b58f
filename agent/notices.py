"""What people are told of an outcome, outside the log: one sentence and the next step."""

from agent.core.decide import LeftWhy
from agent.core.errors import AgentError
from agent.core.model import Grade, HealAction
from agent.core.naming import display
from agent.core.notice import Notice, NoticeKind
from agent.outcome import Ending, Outcome


def notice_of(o: Outcome, hint: str = "") -> Notice | None:
    """Return what to tell of an outcome that is news; None where it is no matter for people."""
    kind = _kind(o)
    if kind is None:
        return None
    if isinstance(o.error, AgentError):
        hint = hint or o.error.hint
    return Notice(kind, f"{display(o.rel)} {_told(o)}", None if kind is NoticeKind.DISK_LOW else o.rel, hint)


def _kind(o: Outcome) -> NoticeKind | None:
    if o.left_why is LeftWhy.PAUSED:
        return None
    if o.left_why is LeftWhy.GAVE_UP:
        return NoticeKind.GAVE_UP
    return {
        Ending.HEALED: NoticeKind.HEALED,
        Ending.HELD: NoticeKind.SUSPECT,
        Ending.LEFT: NoticeKind.DAMAGED,
        Ending.WAITING: NoticeKind.DAMAGED,
        Ending.UNREADABLE: NoticeKind.DAMAGED,
        Ending.HEAL_FAILED: NoticeKind.DAMAGED,
        Ending.REFUSED: NoticeKind.DISK_LOW,
    }.get(o.ending)


def _told(o: Outcome) -> str:  # noqa: PLR0911  (a table of endings, one row each)
    problems = f" ({o.problems[0]})" if o.problems else ""
    match o.ending:
        case Ending.HEALED if o.action is HealAction.REPAIR:
            return f"was {o.grade} and is repaired: {o.detail}"
        case Ending.HEALED:
            newer = f", because a newer one could not be read: {o.error}" if o.error else ""
            return (
                f"was {o.grade} and is restored from {display(o.snapshot.name) if o.snapshot else 'a snapshot'}{newer}"
            )
        case Ending.HELD:
            return f"looks wrong{problems}; nothing was restored, all good snapshots are held"
        case Ending.HEAL_FAILED:
            return f"is {o.grade} and could not be healed: {o.error}"
        case Ending.REFUSED:
            return f"got no snapshot: {o.error}"
        case Ending.WAITING:
            return f"is {o.grade}{problems} and written without pause, so it cannot be healed"
        case _:
            grade = o.grade or Grade.UNREADABLE
            return f"is {grade}{problems} and was left as it is"
