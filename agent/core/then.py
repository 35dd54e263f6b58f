"""How a data file was at an earlier moment, as far as its snapshots tell."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from agent.core.decide import restore_candidates
from agent.core.model import FileState, Grade, Snapshot


class Then(StrEnum):
    """What is known of a file at an earlier moment."""

    KNOWN = "known"  # a good state from then or before is kept
    NOT_YET = "not_yet"  # it came later
    GONE = "gone"  # it was missing then, and is still
    UNKNOWN = "unknown"  # no good state from then or before is kept


def how_it_was(
    snapshots: Sequence[Snapshot],
    past: FileState | None,
    at: datetime,
    *,
    guarded_since: datetime | None,
    keep_last: int,
) -> Then:
    """Return what is known of the file with these `snapshots` (all there are) at the moment `at`.

    It is said to have come later only where nothing else explains that no copy is older: the folder was guarded at
    that time, and the file has fewer good snapshots than rotation always leaves it.
    """
    if past is not None and past.grade is Grade.MISSING and past.since <= at:
        return Then.GONE
    if restore_candidates(snapshots, at=at):
        return Then.KNOWN
    was_guarded = guarded_since is not None and guarded_since <= at
    is_complete = sum(s.grade is Grade.GOOD for s in snapshots) < keep_last
    if was_guarded and is_complete and not any(s.taken_at <= at for s in snapshots):
        return Then.NOT_YET
    return Then.UNKNOWN
