"""The ways in which the bot of the demo loses its file."""

import json
import os
from collections.abc import Callable

from msgspec import Struct

_SHOWN_BYTES = 44


class Damage(Struct, frozen=True):
    """One way to lose a file.  `inflict` breaks it and returns what should be there in the end."""

    title: str
    healed_by: str  # the event of the agent's log
    verdict: str
    inflict: Callable[[str, bytes], bytes]
    view: Callable[[bytes, bytes], str]  # the damaged place, out of (broken, expected)


def _cut(path: str, before: bytes) -> bytes:
    os.truncate(path, len(before) // 2)
    return before


def _leave_tail(path: str, before: bytes) -> bytes:
    """A shorter document is written over a longer one, which is not cut off behind it."""
    users = json.loads(before)
    users["1"]["coins"] += 1_000_000
    del users["100"]
    newer = json.dumps(users, indent=2).encode()
    _overwrite(path, newer)
    return newer


def _zero(path: str, before: bytes) -> bytes:
    _overwrite(path, bytes(len(before)))
    return before


def _overwrite(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _quoted(data: bytes) -> str:
    return ascii(data.decode("latin-1"))


DAMAGES = (
    Damage(
        "The bot is killed while it writes: the file stops in the middle.",
        "source_restored",
        "the same bytes",
        _cut,
        lambda broken, _: f"it ends with {_quoted(broken[-_SHOWN_BYTES:])}",
    ),
    Damage(
        "A shorter version is written over a longer one: the tail of the old one stays behind.",
        "source_repaired",
        "the newer bytes, which no snapshot had yet",
        _leave_tail,
        lambda broken, newer: f"where the newer version ends: {_quoted(broken[len(newer) - 8 :][:_SHOWN_BYTES])}",
    ),
    Damage(
        "The power fails: the file has its size, and only NUL bytes in it.",
        "source_restored",
        "the same bytes",
        _zero,
        lambda broken, _: f"it begins with {_quoted(broken[:12])}",
    ),
)
