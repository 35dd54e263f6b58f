"""How log lines look and where they go.

Values are handed over as they are, a path as its `rel`; here they become printable, so that none can break a line.
"""

import json
import math
import os
import select
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, TextIO

from msgspec import Struct

from agent.core.naming import display

Level = Literal["debug", "info", "warning", "error"]
_LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
Event = dict[str, object]

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
_LEVEL_COLOURS = {"debug": _DIM, "warning": "\x1b[33m", "error": "\x1b[31m"}
_STUCK_LIMIT_MS = 1000
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class Logger:
    """Writes an event with its fields as one line, as `configure_logs` said last; before that, nothing."""

    def __init__(self) -> None:
        self.output: _Output | None = None

    def debug(self, event: str, /, **fields: object) -> None:
        self._log("debug", event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._log("info", event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._log("warning", event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._log("error", event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """As `error`, with the traceback of the exception that is being handled."""
        self._log("error", event, {**fields, "exception": _Lines(traceback.format_exc().removesuffix("\n"))})

    def _log(self, level: Level, event: str, fields: Event) -> None:
        output = self.output
        if output is None or _LEVELS.index(level) < output.least:
            return
        if isinstance(hint := fields.get("hint"), str):
            fields["hint"] = output.hints(hint)
        output.sink.write_line(output.render({"timestamp": output.stamp(), "level": level, "event": event, **fields}))


_logger = Logger()


def get_logger() -> Logger:
    """Return the logger of a module; it follows every later `configure_logs`."""
    return _logger


def configure_logs(
    format: Literal["auto", "json", "console"],
    level: Level,
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
    _logger.output = _Output(
        _LEVELS.index(level),
        _stamp_of_a_person if on_console else _stamp_of_a_machine,
        hints,
        _Console(has_colour=has_colour) if on_console else _as_json,
        _Sink(stream, on_drop),
    )


class _Output(Struct, frozen=True):
    """How lines look and where they go."""

    least: int  # levels below it are left out
    stamp: Callable[[], str]
    hints: Callable[[str], str]
    render: Callable[[Event], str]
    sink: "_Sink"


def _stamp_of_a_person() -> str:
    return f"{datetime.now():%H:%M:%S}"  # noqa: DTZ005  # the time on their wall


def _stamp_of_a_machine() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def tag_of(event: str, reason: str = "") -> str:
    """Return the tag under which operators know an event: that of the first row in `TAGS` that fits."""
    for beginning, reasons, tag in TAGS:
        if event.startswith(beginning) and (not reasons or reason in reasons):
            return tag
    return DEFAULT_TAG


def _as_json(event: Event) -> str:
    with suppress(TypeError, ValueError):  # what JSON cannot say as it is
        if (line := _encode(event)).isprintable() and "\\" not in line:  # nothing was escaped, or has to be
            return line
    return _encode(_printable(event))


class _Console:
    """Renders `12:00:01 [RECOVERY] source_restored users.json  snapshot=...`; a traceback follows, indented."""

    def __init__(self, *, has_colour: bool) -> None:
        self._has_colour = has_colour

    def __call__(self, event: Event) -> str:
        name, level = str(event.pop("event")), str(event.pop("level"))
        moment, trace = str(event.pop("timestamp")), str(event.pop("exception", ""))
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

    def write_line(self, line: str) -> None:
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
