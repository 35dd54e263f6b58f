"""How many members the root of a large document has, and that it is whole, with few of them in memory."""

import re
from collections.abc import Callable

from agent.core.json_text import first_token

_COMMAS_MAX = 500_000  # a parser may take 72 bytes for each member of the root
_LEAST_BYTES = {ord("{"): 5, ord("["): 2}  # of a member and its comma: "":1, and 1,
_CHUNK_BYTES = 1 << 18
_TAILS = (256, 1 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 30)  # of a piece: where its last member may end, in turn
_HASTY_TAILS = 2
_CHEAP_TAILS = 3  # a search of one costs less than a parse that was in vain

_CLOSERS = {b"{": ord("}"), b"[": ord("]")}
_COMMA = ord(",")
_STRING = rb'"[^"\\]*+(?:(?>\\.[^"\\]*+))*+"'
_after_string = re.compile(rb'(?<!\\)"(?=[ \t\n\r]*+[,:\]}])').search


def _container(levels: int) -> bytes:
    """Return the pattern of whatever stands between two brackets that has no brackets deeper than some levels."""
    below = rb"|" + _container(levels - 1) if levels else b""
    return rb"(?>[\[{](?:(?>" + rb'[^"\[\]{}]++|' + _STRING + below + rb"))*+[\]}])"


# Containers are passed over whole, which takes a fraction of the time.
_tokens = re.compile(_container(4) + rb"|" + _STRING + rb"?|[\[\]{},]", re.DOTALL).finditer

Count = Callable[[bytes | bytearray | memoryview], int | None]


def count_members(
    text: bytes | memoryview,
    count: Count,
    *,
    piece_bytes: int,
    is_hasty: bool = False,
    long_searches: float = float("inf"),
) -> int | None:
    """Return the member count of the object or array that fills `text`; None when it is none, or cannot be told so.

    `count` does so for a small text.  It is asked about pieces that end at a comma, each between two brackets of the
    root.  What it counts is made of whole members; what was cut inside a member it refuses, and another comma is tried.
    So a member that is larger than a piece cannot be told, nor, when `is_hasty`, most that are larger than a
    kilobyte, nor more than so many `long_searches` for the end of a larger one.  What `count` proves of the pieces
    holds for the text.
    """
    view = memoryview(text)
    at = first_token(text)
    opener = bytes(view[at : at + 1])
    piece = bytearray(opener + bytes(piece_bytes))  # one for all: to be given memory anew takes longer than to parse
    tails = _TAILS[:_HASTY_TAILS] if is_hasty else _TAILS
    at += 1
    total = too_short = 0
    while len(view) - at > piece_bytes:
        piece[1:] = view[at : at + piece_bytes]
        members, length, number = _first_members(piece, _CLOSERS[opener], count, tails, too_short)
        long_searches -= number >= _CHEAP_TAILS
        if not members or long_searches < 0:
            return None
        too_short = min(number, _CHEAP_TAILS - 1)
        total += members
        at += length
    last = count(opener + view[at:])
    return total + last if last or (last == 0 and not total) else None  # nothing but the bracket would follow a comma


def has_too_many_members(text: bytes | memoryview) -> bool:
    """Whether a document may have more members than a parser may make objects for."""
    left = _COMMAS_MAX
    if len(text) > left * _LEAST_BYTES[text[first_token(text)]]:
        for at in range(0, len(text), _CHUNK_BYTES):
            left -= bytes(text[at : at + _CHUNK_BYTES]).count(b",")
            if left < 0:
                return True
    return False


def _first_members(
    piece: bytearray, closer: int, count: Count, tails: tuple[int, ...], too_short: int
) -> tuple[int, int, int]:
    """Return how many whole members `piece`, which begins with a bracket, holds up to its last usable comma, where the
    next one begins, counted without the bracket, and how many of the tails were too short; 0 members when there is no
    such comma.
    """
    for number in range(too_short, len(tails)):
        end = _shallowest_comma(piece, max(0, len(piece) - tails[number]))
        if end:
            piece[end] = closer
            members = count(memoryview(piece)[: end + 1])
            piece[end] = _COMMA
            if members:
                return members, end, number
    return 0, 0, len(tails)


def _shallowest_comma(piece: bytearray, start: int) -> int:
    """Return the place, after `start`, of the last comma that lies inside the fewest brackets; 0 when there is none.

    From the very beginning that is where a member of the root ends; from anywhere else it may be, as it is a guess what
    is inside of strings.
    """
    if start and (string := _after_string(piece, start)):
        start = string.end()
    place, depth, least = 0, 0, len(piece)
    for token in _tokens(piece, start):
        match token.group():
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case b"," if depth <= least:
                place, least = token.start(), depth
    return place
