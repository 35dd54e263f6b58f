"""Where else a text stands: the data files that mention what was erased from one of them."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from agent.commands.names import all_files
from agent.commands.progress import with_progress
from agent.commands.session import Session
from agent.disk.capture import CHUNK_BYTES

_TEXT_MIN = 4  # a shorter one stands everywhere, and means nothing there


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes | None: ...


def text_of(key: str) -> str:
    """Return what to look for when the record `key`, perhaps a pointer, is to be forgotten."""
    return key.rpartition("/")[2].replace("~1", "/").replace("~0", "~") if key.startswith("/") else key


def mentions(session: Session, key: str, but: str) -> list[str]:
    """Return the files, other than `but`, whose live bytes or newest snapshot hold the text of `key` as a word."""
    text = text_of(key)
    if len(text) < _TEXT_MIN:
        return []
    spellings = {text.encode("utf-8", "surrogateescape"), json.dumps(text)[1:-1].encode()}
    word = re.compile(rb"(?<!\w)(?:" + b"|".join(map(re.escape, sorted(spellings))) + rb")(?!\w)")
    others: Sequence[str] = [rel for rel in all_files(session) if rel != but]
    return [rel for rel in with_progress(others, "looking elsewhere") if _is_mentioned(session, rel, word)]


def _is_mentioned(session: Session, rel: str, word: re.Pattern[bytes]) -> bool:
    with suppress(OSError):
        fd = os.open(os.path.join(session.config.data_dir, rel), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as live:
            if _holds(live, word):
                return True
    newest = session.ws.catalog.newest(rel)
    with suppress(OSError):
        if newest is not None:
            with session.ws.store.open(newest.name) as plain:
                return _holds(plain, word)
    return False


def _holds(stream: _Readable, word: re.Pattern[bytes]) -> bool:
    return any(word.search(piece) for piece in _overlapping(stream))


def _overlapping(stream: _Readable) -> Iterator[bytes]:
    """Yield the bytes in pieces that share an end, so that no word is cut in two."""
    rest = b""
    while chunk := stream.read(CHUNK_BYTES):
        yield (piece := rest + chunk)
        rest = piece[-1024:]
