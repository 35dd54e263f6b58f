from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.stamp import NoLaterStampError, format_stamp, next_stamp, parse_stamp

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
moments = st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))


@given(first=moments, second=moments)
def test_stamps_come_back_the_same_and_sort_as_their_times(first: datetime, second: datetime) -> None:
    stamps = format_stamp(first), format_stamp(second)

    assert parse_stamp(stamps[0]) == first
    assert (stamps[0] < stamps[1]) == (first < second)


def test_a_stamp_is_utc_whatever_the_zone_of_the_clock() -> None:
    assert format_stamp(NOON.astimezone(timezone(timedelta(hours=5)))) == "2024-01-01T12-00-00-000Z"


@pytest.mark.parametrize("moment", [NOON.replace(tzinfo=None), NOON.replace(microsecond=1)])
def test_a_time_that_would_not_come_back_the_same_is_refused(moment: datetime) -> None:
    with pytest.raises(ValueError, match="whole milliseconds"):
        format_stamp(moment)


@given(now=st.datetimes(timezones=st.just(UTC)), newest=st.none() | st.datetimes(timezones=st.just(UTC)))
def test_the_next_stamp_is_whole_later_than_the_newest_and_no_later_than_needed(
    now: datetime, newest: datetime | None
) -> None:
    if newest is not None and newest > datetime.max.replace(tzinfo=UTC) - timedelta(milliseconds=2):
        return

    stamp = next_stamp(now, newest)

    assert stamp.microsecond % 1000 == 0
    assert newest is None or stamp > newest
    assert stamp <= now or (newest is not None and stamp - newest <= timedelta(milliseconds=1))
    assert now - stamp < timedelta(milliseconds=1)


def test_a_clock_set_back_makes_a_later_stamp() -> None:
    assert next_stamp(NOON - timedelta(hours=1), NOON) == NOON + timedelta(milliseconds=1)


def test_a_newest_snapshot_at_the_end_of_time_is_refused_with_the_way_out() -> None:
    planted = parse_stamp("9999-12-31T23-59-59-999Z")

    with pytest.raises(NoLaterStampError) as caught:
        next_stamp(NOON, planted)

    assert "9999-12-31" in str(caught.value)
    assert "move that file" in caught.value.hint
