"""How log lines look and where they go.

Modules log with `get_logger()` from here, never with structlog's own, so that structlog is always loaded as below.
Values are handed over as they are, a path as its `rel`; here they become printable, so that none can break a line.
"""

import json
import math
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any, Literal, TextIO

from agent.core.naming import display


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Load modules while empty modules stand in for `names`, where those are not loaded yet."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update((name, ModuleType(name)) for name in absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


# structlog loads rich wherever it is installed, and asyncio for methods that nobody awaits here: 7 MiB resident.
with _without("rich", "asyncio"):
    import structlog
    from structlog.typing import FilteringBoundLogger, WrappedLogger

Event = MutableMapping[str, Any]

DEFAULT_TAG = "[DB]"
TAGS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    # the event begins with     its reason is one of (empty: any)   tag
    ("snapshot_",               ("change", "interval"),             "[AUTO-SAVE]"),
    ("snapshot_",               (),                                 "[BACKUP]"),
    ("snapshots_adopted",       (),                                 "[MIGRATION]"),
    ("migration_",              (),                                 "[MIGRATION]"),
    ("snapshots_",              (),                                 "[BACKUP]"),
    ("packing_",                (),                                 "[BACKUP]"),
    ("rotation_",               (),                                 "[BACKUP]"),
    ("source_restored",         (),                                 "[RECOVERY]"),
    ("source_repaired",         (),                                 "[RECOVERY]"),
    ("heal_",                   (),                                 "[RECOVERY]"),
    ("gate_",                   (),                                 "[VERIFICATION]"),
    ("verify_",                 (),                                 "[VERIFICATION]"),
)  # fmt: skip

_RESET, _BOLD, _DIM, _CYAN = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"
_LEVEL_COLOURS = {"debug": _DIM, "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_STUCK_LIMIT_MS = 1000
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def get_logger() -> FilteringBoundLogger:
    """Return the logger of a module; it follows every later `configure_logs`."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def configure_logs(
    format: Literal["auto", "json", "console"],
    level: Literal["debug", "info", "warning", "error"],
    stream: TextIO,
    *,
    on_drop: Callable[[], None] = lambda: None,
    hints: Callable[[str], str] = lambda hint: hint,
) -> None:
    """Let every logger write lines of at least `level` to `stream`; `auto` is console on a terminal, else json.

    A line that the stream does not take is dropped and `on_drop` called; a log call never raises and never waits
    longer than a second.  `hints` has the last word on what stands under `hint`.
    """
    is_terminal = stream.isatty()
    on_console = format == "console" or (format == "auto" and is_terminal)
    has_colour = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sink = _Sink(stream, on_drop)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if on_console else "iso", utc=not on_console),
            structlog.processors.format_exc_info,
            partial(_with_hint, hints),
            _Console(has_colour=has_colour) if on_console else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )


def _with_hint(hints: Callable[[str], str], _logger: WrappedLogger, _method: str, event: Event) -> Event:
    if isinstance(hint := event.get("hint"), str):
        event["hint"] = hints(hint)
    return event


def tag_of(event: str, reason: str = "") -> str:
    """Return the tag under which operators know an event: that of the first row in `TAGS` that fits."""
    for beginning, reasons, tag in TAGS:
        if event.startswith(beginning) and (not reasons or reason in reasons):
            return tag
    return DEFAULT_TAG


def _as_json(_logger: WrappedLogger, _method: str, event: Event) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    if trace := event.pop("exception", None):
        event["exception"] = _Lines(trace)
    whole = {**first, **event}
    with suppress(TypeError, ValueError):  # what JSON cannot say as it is
        if (line := _encode(whole)).isprintable() and "\\" not in line:  # nothing was escaped, or has to be
            return line
    return _encode(_printable(whole))


class _Console:
    """Renders `12:00:01 [RECOVERY] source_restored users.json  snapshot=...`; a traceback follows, indented."""

    def __init__(self, *, has_colour: bool) -> None:
        self._has_colour = has_colour

    def __call__(self, _logger: WrappedLogger, _method: str, event: Event) -> str:
        name, level = str(event.pop("event")), event.pop("level")
        moment, trace = event.pop("timestamp"), event.pop("exception", "")
        words = [
            self._in(_DIM, moment),
            self._in(_CYAN, tag_of(name, str(event.get("reason", "")))),
            *([] if level == "info" else [self._in(_LEVEL_COLOURS[level], level.upper())]),
            self._in(_BOLD, _visible(name)),
            *([_word(event.pop("file"))] if "file" in event else []),
        ]
        told = [(key, value) for key, value in event.items() if value is not None]
        fields = [f"{self._in(_DIM, _visible(key) + '=')}{_word(value)}" for key, value in told]
        line = " ".join(words) + ("  " + " ".join(fields) if fields else "")
        return "\n".join((line, *(f"    | {_visible(row)}" for row in trace.splitlines())))

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._has_colour else text


def _visible(text: str) -> str:
    """Return `text` on one printable line; a backslash stays single, because sentences hold displayed names too."""
    return text if text.isprintable() else "\\".join(map(display, text.split("\\")))


class _Lines(str):
    """Text whose line breaks are meant."""

    __slots__ = ()


def _word(value: object) -> str:
    plain = _printable(value)
    if not isinstance(plain, str):
        return _encode(plain)
    if plain and not any(mark in plain for mark in ' "='):
        return plain
    return '"' + plain.replace('"', r"\"") + '"'


def _printable(value: object) -> object:  # noqa: PLR0911  (a table of types, one row each)
    """Return what JSON can say of `value`, with every text on one printable line."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case _Lines():
            return "\n".join(map(_visible, value.splitlines()))
        case str():
            return _visible(value)
        case bytes():
            return _visible(os.fsdecode(value))
        case datetime():
            return value.isoformat()
        case Mapping():
            return {_visible(str(key)): _printable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_printable(item) for item in value]
        case _:
            return _visible(str(value))


class _Sink:
    """Writes whole lines.  Where there is a descriptor, past the stream's buffer, which would keep what failed."""

    def __init__(self, stream: TextIO, on_drop: Callable[[], None]) -> None:
        self._stream = stream
        self._on_drop = on_drop
        self._encoding = stream.encoding or "utf-8"
        self._lock = threading.Lock()
        self._is_torn = False  # the last line is there in part
        self._is_stuck = False
        self._poll = select.poll()
        try:
            self._fd: int | None = stream.fileno()
            self._poll.register(self._fd, select.POLLOUT)
        except OSError:  # only in memory
            self._fd = None

    def msg(self, line: str) -> None:
        data = (line + "\n").encode(self._encoding, "backslashreplace")
        with self._lock:
            try:
                if self._fd is None:
                    self._stream.write(data.decode(self._encoding))
                    self._stream.flush()
                else:
                    self._write(self._fd, data)
            except (OSError, ValueError):  # ValueError: the stream was closed
                self._on_drop()

    debug = info = warning = error = critical = msg

    def _write(self, fd: int, data: bytes) -> None:
        """Write in pieces that a pipe takes whole or not at all, so that a reader that stopped cannot stop us."""
        rest = memoryview(b"\n" + data if self._is_torn else data)
        size = len(rest)
        try:
            while rest:
                ready = self._poll.poll(0 if self._is_stuck else _STUCK_LIMIT_MS)
                self._is_stuck = not ready
                if not ready:
                    raise BlockingIOError
                rest = rest[os.write(fd, rest[: select.PIPE_BUF]) :]
        finally:
            if len(rest) < size:
                self._is_torn = bool(rest)
