"""The values that labels may take, beside those of `core.model` and `core.problem`."""

from enum import StrEnum


class CaptureResult(StrEnum):
    OK = "ok"
    BUSY = "busy"
    CHANGED = "changed"
    UNREADABLE = "unreadable"


class HealResult(StrEnum):
    OK = "ok"
    RACED = "raced"
    FAILED = "failed"
    GAVE_UP = "gave_up"


class WatchEvent(StrEnum):
    MODIFIED = "modified"
    CREATED = "created"
    MOVED = "moved"
    DELETED = "deleted"
    CLOSED = "closed"


class Refusal(StrEnum):
    """Why a snapshot was not published."""

    BUDGET = "budget"
    DISK_FULL = "disk_full"
    READ_BACK = "read_back"
    IO = "io"


class Deletion(StrEnum):
    """Why the agent deleted a snapshot."""

    RETENTION = "retention"
    BUDGET = "budget"


class Operation(StrEnum):
    """What was being done when an I/O error struck."""

    CAPTURE = "capture"
    PUBLISH = "publish"
    RESTORE = "restore"
    ROTATE = "rotate"
    RESCAN = "rescan"
    CATALOG = "catalog"
    PACK = "pack"


class Skip(StrEnum):
    """Why a file that the config matches is not protected."""

    SYMLINK = "symlink"
    NOT_REGULAR = "not_regular"
    OUTSIDE = "outside"
    TOO_LARGE = "too_large"
    OTHER = "other"


class Folder(StrEnum):
    DATA = "data"
    BACKUP = "backup"


class BotCommand(StrEnum):
    STOP = "stop"
    START = "start"


class BotResult(StrEnum):
    """How a command of the config's `bot` ended."""

    OK = "ok"
    FAILED = "failed"  # with an exit code of its own
    TIMED_OUT = "timed_out"
    NOT_RUN = "not_run"  # there is no such program, or it may not be run


class HttpFailure(StrEnum):
    """Why a client of the web server went without its answer."""

    MALFORMED = "malformed"
    TOO_SLOW = "too_slow"
    BROKEN = "broken"  # the client left, or the kernel had no room for it
    NO_SLOT = "no_slot"
    INTERNAL = "internal"  # the readiness probe or the exposition raised
