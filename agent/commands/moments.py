"""The moments that people name: a time as it is written, or an age; and how the answer names them."""

from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from time import tzname

from agent.commands.wording import local_time
from agent.config.units import UnfitError, parse_duration
from agent.core.errors import UsageError

AT_HELP = "the newest good state at this time: ISO 8601, a time of day, or an age such as 90m, 2h, 3d"


def parse_time(text: str, now: datetime) -> datetime:
    """Return the moment that `text` names: ISO 8601, in local time unless it has a zone, or an age such as `2h`.

    A time of day such as `14:30` is the last one there was.

    Raises:
        UsageError: it is neither, or lies in the future.
    """
    moment: datetime | None = None
    with suppress(UnfitError, OverflowError):
        moment = now - timedelta(seconds=parse_duration(text))
    with suppress(ValueError):
        moment = _last(time.fromisoformat(text), now) if ":" in text[:3] else moment
    if moment is None:
        text, _, zone = text.rpartition(" ") if text[-1:].isalpha() and " " in text else (text, "", "")
        if zone in ("", "UTC", *tzname):  # as `list` shows times, so that they can be copied
            with suppress(ValueError, OverflowError):
                moment = datetime.fromisoformat(f"{text}Z" if zone == "UTC" else text).astimezone()
    if moment is None:
        raise UsageError(
            f"{text!r} is no time", hint="write 2026-03-01T12:00, 2026-03-01T12:00Z, 14:30, or an age: 90m, 2h, 3d"
        )
    if moment > now:
        raise UsageError(
            f"{in_both_zones(moment)} is in the future",
            hint="name a time that has been, or leave it out for the newest",
        )
    # A time to the second means all of that second: snapshots are stamped to the millisecond.
    is_to_the_millisecond = "." in text or "," in text
    return moment if moment.microsecond or is_to_the_millisecond else moment + timedelta(microseconds=999_999)


def _last(clock: time, now: datetime) -> datetime:
    """The last moment until `now` at which it was `clock`, here or in its zone."""
    today = now.astimezone(clock.tzinfo)
    moments = (datetime.combine(today.date() - timedelta(days=days), clock).astimezone() for days in (0, 1))
    return next(moment for moment in moments if moment <= now)


def in_both_zones(moment: datetime) -> str:
    """Return `moment` in UTC and, where that is another one, in the zone of this machine."""
    utc, local = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"), local_time(moment)
    return utc if utc == local else f"{utc} ({local})"
