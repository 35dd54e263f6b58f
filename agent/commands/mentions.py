"""Where else a text stands: the data files that mention what was erased from one of them."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct, field

from agent.commands.names import all_files
from agent.commands.progress import with_progress
from agent.commands.session import Session
from agent.disk.capture import CHUNK_BYTES
from agent.disk.codec import is_damage

_TEXT_MIN = 4  # a shorter one stands everywhere, and means nothing there


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes | None: ...


def text_of(key: str) -> str:
    """Return what to look for when the record `key`, perhaps a pointer, is to be forgotten."""
    return key.rpartition("/")[2].replace("~1", "/").replace("~0", "~") if key.startswith("/") else key


class Elsewhere(Struct):
    """The files that mention it, and why others, by rel, could not be looked through."""

    files: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)


def mentions(session: Session, key: str, but: str) -> Elsewhere:
    """Return the files, other than `but`, whose live bytes or newest snapshot hold the text of `key` as a word."""
    text, found = text_of(key), Elsewhere()
    if len(text) < _TEXT_MIN:
        return found
    spellings = {text.encode("utf-8", "surrogateescape"), json.dumps(text)[1:-1].encode()}
    word = re.compile(rb"(?<!\w)(?:" + b"|".join(map(re.escape, sorted(spellings))) + rb")(?!\w)")
    others: Sequence[str] = [rel for rel in all_files(session) if rel != but]
    for rel in with_progress(others, "looking elsewhere"):
        states = (partial(_live_mentions, session, rel, word), partial(_snapshot_mentions, session, rel, word))
        for mentioned in states:
            try:
                if mentioned():
                    found.files.append(rel)
                    break
            except FileNotFoundError:
                continue
            except Exception as error:
                if not isinstance(error, OSError) and not is_damage(error):
                    raise
                found.unread[rel] = str(error)
    return found


def _live_mentions(session: Session, rel: str, word: re.Pattern[bytes]) -> bool:
    fd = os.open(os.path.join(session.config.data_dir, rel), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as live:
        return _holds(live, word)


def _snapshot_mentions(session: Session, rel: str, word: re.Pattern[bytes]) -> bool:
    newest = session.ws.catalog.newest(rel)
    if newest is None:
        return False
    with session.ws.store.open(newest.name) as plain:
        return _holds(plain, word)


def _holds(stream: _Readable, word: re.Pattern[bytes]) -> bool:
    return any(word.search(piece) for piece in _overlapping(stream))


def _overlapping(stream: _Readable) -> Iterator[bytes]:
    """Yield the bytes in pieces that share an end, so that no word is cut in two."""
    rest = b""
    while chunk := stream.read(CHUNK_BYTES):
        yield (piece := rest + chunk)
        rest = piece[-1024:]
