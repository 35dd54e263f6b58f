"""How many members the root of a very large document has, and that it is whole, with few of them in memory."""

from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from itertools import islice

import msgspec

from agent.core.json_text import first_token

_PIECE_BYTES = 1 << 20
_TRIES = 8  # places where a piece may end; in a document of small members one of the first is right

_Decode = Callable[[bytes], Sized]
_ROOTS: dict[bytes, tuple[bytes, _Decode]] = {
    b"{": (b"}", msgspec.json.Decoder(dict[str, msgspec.Raw]).decode),
    b"[": (b"]", msgspec.json.Decoder(list[msgspec.Raw]).decode),
}


def count_members(text: bytes | memoryview) -> int | None:
    """Return the member count of the object or array that fills `text`; None when it is none, or cannot be told so.

    The text is decoded in pieces that end at a comma, each between two brackets of the root.  One that decodes is made
    of whole members; one that was cut inside a member does not, and an earlier comma is tried.  So a member that is
    larger than a piece cannot be told.  A key that appears twice in one piece counts once.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: the last piece is not whole members.
    """
    view = memoryview(text)
    at = first_token(text)
    opener = bytes(view[at : at + 1])
    closer, decode = _ROOTS[opener]
    at += 1
    count = 0
    while len(view) - at > 2 * _PIECE_BYTES:
        members, length = _first_members(opener + view[at : at + _PIECE_BYTES], closer, decode)
        if not members:
            return None
        count += members
        at += length
    last = len(decode(opener + view[at:]))
    return count + last if last or not count else None  # nothing but the bracket would follow a comma


def _first_members(piece: bytes, closer: bytes, decode: _Decode) -> tuple[int, int]:
    """Return how many whole members `piece`, which begins with a bracket, holds up to its last usable comma, and where
    the next one begins, counted without the bracket; (0, 0) when there is no such comma.
    """
    for end in islice(_ends(piece), _TRIES):
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return len(decode(piece[:end] + closer)), end
    return 0, 0


def _ends(piece: bytes) -> Iterator[int]:
    """Yield the places of commas where a member of the root may end, the likeliest first."""
    yield from (at for at in (max(piece.rfind(b"},"), piece.rfind(b"],")) + 1, piece.rfind(b",")) if at > 0)
    # By the brackets: those in strings count too, so this is a guess as well.
    end, depth = len(piece), sum(piece.count(b) for b in (b"{", b"[")) - sum(piece.count(b) for b in (b"}", b"]"))
    while (at := piece.rfind(b",", 0, end)) != -1:
        passed = piece[at:end]
        depth += sum(passed.count(b) for b in (b"}", b"]")) - sum(passed.count(b) for b in (b"{", b"["))
        if depth == 1:
            yield at
        end = at
