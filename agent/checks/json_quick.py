"""The quickest look at a large JSON text.  What it reads, Node and Python read alike; that it rejects says nothing.

The parser is simdjson, which also proves the text UTF-8.  It will not have some texts that both read (half of a
surrogate pair, numbers beyond 64 bits or a double, more than 1,024 levels), and there are machines without it: then
everything is left to the other parsers, which take longer.  It is imported with the first large text, so small bots and
a start do without.
"""

from functools import cache

from agent.checks.json_members import Count, count_members, has_too_many_members
from agent.core.json_text import Document, ends_closed, first_token, root_type

_FROM_BYTES = 128 << 10  # the others need less than 0.2 ms for less
_WHOLE_MAX_BYTES = 4 << 20  # what is parsed at once takes some 14 times its size, if it is nothing but brackets


def read_quickly(text: bytes | memoryview) -> Document | None:
    """Return the document that fills `text`, which then is UTF-8 without a mark; None when another has to judge it.

    Members are counted as they are written, as the exact judge does: a key that appears twice counts twice.
    """
    if len(text) < _FROM_BYTES or not ends_closed(text) or (count := _parser()) is None:
        return None
    root = root_type(text[first_token(text)])
    if root not in ("object", "array"):  # a mark that this parser passes over, too
        return None
    is_small = len(text) <= _WHOLE_MAX_BYTES
    records = count_members(text, count, is_hasty=is_small)
    if records is None and is_small and not has_too_many_members(text):
        records = count(bytes(text))
    return None if records is None else Document(root, records, len(text))


@cache
def _parser() -> Count | None:
    try:
        from simdjson import Array, Object, Parser
    except ImportError:
        return None

    def count(text: bytes) -> int | None:
        try:
            root = Parser().parse(text)
        except (ValueError, RuntimeError, MemoryError):
            return None
        return len(root) if isinstance(root, Object | Array) else None

    return count
