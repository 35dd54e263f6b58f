"""How a look at one data file ended: the one value that log, metrics and the loop are told."""

from enum import StrEnum

from msgspec import Struct

from agent.core.decide import LeftWhy
from agent.core.model import FileState, Grade, HealAction, Problem, Snapshot


class Ending(StrEnum):
    """What happened to a data file that was due."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    HELD = "held"  # suspect: a copy aside, the good snapshots held
    WAITING = "waiting"  # not good, but not quiet either
    BUSY = "busy"  # a writer has it open, or another operation works on it
    CHANGED = "changed"
    DAMAGED = "damaged"  # to be healed
    LEFT = "left"  # damaged, and left for a person
    SKIPPED = "skipped"  # no regular file
    UNREADABLE = "unreadable"
    REFUSED = "refused"  # the snapshot could not be written; no grade: not even the copy that is checked
    HEALED = "healed"
    RACED = "raced"  # the bot wrote while a heal was on its way
    HEAL_FAILED = "heal_failed"
    FORGOTTEN = "forgotten"  # gone, and nothing was ever known of it


RETRIED = frozenset({Ending.UNREADABLE, Ending.REFUSED, Ending.HEAL_FAILED})
"""Endings that are tried again with a growing pause."""

SETTLED = frozenset(
    {Ending.PUBLISHED, Ending.UNCHANGED, Ending.HELD, Ending.LEFT, Ending.SKIPPED, Ending.HEALED, Ending.FORGOTTEN}
)
"""Endings after which nothing is tried again."""

SOON = frozenset({Ending.WAITING, Ending.BUSY, Ending.CHANGED, Ending.RACED})
"""Endings that are looked at again after the debounce."""


class Outcome(Struct, frozen=True):
    """The end of one look.  What does not apply is empty."""

    rel: str
    ending: Ending
    grade: Grade | None = None
    was: Grade | None = None  # the grade before
    is_news: bool = True  # False when the very same was told before
    snapshot: Snapshot | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    left_why: LeftWhy | None = None
    action: HealAction | None = None
    attempt: int = 0
    quarantined: str | None = None
    rolled_back_to: str | None = None
    rotated_count: int = 0  # by rotation
    thinned_count: int = 0  # by the space budget
    rotation_error: OSError | None = None
    lease_broken: bool = False
    swap_undone: bool = False
    detail: str = ""
    error: Exception | None = None  # of a heal: why a newer snapshot could not be read, and was passed over
    state: FileState | None = None
    duration_s: float = 0.0  # of a heal; of a publish, from due to durable
