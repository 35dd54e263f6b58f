"""How other programs call the copies they keep beside the data: whose they are, and when they were taken."""

import re
from dataclasses import dataclass
from datetime import datetime

from agent.core.naming import Kind, parse_foreign, parse_name

OLD_FOLDERS = frozenset({"backup", "backups", "bak", "old", "archive"})
"""Folders that hold copies of what lies beside them, by their name."""

_MARK = "_backup_"
_ENDINGS = re.compile(r"(?P<own>.+)(?:\.(?:bak|backup|old|orig)|~)", re.DOTALL)
_BEFORE_SUFFIX = re.compile(r"(?P<stem>.+)\.(?:bak|backup|old|orig)(?P<suffix>\.[^./]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CopyName:
    """What the name of a copy tells: the data file beside it, and the time, where it bears one."""

    rel: str
    taken_at: datetime | None


def parse_copy(path: str) -> CopyName | None:
    """Return what `path` tells when it is called like a copy of a data file; that file need not exist."""
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
    if _MARK not in path:
        return False
    name = parse_copy(path)
    return name is not None and name.taken_at is not None


def without_old_folder(rel: str) -> str | None:
    """Return `rel` as it is called outside of a folder for copies, or None when it lies in none."""
    top, slash, rest = rel.partition("/")
    return rest if slash and top.lower() in OLD_FOLDERS else None
