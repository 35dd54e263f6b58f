"""How many members the root of a large document has, and that it is whole, with few of them in memory."""

import re
from collections.abc import Callable

from agent.core.json_text import first_token

_COMMAS_MAX = 500_000  # a parser may take 72 bytes for each member of the root
_LEAST_BYTES = {ord("{"): 5, ord("["): 2}  # of a member and its comma: "":1, and 1,
_PIECE_BYTES = 128 << 10  # a parser keeps some times as much
_TAILS = (256, 1 << 10, 8 << 10, 1 << 30)  # of a piece, searched for the end of its last member one after the other

_CLOSERS = {b"{": ord("}"), b"[": ord("]")}
_COMMA = ord(",")
_after_string = re.compile(rb'(?<!\\)"(?=[ \t\n\r]*+[,:\]}])').search
_tokens = re.compile(rb'"[^"\\]*+(?:(?>\\.[^"\\]*+))*+"?|[\[\]{},]', re.DOTALL).finditer

Count = Callable[[bytes | bytearray | memoryview], int | None]


def count_members(text: bytes | memoryview, count: Count, *, is_hasty: bool = False) -> int | None:
    """Return the member count of the object or array that fills `text`; None when it is none, or cannot be told so.

    `count` does so for a small text.  It is asked about pieces that end at a comma, each between two brackets of the
    root.  What it counts is made of whole members; what was cut inside a member it refuses, and another comma is tried.
    So a member that is larger than a piece cannot be told, nor, when `is_hasty`, most that are larger than a
    kilobyte.  What `count` proves of the pieces holds for the text.
    """
    view = memoryview(text)
    at = first_token(text)
    opener = bytes(view[at : at + 1])
    piece = bytearray(opener + bytes(_PIECE_BYTES))  # one for all: to be given memory anew takes longer than to parse
    tails: tuple[int, ...] = _TAILS[:2] if is_hasty else _TAILS
    at += 1
    total = 0
    while len(view) - at > _PIECE_BYTES:
        piece[1:] = view[at : at + _PIECE_BYTES]
        members, length, tails = _first_members(piece, _CLOSERS[opener], count, tails)
        if not members:
            return None
        total += members
        at += length
    last = count(opener + view[at:])
    return total + last if last or (last == 0 and not total) else None  # nothing but the bracket would follow a comma


def has_too_many_members(text: bytes | memoryview) -> bool:
    """Whether a document may have more members than a parser may make objects for."""
    left = _COMMAS_MAX
    if len(text) > left * _LEAST_BYTES[text[first_token(text)]]:
        for at in range(0, len(text), _PIECE_BYTES):
            left -= bytes(text[at : at + _PIECE_BYTES]).count(b",")
            if left < 0:
                return True
    return False


def _first_members(
    piece: bytearray, closer: int, count: Count, tails: tuple[int, ...]
) -> tuple[int, int, tuple[int, ...]]:
    """Return how many whole members `piece`, which begins with a bracket, holds up to its last usable comma, where the
    next one begins, counted without the bracket, and the tails without those that were too short; 0 members when there
    is no such comma.
    """
    for number, tail in enumerate(tails):
        end = _shallowest_comma(piece, max(0, len(piece) - tail))
        if end:
            piece[end] = closer
            members = count(memoryview(piece)[: end + 1])
            piece[end] = _COMMA
            if members:
                return members, end, tails[number:]
    return 0, 0, tails


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
