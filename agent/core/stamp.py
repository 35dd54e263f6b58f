"""The moment in the name of a snapshot: UTC to the millisecond, in a form that sorts as time does."""

import re
from datetime import UTC, datetime, timedelta

from agent.core.errors import AgentError

STAMP = r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2})-([0-9]{2})-([0-9]{2})-([0-9]{3})Z"
STAMP_BYTES = len("2024-01-01T12-00-00-000Z")
_MILLISECOND = timedelta(milliseconds=1)


class NoLaterStampError(AgentError):
    """The newest snapshot bears the last moment a stamp can tell; nothing was written."""


def format_stamp(moment: datetime) -> str:
    """Return `moment` as it stands in names, such as `2024-01-01T12-00-00-000Z`; stamps sort as their times do.

    Raises:
        ValueError: the moment has no time zone or is finer than a millisecond, so it would not come back the same.
    """
    if moment.tzinfo is None or moment.microsecond % 1000:
        raise ValueError(f"a stamp needs a time zone and whole milliseconds: {moment!r}")
    utc = moment.astimezone(UTC)
    day, clock = f"{utc.year:04}-{utc.month:02}-{utc.day:02}", f"{utc.hour:02}-{utc.minute:02}-{utc.second:02}"
    return f"{day}T{clock}-{utc.microsecond // 1000:03}Z"


def parse_stamp(stamp: str) -> datetime | None:
    """Return the UTC time of a stamp made by `format_stamp`; None for any other text and for impossible dates."""
    match = re.fullmatch(STAMP, stamp)
    if match is None:
        return None
    year, month, day, hour, minute, second, millisecond = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, millisecond * 1000, UTC)
    except ValueError:
        return None


def next_stamp(now: datetime, newest: datetime | None) -> datetime:
    """Return the stamp for a snapshot taken `now`: whole milliseconds, later than the `newest` there is.

    So two snapshots in one millisecond do not collide, and a clock that was set back makes no older snapshot.

    Raises:
        NoLaterStampError: `newest` stands at the end of the year 9999, which only a planted name does.
    """
    stamp = _whole_milliseconds(now.astimezone(UTC))
    if newest is None or stamp > newest:
        return stamp
    try:
        return _whole_milliseconds(newest.astimezone(UTC)) + _MILLISECOND
    except OverflowError as error:
        raise NoLaterStampError(
            f"the newest snapshot is stamped {newest.isoformat()}, and no time is later",
            hint="move that file out of the backup folder: no clock wrote its name",
        ) from error


def _whole_milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
