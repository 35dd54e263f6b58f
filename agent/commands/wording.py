"""How commands speak: times, ages, sizes and tables for people, JSON for programs."""

import json
import pwd
import sys
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime

from agent.commands.caller import pasteable
from agent.core.model import Problem, Shape, Snapshot
from agent.core.naming import display

_DAY_S = 86400
_SPANS = (
    (365 * _DAY_S, "year"),
    (30 * _DAY_S, "month"),
    (7 * _DAY_S, "week"),
    (_DAY_S, "day"),
    (3600, "hour"),
    (60, "minute"),
)


def local_time(moment: datetime) -> str:
    """Return `moment` in the zone of this machine, to the second, with the zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def iso_time(moment: datetime | None) -> str | None:
    """Return `moment` in UTC to the millisecond, as ISO 8601."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(moment: datetime, now: datetime) -> str:
    """Return how long ago `moment` was, in its largest whole unit."""
    seconds = (now - moment).total_seconds()
    if seconds < -1:
        return "in the future"
    return "just now" if seconds < 1 else f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """Return a length of time in its largest whole unit."""
    for length, word in _SPANS:
        if seconds >= 2 * length or (seconds >= length and word in ("minute", "hour", "day")):
            return counted(int(seconds // length), word)
    return counted(int(seconds), "second")


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def before(moment: datetime, at: datetime) -> str:
    """Return how much older than `at` a state from `moment` is."""
    seconds = (at - moment).total_seconds()
    return f"{span(seconds)} before that" if seconds >= 1 else "in that very second"


def size(size_bytes: int) -> str:
    """Return a size as people read it, in the units that the config takes."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    amount = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1000:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def records(shape: Shape | None) -> str:
    return "-" if shape is None or shape.records is None else f"{shape.records:,}"


def described(snapshot: Snapshot, now: datetime, at: datetime | None = None) -> str:
    """Return what a person needs to recognise a snapshot by; one chosen for a moment `at` with what lies between."""
    when = age(snapshot.taken_at, now) if at is None else before(snapshot.taken_at, at)
    parts = [local_time(snapshot.taken_at), when, size(snapshot.size_bytes)]
    if snapshot.shape is not None and snapshot.shape.records is not None:
        parts.append(counted(snapshot.shape.records, "record"))
    return ", ".join([*parts, str(snapshot.grade)])


def why(error: Exception) -> str:
    """Return what is wrong as a person says it; a path of our own making, as those in /proc, is left out."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename if isinstance(error.filename, str) else ""
    where = f": {display(name)}" if name and not name.startswith("/proc/") else ""
    return f"{error.strerror}{where}"


def user_name(uid: int) -> str:
    """Return the name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> Iterator[str]:
    """Yield the lines of an aligned table; the columns whose numbers are in `right` end together."""
    widths = [max(map(_width, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        cells = [
            " " * (width - _width(cell)) + cell if column in right else cell + " " * (width - _width(cell))
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _width(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def print_json(value: object) -> None:
    """Print `value` in ASCII alone: file names that are not UTF-8 come through as escaped surrogates."""
    print(json.dumps(value, indent=2))


def say(line: str = "") -> None:
    """Print a line for people, on whatever terminal: a character it lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def advise(line: str) -> None:
    """As `say`, for a line with a command in it: that repeats the config and folder that the caller named."""
    say(pasteable(line))


def snapshot_as_json(snapshot: Snapshot) -> dict[str, object]:
    return {
        "file": snapshot.rel, "name": snapshot.name, "taken_at": iso_time(snapshot.taken_at),
        "size_bytes": snapshot.size_bytes, "stored_bytes": snapshot.stored_bytes,
        "records": snapshot.shape.records if snapshot.shape else None, "grade": snapshot.grade.value,
        "reason": snapshot.reason.value, "pinned": snapshot.pinned, "sha256": snapshot.digest,
    }  # fmt: skip


def problems_as_json(problems: Sequence[Problem]) -> list[dict[str, object]]:
    return [
        {"kind": p.kind, "message": p.message, "line": p.line, "column": p.column, "pointer": p.pointer}
        for p in problems
    ]
