"""How snapshots are called: names that sort by time, that people can read, and that can be read back exactly.

A snapshot's name is its path relative to `backup_dir`.  For the data file `sub/users.json`:

    sub/users_backup_2024-01-01T12-00-00-000Z.json              good; `.zst` or `.gz` follows when compressed
    _suspect/sub/users_suspect_2024-01-01T12-00-00-000Z.json    set apart, so that no search for `*_backup_*` finds it
    _quarantine/sub/users_quarantined_2024-01-01T12-00-00-000Z.json
    _reference/sub/users_reference_2024-01-01T12-00-00-000Z.json.zst    what packed snapshots are packed against

What keeps the way back exact:

- Only the last suffix moves behind the stamp.  A suffix holds no dot and no underscore, so nothing behind the stamp
  can look like another stamp: the last stamp in a name is the real one, whatever the data file is called.
- One suffix behind the stamp is always the data file's own (`x.json.gz` gives `x.json_backup_STAMP.gz`); only a second
  one is a compression.  A file without a suffix has `_` in the first place: `Makefile_backup_STAMP_.gz`.
- A top-level folder that bears a reserved name gets one more leading underscore; so does one that already has some.
- A name too long for the stamp is cut and carries `~` and 8 hex digits of its path's digest; so does, uncut, one that
  ends like that by nature.  `belongs_to` tells whose such a name is.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from agent.core.stamp import STAMP, STAMP_BYTES, format_stamp, parse_stamp

TEMP_PREFIX = "backup-agent-"
TEMP_SUFFIX = ".tmp"
COMPRESSION_SUFFIXES = (".zst", ".gz")
NAME_MAX_BYTES = 255


class Kind(StrEnum):
    """Which of the shelves of `backup_dir` a copy stands on.  A reference is no snapshot: packed ones need it."""

    BACKUP = "backup"
    SUSPECT = "suspect"
    QUARANTINED = "quarantined"
    REFERENCE = "reference"


class ParsedName(Struct, frozen=True):
    """What a snapshot's name tells.

    `rel` is None when the name was cut.  Then the data file's path begins with `rel_prefix`, but for a top-level folder
    that fills its 255 bytes and looks reserved, which may miss one underscore there.  `belongs_to` decides.
    """

    rel: str | None
    rel_prefix: str
    taken_at: datetime  # UTC, whole milliseconds
    kind: Kind
    compression_suffix: str  # "", ".zst" or ".gz"


REFERENCES = "_reference"
_FOLDERS = {
    Kind.BACKUP: None, Kind.SUSPECT: "_suspect", Kind.QUARANTINED: "_quarantine", Kind.REFERENCE: REFERENCES
}  # fmt: skip
_RESERVED = re.compile(r"_suspect|_quarantine|_reference|_migration|\.agent")
_RESERVED_LIKE = re.compile(rf"_*(?:{_RESERVED.pattern})")
_ESCAPED = re.compile(rf"_+(?:{_RESERVED.pattern})")

_SUFFIX = r"\.[^._]{1,16}"
_is_suffix = re.compile(_SUFFIX).fullmatch
_COMPRESSION = "|".join(re.escape(suffix) for suffix in COMPRESSION_SUFFIXES)
_BASES = {
    kind: re.compile(
        rf"(?P<stem>.*)_{kind}_(?P<stamp>{STAMP})"
        rf"(?:(?P<suffix>{_SUFFIX})?(?P<compression>{_COMPRESSION})?|_(?P<lone>{_COMPRESSION}))",
        re.DOTALL,
    )
    for kind in Kind
}
_SHORTENED = re.compile(r"(?P<stem>.*)~(?P<digest>[0-9a-f]{8})", re.DOTALL)
_DIGEST_BYTES = len("~01234567")
# The room for the data file's own name is the same for every kind and compression, so that all copies of one file
# begin alike: what is left beside the longest marker, the stamp and the longest ending.
_OWN_MAX_BYTES = NAME_MAX_BYTES - len(f"_{Kind.QUARANTINED}_") - STAMP_BYTES - len("_.zst")


def snapshot_name(rel: str, taken_at: datetime, kind: Kind = Kind.BACKUP, compression_suffix: str = "") -> str:
    """Return the path, relative to `backup_dir`, of the copy of `rel` taken at `taken_at`.

    No part of it is longer than 255 bytes if no part of `rel` is.

    Raises:
        ValueError: `rel` leaves its folder, `taken_at` is no UTC-aware time in whole milliseconds, or the compression
            is unknown: the caller is wrong.
    """
    *folders, base = plain_parts(rel)
    if compression_suffix and compression_suffix not in COMPRESSION_SUFFIXES:
        raise ValueError(f"unknown compression suffix {compression_suffix!r}")
    stem, suffix = split_suffix(base)
    unescapable = False
    if folders and _RESERVED_LIKE.fullmatch(folders[0]):
        # With no room for the underscore, the digest in the file's name tells this folder from the one it looks like.
        unescapable = _size(folders[0]) >= NAME_MAX_BYTES
        folders[0] = folders[0] if unescapable else f"_{folders[0]}"
    if unescapable or _size(base) > _OWN_MAX_BYTES or _SHORTENED.fullmatch(stem):
        stem = f"{_cut(stem, _OWN_MAX_BYTES - _DIGEST_BYTES - _size(suffix))}~{_short_digest(rel)}"
    if compression_suffix and not suffix:
        suffix = "_"
    base = f"{stem}_{kind}_{format_stamp(taken_at)}{suffix}{compression_suffix}"
    shelf = _FOLDERS[kind]
    return "/".join([*([shelf] if shelf else []), *folders, base])


def parse_name(name: str) -> ParsedName | None:
    """Return what `snapshot_name` was told to make `name`, or None when it never makes such a name."""
    try:
        *folders, base = plain_parts(name)
    except ValueError:
        return None
    kind = next((k for k, shelf in _FOLDERS.items() if shelf and folders[:1] == [shelf]), Kind.BACKUP)
    if kind is not Kind.BACKUP:
        del folders[0]
    match = _BASES[kind].fullmatch(base)
    taken_at = parse_stamp(match["stamp"]) if match else None
    if match is None or taken_at is None or is_reserved(folders):
        return None
    stem, suffix = match["stem"], match["suffix"] or ""
    compression = match["compression"] or match["lone"] or ""
    origins = _origins(folders)
    shortened = _SHORTENED.fullmatch(stem)
    if shortened is None:
        rel = f"{origins[0]}{stem}{suffix}"
        if not _is_made(name, rel, taken_at, kind, compression):
            return None
        return ParsedName(rel, rel, taken_at, kind, compression)
    uncut = [f"{origin}{shortened['stem']}{suffix}" for origin in origins]
    whole = [rel for rel in uncut if _is_made(name, rel, taken_at, kind, compression)]
    if whole:
        return ParsedName(whole[0], whole[0], taken_at, kind, compression)
    prefix = f"{origins[0]}{shortened['stem']}"
    return ParsedName(None, prefix, taken_at, kind, compression)


def belongs_to(name: str, rel: str) -> bool:
    """Tell whether `name` is a copy of `rel`, also where the name was cut.

    Two cut names are told apart by 32 bits of digest beside what was left of them.
    """
    parsed = parse_name(name)
    return parsed is not None and _is_made(name, rel, parsed.taken_at, parsed.kind, parsed.compression_suffix)


def is_temp_name(name: str) -> bool:
    """Tell whether the last part of `name` is one of this program's staging files; the bot's own never are."""
    return name.endswith(TEMP_SUFFIX) and name.rpartition("/")[2].startswith(TEMP_PREFIX)


_JOINERS = "\u200c\u200d"  # invisible, but emoji and Persian words are made with them
_ESCAPES = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def display(rel: str) -> str:
    r"""Return `rel` on one printable line for people, logs and labels; different paths stay different.

    Letters and emoji of every script stay as they are.  A byte that is not UTF-8 becomes `\xe9`, a control or
    direction character `\x1b` or `\u202e`, a backslash two.
    """
    if rel.isprintable() and "\\" not in rel:
        return rel
    return "".join(_displayed(character) for character in rel)


def _displayed(character: str) -> str:
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() or character in _JOINERS:
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _is_made(name: str, rel: str, taken_at: datetime, kind: Kind, compression_suffix: str) -> bool:
    try:
        return snapshot_name(rel, taken_at, kind, compression_suffix) == name
    except ValueError:  # no data file can be called `rel`
        return False


def is_reserved(folders: Sequence[str]) -> bool:
    """Tell whether what lies in these folders of the backup folder is on a shelf, or no snapshot at all."""
    return bool(folders) and _RESERVED.fullmatch(folders[0]) is not None


def plain_parts(path: str) -> list[str]:
    """Return the parts of a relative path that stays where it is; ValueError for any other."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise ValueError(f"not a plain relative path: {path!r}")
    return parts


def _origins(folders: list[str]) -> list[str]:
    """Return the folders of data files, each "" or with a final slash, that these mirrored folders may stand for."""
    plain = "".join(f"{folder}/" for folder in folders)
    if not folders or not _ESCAPED.fullmatch(folders[0]):
        return [plain]
    return [plain[1:], plain] if _size(folders[0]) >= NAME_MAX_BYTES else [plain[1:]]


def split_suffix(base: str) -> tuple[str, str]:
    """Split off the last suffix; a dotfile has none, nor has a file whose last suffix is odd or very long."""
    stem, dot, ending = base.rpartition(".")
    if stem.strip(".") and _is_suffix(dot + ending):
        return stem, dot + ending
    return base, ""


def _cut(text: str, limit_bytes: int) -> str:
    """Return the longest beginning of `text` within the limit that ends between two characters."""
    while _size(text) > limit_bytes:
        text = text[:-1]
    return text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _size(text: str) -> int:
    return len(_encoded(text))


def _short_digest(rel: str) -> str:
    return hashlib.sha256(_encoded(rel)).hexdigest()[:8]
