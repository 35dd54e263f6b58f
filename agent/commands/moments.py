"""The moments that people name: a time as it is written, or an age; and how the answer names them."""

import re
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from time import tzname

from agent.commands.wording import local_time
from agent.config.units import UnfitError, parse_duration
from agent.core.errors import UsageError
from agent.core.stamp import parse_stamp

AT_HELP = "the newest good state at this time: ISO 8601, a time of day, or an age such as 90m, 2h, 3d"


_age = re.compile(
    r"\s*(\d+)\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)(?:\s+ago)?\s*", re.IGNORECASE
)
_date = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?!\d)")


def parse_time(text: str, now: datetime) -> datetime:
    """Return the moment that `text` names: ISO 8601, in local time unless it has a zone, or an age such as `2h`.

    A time of day such as `14:30` is the last one there was, `yesterday` is a day ago, and the stamp in the name of a
    snapshot is its own time.

    Raises:
        UsageError: it is neither, or lies in the future.
    """
    moment = parse_stamp(text) or _ago(text, now) or _clock(text, now) or _written(text)
    if moment is None:
        raise UsageError(
            f"{text!r} is no time{_what_is_wrong(text)}",
            hint="write 2026-03-01T12:00, 2026-03-01T12:00Z, 14:30, or an age: 90m, 2h, 3d, '5 minutes ago'",
        )
    if moment > now:
        raise UsageError(
            f"{in_both_zones(moment)} is in the future",
            hint="name a time that has been, or leave it out for the newest",
        )
    # A time to the second means all of that second: snapshots are stamped to the millisecond.
    is_to_the_millisecond = "." in text or "," in text or parse_stamp(text) is not None
    return moment if moment.microsecond or is_to_the_millisecond else moment + timedelta(microseconds=999_999)


def _ago(text: str, now: datetime) -> datetime | None:
    """The moment so long ago as `text` says, in the words of the config or of people."""
    if text.strip().lower() == "yesterday":
        return now - timedelta(days=1)
    found = _age.fullmatch(text)
    with suppress(UnfitError, OverflowError):
        return now - timedelta(seconds=parse_duration(found[1] + found[2][0].lower() if found else text))
    return None


def _clock(text: str, now: datetime) -> datetime | None:
    """The last moment at which it was `text`, a time of day."""
    clock, _, zone = text.partition(" ")
    if ":" not in clock[:3] or zone not in ("", "UTC", "Z", *tzname):
        return None
    with suppress(ValueError):
        return _last(time.fromisoformat(f"{clock}Z" if zone in ("UTC", "Z") else clock), now)
    return None


def _written(text: str) -> datetime | None:
    """The moment of a date and a time, with the zone as `list` shows it, so that it can be copied."""
    text, _, zone = text.rpartition(" ") if text[-1:].isalpha() and " " in text else (text, "", "")
    if zone in ("", "UTC", *tzname):
        with suppress(ValueError, OverflowError):
            return datetime.fromisoformat(f"{text}Z" if zone == "UTC" else text).astimezone()
    return None


def _what_is_wrong(text: str) -> str:
    """Why a date that looks like one cannot be."""
    date = _date.match(text)
    if date is None:
        return ""
    try:
        datetime(int(date[1]), int(date[2]), int(date[3]), tzinfo=UTC)
    except ValueError as error:
        return f": {error}"
    return ""


def _last(clock: time, now: datetime) -> datetime:
    """The last moment until `now` at which it was `clock`, here or in its zone."""
    today = now.astimezone(clock.tzinfo)
    moments = (datetime.combine(today.date() - timedelta(days=days), clock).astimezone() for days in (0, 1))
    return next(moment for moment in moments if moment <= now)


def in_both_zones(moment: datetime) -> str:
    """Return `moment` in UTC and, where that is another one, in the zone of this machine."""
    utc, local = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"), local_time(moment)
    return utc if utc == local else f"{utc} ({local})"
