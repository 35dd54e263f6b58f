from datetime import UTC, datetime, timedelta

import pytest

from agent.core.model import FileState, Grade, Reason, Snapshot
from agent.core.then import Then, how_it_was

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def snap(taken_at: datetime, grade: Grade = Grade.GOOD) -> Snapshot:
    return Snapshot("a.json", f"{taken_at:%H%M%S}{grade}", taken_at, "d", 2, grade, Reason.CHANGE)


def then(
    snapshots: list[Snapshot], past: FileState | None = None, since: datetime | None = NOON - 9 * HOUR, last: int = 10
) -> Then:
    return how_it_was(snapshots, past, NOON, guarded_since=since, keep_last=last)


def test_a_good_state_from_then_or_before_is_known() -> None:
    assert then([snap(NOON + HOUR), snap(NOON - HOUR)]) is Then.KNOWN


def test_a_file_whose_every_snapshot_is_newer_came_later() -> None:
    assert then([snap(NOON + HOUR)]) is Then.NOT_YET


def test_a_file_that_was_missing_then_and_still_is_was_gone() -> None:
    past = FileState("a.json", Grade.MISSING, NOON - HOUR)

    assert then([snap(NOON - 2 * HOUR)], past) is Then.GONE


def test_a_file_that_went_after_that_moment_was_there() -> None:
    past = FileState("a.json", Grade.MISSING, NOON + HOUR)

    assert then([snap(NOON - 2 * HOUR)], past) is Then.KNOWN


@pytest.mark.parametrize(
    ("snapshots", "since", "last"),
    [
        ([snap(NOON + HOUR)], NOON + HOUR, 10),  # nobody looked at that time
        ([snap(NOON + HOUR)], None, 10),
        ([snap(NOON + n * HOUR) for n in (1, 2)], NOON - HOUR, 2),  # older ones may have been rotated away
        ([snap(NOON + HOUR), snap(NOON - HOUR, Grade.SUSPECT)], NOON - HOUR, 10),  # it was there, and not good
    ],
)
def test_what_else_may_explain_it_leaves_it_open(snapshots: list[Snapshot], since: datetime | None, last: int) -> None:
    assert then(snapshots, None, since, last) is Then.UNKNOWN
