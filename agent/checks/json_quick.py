"""The quickest look at a large JSON text.  What it reads, Node and Python read alike; that it rejects says nothing.

The parser is simdjson, which also proves the text UTF-8.  It will not have some texts that both read (half of a
surrogate pair, numbers beyond 64 bits or a double, more than 1,024 levels).  It takes many times the memory of a text,
so what cannot be taken apart is not for it, and there are machines without it.  All this is left to the other parsers,
which take longer.  It is imported with the first large text, so small bots and a start do without.
"""

from agent.checks.json_members import Count, count_members
from agent.core.json_text import Document, ends_closed, first_token, root_type

_FROM_BYTES = 128 << 10  # the others need less than 0.2 ms for less
_PIECE_BYTES = 128 << 10  # a parser keeps some times as much
_PIECES_PER_LONG_SEARCH = 8  # with more of them, another parser is done sooner
_HASTY_MAX_BYTES = 4 << 20  # another parser is done with it before a piece is searched through

_idle: list[Count] = []  # one at most: a parser keeps its memory, which takes longer to be given than a text to parse


def read_quickly(text: bytes | memoryview) -> Document | None:
    """Return the document that fills `text`, which then is UTF-8 without a mark; None when another has to judge it.

    Members are counted as they are written, as the exact judge does: a key that appears twice counts twice.
    """
    if len(text) < _FROM_BYTES or not ends_closed(text):
        return None
    root = root_type(text[first_token(text)])
    if root not in ("object", "array"):  # nor a mark, which this parser passes over
        return None
    count = _idle.pop() if _idle else _new_counter()
    if count is None:
        return None
    records = count_members(
        text,
        count,
        piece_bytes=_PIECE_BYTES,
        is_hasty=len(text) <= _HASTY_MAX_BYTES,
        long_searches=len(text) // _PIECE_BYTES // _PIECES_PER_LONG_SEARCH,
    )
    _idle[:] = [count]
    return None if records is None else Document(root, records, len(text))


def _new_counter() -> Count | None:
    """Return what counts the members of one text after the other; None where there is no such parser."""
    try:
        from simdjson import Array, Object, Parser
    except ImportError:
        return None
    parser = Parser()

    def count(text: bytes | bytearray | memoryview) -> int | None:
        try:
            root = parser.parse(text)
        except (ValueError, RuntimeError, MemoryError):
            return None
        return len(root) if isinstance(root, Object | Array) else None

    return count
