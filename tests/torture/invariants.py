"""What must be true of the folders of one bot after any fault and the start that followed it.

Written once for every torture.  Nothing here goes through the agent's own store or catalog: snapshots are read as
plain files, the catalog with SQLite and the journal as lines.  Only the names of copies are parsed by `core.naming`.
"""

import contextlib
import gzip
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.core.naming import Kind, is_temp_name, parse_name

ABSENT = ""  # stands for a digest where a file may be missing
_NOT_SNAPSHOTS = (".agent", "_migration", "_reference")
_PACKED = b"\x5c\x2a\x4d\x18"
_GRADES = {
    Kind.BACKUP: {"good"},
    Kind.SUSPECT: {"suspect"},
    Kind.QUARANTINED: {"corrupt", "invalid", "missing", "unreadable"},
}


@dataclass(frozen=True)
class Expected:
    """What was true before the fault, and what may be true after it.

    Digests are sha256 in hex.  `live` names the states that each data file may show (ABSENT: none).  `good` names, for
    each file that had a good snapshot, the digests that its newest good one may have: the one known before, and newer
    good states.  `kept` names states that must be somewhere still, live or as a copy: what a heal displaced.
    `dress` is the owner, group and mode that each file has whenever it is there.
    """

    live: Mapping[str, frozenset[str]]
    good: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    dress: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """One file on a shelf of the backup folder; `digest` is that of its plain bytes, None when they are not whole."""

    name: str
    kind: Kind
    rel: str | None
    stamp: str
    digest: str | None
    mode: int


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def violations(data_dir: Path, backup_dir: Path, states: Mapping[str, bytes], expected: Expected) -> list[str]:
    """Return every broken promise as one line; empty when all hold.

    `states` are all that were ever written to any data file, by digest.
    """
    copies = list(copies_in(backup_dir))
    state_dir = backup_dir / ".agent"
    return [
        *live_violations(data_dir, expected),
        *copy_violations(copies, states, expected),
        *restorable_violations(backup_dir, copies, expected),
        *kept_violations(data_dir, copies, expected),
        *leftover_violations(data_dir, backup_dir),
        *catalog_violations(state_dir, copies),
        *reference_violations(backup_dir, copies),
        *journal_violations(state_dir, copies),
    ]


def copies_in(backup_dir: Path) -> Iterator[Copy]:
    """Yield every file of the backup folder that stands on a shelf, whatever it holds."""
    for path in sorted(_files_below(backup_dir)):
        name = path.relative_to(backup_dir).as_posix()
        if name.split("/")[0] in _NOT_SNAPSHOTS:
            continue
        parsed = parse_name(name)
        if parsed is None:
            continue
        try:
            digest = digest_of(_plain(path, parsed.compression_suffix, backup_dir))
        except Exception:  # each codec has its own errors for damage
            digest = None
        status = path.lstat()
        yield Copy(name, parsed.kind, parsed.rel, str(parsed.taken_at), digest, stat.S_IMODE(status.st_mode))


def live_violations(data_dir: Path, expected: Expected) -> list[str]:
    """Each data file is one of its states, whole, and its owner's."""
    found = []
    for rel, allowed in expected.live.items():
        path = data_dir / rel
        try:
            digest = digest_of(path.read_bytes())
        except FileNotFoundError:
            digest = ABSENT
        if digest not in allowed:
            found.append(
                f"live: {rel} {'is absent' if digest == ABSENT else f'shows {digest[:12]}'}, neither old nor new"
            )
        if digest == ABSENT or rel not in expected.dress:
            continue
        status = path.lstat()
        worn = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        if worn != expected.dress[rel]:
            found.append(f"dress: {rel} has owner, group, mode {_dress(worn)}, not {_dress(expected.dress[rel])}")
    return found


def copy_violations(copies: Sequence[Copy], states: Mapping[str, bytes], expected: Expected) -> list[str]:
    """Each copy is one of the states that were written, whole, and for no more eyes than its source."""
    found = []
    for copy in copies:
        if copy.digest is None or copy.digest not in states:
            found.append(f"snapshot: {copy.name} holds bytes that no file ever held whole")
        worn = expected.dress.get(copy.rel or "")
        if worn is not None and copy.mode & ~worn[2]:
            found.append(f"dress: {copy.name} has mode {copy.mode:o}, wider than {worn[2]:o} of its source")
    return found


def restorable_violations(backup_dir: Path, copies: Sequence[Copy], expected: Expected) -> list[str]:
    """The newest good copy is the good state known before, or a newer one; and the catalog would take it."""
    rows = _rows(backup_dir / ".agent", "SELECT name, digest, grade FROM snapshots WHERE doomed=0")
    known = {os.fsdecode(name): (digest, grade) for name, digest, grade in rows} if rows is not None else None
    found = []
    for rel, allowed in expected.good.items():
        good = [c for c in copies if c.kind is Kind.BACKUP and c.rel == rel]
        newest = max(good, key=lambda c: c.stamp, default=None)
        if newest is None:
            found.append(f"good: {rel} has no good copy left")
        elif newest.digest not in allowed:
            found.append(f"good: the newest copy of {rel}, {newest.name}, is not the good state known before nor newer")
        elif known is not None and known.get(newest.name) != (newest.digest, "good"):
            found.append(f"good: the catalog takes {newest.name} for {known.get(newest.name)}")
    return found


def kept_violations(data_dir: Path, copies: Sequence[Copy], expected: Expected) -> list[str]:
    """What a heal displaced is not lost."""
    there = {copy.digest for copy in copies}
    for rel in expected.live:
        with contextlib.suppress(FileNotFoundError):
            there.add(digest_of((data_dir / rel).read_bytes()))
    return [f"kept: the state {digest[:12]} is nowhere any more" for digest in sorted(expected.kept - there)]


def leftover_violations(data_dir: Path, backup_dir: Path) -> list[str]:
    """No temporary file of ours is left anywhere.  Only after a start that went to its end."""
    found = {path for folder in (data_dir, backup_dir) for path in _files_below(folder) if is_temp_name(path.name)}
    return [f"leftover: {path}" for path in sorted(found)]


def catalog_violations(state_dir: Path, copies: Sequence[Copy]) -> list[str]:
    """The catalog is whole and knows the copies that are there, as they are, and no others."""
    try:
        rows = _rows(state_dir, "SELECT name, digest, grade, stored, doomed FROM snapshots")
        checked = _rows(state_dir, "PRAGMA integrity_check")
    except sqlite3.Error as error:
        return [f"catalog: {error}"]
    if rows is None or checked is None:
        return ["catalog: there is none"]
    found = [f"catalog: {row[0]}" for row in checked if row[0] != "ok"]
    known = {os.fsdecode(name): (digest, grade, stored) for name, digest, grade, stored, _ in rows}
    found += [f"catalog: {os.fsdecode(name)} is still to be deleted" for name, *_, doomed in rows if doomed]
    there = {copy.name: copy for copy in copies}
    found += [f"catalog: knows {name}, which is not there" for name in sorted(known.keys() - there.keys())]
    found += [f"catalog: does not know {name}" for name in sorted(there.keys() - known.keys())]
    for name in sorted(known.keys() & there.keys()):
        digest, grade, stored = known[name]
        size = (state_dir.parent / name).stat().st_size
        if digest != there[name].digest:
            found.append(f"catalog: {name} has another digest than its bytes")
        if stored != size:
            found.append(f"catalog: {name} takes {size} bytes, not {stored}")
        if grade not in _GRADES[there[name].kind]:
            found.append(f"catalog: {name} is {grade}, on the wrong shelf")
    return found


def journal_violations(state_dir: Path, copies: Sequence[Copy]) -> list[str]:
    """What the journal tells of a copy is true, and the folder's format is told."""
    told: dict[str, set[str]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (state_dir / "journal.jsonl").read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut short by the fault: the next line stands alone
            if record.get("op") in ("publish", "erase"):  # an erasure tells both before the bytes change
                told[record["name"]] = {record["digest"], record.get("was")}
    found = [
        f"journal: tells another digest of {c.name}" for c in copies if c.digest not in told.get(c.name, {c.digest})
    ]
    with contextlib.suppress(FileNotFoundError):
        version = (state_dir / "format").read_bytes()
        if not version.strip().isdigit():
            found.append(f"format: the folder's version is told as {version!r}")
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _plain(path: Path, suffix: str, backup_dir: Path) -> bytes:
    data = path.read_bytes()
    if suffix == ".gz":
        return gzip.decompress(data)
    if suffix != ".zst":
        return data
    from backports import zstd

    name = reference_of(data)
    if name is None:
        return zstd.decompress(data)
    reference = zstd.ZstdDict(_plain(backup_dir / name, suffix, backup_dir), is_raw=True)
    return zstd.decompress(data, zstd_dict=reference.as_prefix)


def is_packed(path: Path) -> bool:
    """Whether the copy holds only what differs from a reference."""
    return reference_of(path.read_bytes()) is not None


def reference_of(data: bytes) -> str | None:
    """Return the name of the reference of a packed snapshot; None for any other."""
    if not data.startswith(_PACKED):
        return None
    return str(json.loads(data[8 : 8 + int.from_bytes(data[4:8], "little")])["packed_against"])


def reference_violations(backup_dir: Path, copies: Sequence[Copy]) -> list[str]:
    """The catalog knows the references that are there, and each is needed: by what leans on it, or is packed next."""
    there = {p.relative_to(backup_dir).as_posix(): p.stat().st_size for p in _files_below(backup_dir / "_reference")}
    rows = _rows(backup_dir / ".agent", "SELECT name, stored FROM packs") or []
    known = {os.fsdecode(name): stored for name, stored in rows}
    found = [] if known == there else [f"references: the catalog tells {known}, there is {there}"]
    zstd = [(copy, (backup_dir / copy.name).read_bytes()) for copy in copies if copy.name.endswith(".zst")]
    needed = {reference_of(data) for _, data in zstd}
    needed |= {reference_of((backup_dir / name).read_bytes()) for name in there}
    next_ones = {copy.stamp for copy, data in zstd if reference_of(data) is None}
    for name in there:
        parsed = parse_name(name)
        if parsed is None or (name not in needed and str(parsed.taken_at) not in next_ones):
            found.append(f"references: nothing needs {name}")
    return found


def _rows(state_dir: Path, sql: str) -> list[tuple[Any, ...]] | None:
    """Return the rows of the catalog, None when there is no catalog."""
    path = state_dir / "catalog.sqlite3"
    if not path.exists():
        return None
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def _dress(worn: tuple[int, int, int]) -> str:
    return f"{worn[0]}:{worn[1]} {worn[2]:o}"
