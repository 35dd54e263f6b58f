"""The values that travel through one change: what was seen, how it was graded, what was kept.

A data file is named by its `rel`: the path relative to `data_dir`, `/` between the parts, bytes that are not
UTF-8 carried as surrogate escapes (`os.fsdecode`).
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct, field


class Grade(StrEnum):
    """The outcome of a check; `missing` and `unreadable` stand beside it: no bytes were seen."""

    GOOD = "good"
    SUSPECT = "suspect"
    INVALID = "invalid"
    CORRUPT = "corrupt"
    MISSING = "missing"
    UNREADABLE = "unreadable"


class Reason(StrEnum):
    """Why a snapshot was taken."""

    CHANGE = "change"
    INTERVAL = "interval"
    STARTUP = "startup"
    SHUTDOWN = "shutdown"
    MANUAL = "manual"
    PRE_RESTORE = "pre_restore"
    RESTORED = "restored"
    ADOPTED = "adopted"


class CaptureMode(StrEnum):
    """How a consistent read was had: under a kernel lease, or by holding still between two looks."""

    LEASE = "lease"
    SETTLE = "settle"


class Parser(StrEnum):
    """Whose eyes judge a JSON text."""

    STRICT = "strict"
    NODE = "node"
    PYTHON = "python"


class Format(StrEnum):
    """What a data file holds; chosen by suffix, settable per file."""

    JSON = "json"


class Signature(NamedTuple):
    """What `stat` says of one state of a file; equal signatures mean nothing happened in between.

    A tuple, because a rescan makes one for every file there is.
    """

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


class Ownership(Struct, frozen=True):
    """Who owns a file and who may use it; `mode` holds the permission bits only."""

    uid: int
    gid: int
    mode: int


class Shape(Struct, frozen=True):
    """The outline of a document, for comparing two states without their content.

    `root` is the type of the outermost value: object, array, string, number, boolean, null.
    `records` counts the members of an outermost object or array; None for every other root.
    """

    size_bytes: int
    root: str
    records: int | None


class Problem(Struct, frozen=True):
    """One thing wrong with a document, at a place a person can find.

    `kind` is one of a small fixed set (it becomes a metric label); `message` never quotes data.
    `line` and `column` count from 1; `pointer` is a JSON pointer (RFC 6901).
    """

    kind: str
    message: str
    line: int | None = None
    column: int | None = None
    pointer: str | None = None

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        where = f" at {self.pointer}" if self.pointer else ""
        return f"{place}{self.message}{where}"


class CheckSpec(Struct, frozen=True):
    """How the bytes of one data file are to be judged."""

    format: Format = Format.JSON
    parser: Parser = Parser.STRICT
    schema: Mapping[str, object] | None = None


class CheckResult(Struct, frozen=True):
    """What a check found.  `shape` is None when the bytes could not be parsed."""

    grade: Grade
    shape: Shape | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


class Snapshot(Struct, frozen=True):
    """One published copy of one data file."""

    rel: str
    name: str  # path relative to backup_dir
    taken_at: datetime  # UTC-aware, whole milliseconds
    digest: str  # sha256 of the data file's bytes, hex
    size_bytes: int  # of the data file's bytes
    grade: Grade
    reason: Reason
    shape: Shape | None = None
    pinned: bool = False
    stored_bytes: int = field(default=0)  # on disk, after compression


class FileState(Struct, frozen=True):
    """What is known of one data file between two looks; lives in the catalog.

    `signature`, `digest`, `grade` and `shape` tell of the last state that was looked at; `since` is when this grade
    was first seen.  `last_good_at` is when the file was last seen in a good state.
    `heals` counts the heals of a damage that keeps coming back: the last one, at
    `healed_at`, mended `healed_grade`; `gave_up` says that no more are tried.  `is_mass_loss`: it went with most files.
    """

    rel: str
    grade: Grade
    since: datetime
    signature: Signature | None = None
    digest: str = ""
    shape: Shape | None = None
    ownership: Ownership | None = None
    mode: CaptureMode | None = None
    last_good_at: datetime | None = None
    last_snapshot_at: datetime | None = None
    heals: int = 0
    healed_at: datetime | None = None
    healed_grade: Grade | None = None
    gave_up: bool = False
    is_mass_loss: bool = False

    def is_surely_older_than(self, size_bytes: int) -> bool:
        """Whether bytes of this size are other ones than the last state's, so that no digest need tell."""
        return self.signature is not None and self.signature.size_bytes != size_bytes


class HealAction(StrEnum):
    """How a damaged file is brought back: its fields, or the whole file."""

    RESTORE = "restore"
    REPAIR = "repair"
