"""How many members the root of a very large document has, counted without building any of them."""

import re

from agent.core.json_text import Document, first_token, read_document

_STRING = rb'"[^"\\]*+(?:(?>\\.[^"\\]*+))*+"'


def _inside(levels: int) -> bytes:
    """Return the pattern of what may stand between brackets, which may hold others to `levels` below."""
    nested = rb"|[\[{]" + _inside(levels - 1) + rb"[\]}]" if levels else b""
    return rb'(?:(?>[^"\[\]{}]++|' + _STRING + nested + rb"))*+"


_member = re.compile(
    rb'(?:(?>[^"\[\]{},]++|' + _STRING + rb"|[\[{]" + _inside(3) + rb"[\]}]))*+([,\]}])", re.DOTALL
).match


def count_members(text: bytes | memoryview) -> int:
    """Return the member count of a text that is known to be a complete object or array; keys count as written."""
    at = first_token(text) + 1
    if text[first_token(text, at)] in b"]}":
        return 0
    count = 1
    while member := _member(text, at):
        if member.group(1) != b",":
            return count
        count += 1
        at = member.end()
    # Nested deeper than the pattern: rare in a document of this size, and worth the slower way.
    found = read_document(text)
    assert isinstance(found, Document)
    assert found.records is not None
    return found.records
