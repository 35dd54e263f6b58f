"""How other programs call the copies they keep: whose they are, and when they were taken."""

import re
from datetime import UTC, datetime, timedelta, timezone

from msgspec import Struct

from agent.core.naming import COMPRESSION_SUFFIXES, Kind, is_reserved, parse_name, plain_parts, split_suffix

OLD_FOLDERS = frozenset({"backup", "backups", "bak", "old", "archive"})
"""Folders that hold copies of what lies beside them, by their name."""

COPY_MARK = "_backup_"
_ENDINGS = re.compile(r"(?P<own>.+)(?:\.(?:bak|backup|old|orig)|~)", re.DOTALL)
_BEFORE_SUFFIX = re.compile(r"(?P<stem>.+)\.(?:bak|backup|old|orig)(?P<suffix>\.[^./]+)", re.DOTALL)

_may_be_copy = re.compile(rf"{COPY_MARK}|\.(?:bak|backup|old|orig)(?:\Z|\.)|~\Z").search  # most are none

_FOREIGN_DATE = re.compile(
    r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})"
    r"(?:[T_ -]?([0-9]{2})[:_-]?([0-9]{2})(?:[:_-]?([0-9]{2})(?:[.,_-]([0-9]{1,9}))?)?)?"
    r"(?:Z|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ARCHIVE_SUFFIXES = (*COMPRESSION_SUFFIXES, ".bz2", ".xz", ".zip")


class CopyName(Struct, frozen=True):
    """What the name of a copy tells: the data file beside it, and the time, where it bears one."""

    rel: str
    taken_at: datetime | None


def parse_copy(path: str) -> CopyName | None:
    """Return what `path` tells when it is called like a copy of a data file; that file need not exist."""
    if not _may_be_copy(path):
        return None
    parsed = parse_name(path)
    if parsed is not None:
        is_plain = parsed.kind is Kind.BACKUP and parsed.rel is not None and not parsed.compression_suffix
        return CopyName(parsed.rel or "", parsed.taken_at) if is_plain else None
    foreign = parse_foreign(path)
    if foreign is not None:
        return CopyName(*foreign)
    folder, slash, base = path.rpartition("/")
    if match := _ENDINGS.fullmatch(base):
        return CopyName(f"{folder}{slash}{match['own']}", None)
    if match := _BEFORE_SUFFIX.fullmatch(base):
        return CopyName(f"{folder}{slash}{match['stem']}{match['suffix']}", None)
    return None


def is_dated_copy(path: str) -> bool:
    """Whether the name says `_backup_` and when: no bot calls its live data so."""
    if COPY_MARK not in path:
        return False
    name = parse_copy(path)
    return name is not None and name.taken_at is not None


def without_old_folder(rel: str) -> str | None:
    """Return `rel` as it is called outside of a folder for copies, or None when it lies in none."""
    top, slash, rest = rel.partition("/")
    return rest if slash and top.lower() in OLD_FOLDERS else None


def parse_foreign(name: str) -> tuple[str, datetime | None] | None:
    """Return the data file and time of a backup that another program called `STEM_backup_LABEL.SUFFIX`.

    The label may be a date with or without a clock, or seconds or milliseconds since 1970; a time without a zone is
    taken as UTC.  Any other label, and an impossible date, leaves the time None: the file's mtime is the best guess.
    None for everything else, and for archives, whose bytes are not the data file's.  Ask `parse_name` first.
    """
    try:
        *folders, base = plain_parts(name)
    except ValueError:
        return None
    stem, marker, tail = base.rpartition(COPY_MARK)
    if not (stem and marker and tail) or is_reserved(folders):
        return None
    label, suffix = tail, ""
    if _foreign_time(tail) is None:
        label, suffix = split_suffix(tail)
    own = f"{stem}{suffix}"
    if suffix in _ARCHIVE_SUFFIXES or own in (".", ".."):
        return None
    return "/".join([*folders, own]), _foreign_time(label)


def _foreign_time(label: str) -> datetime | None:
    if re.fullmatch(r"[0-9]{13}", label):
        return _EPOCH + timedelta(milliseconds=int(label))
    if re.fullmatch(r"[0-9]{10}", label):
        return _EPOCH + timedelta(seconds=int(label))
    match = _FOREIGN_DATE.fullmatch(label)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = match.groups()
    offset = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
    microsecond = int((fraction or "").ljust(3, "0")[:3]) * 1000
    clock = int(hour or 0), int(minute or 0), int(second or 0), microsecond
    try:
        zone = timezone(-offset if sign == "-" else offset)
        return datetime(int(year), int(month), int(day), *clock, zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
