"""Corrupt bytes that can be read in one way only: then the newest data need not be given up for an older snapshot.

Nothing is ever added to a document and nothing inside one is changed: what is kept is a run of the very bytes, or
their UTF-16 characters written as UTF-8.
"""

import codecs
import json
import re
from collections.abc import Iterator

from msgspec import Struct

from agent.core.json_text import Document, Flaw, first_token, read_document, read_first_document
from agent.core.model import Parser
from agent.core.problem import ProblemKind

# Flaws that may be those of an old tail alone: it may begin in the middle of a character, which is looked at first.
_MAY_STAND_BEHIND = (None, ProblemKind.TRAILING_DATA, ProblemKind.ENCODING)
_CLOSERS = {"object": b"}", "array": b"]"}
_bracket_or_string = re.compile(rb'"(?:(?>[^"\\]|\\.))*+"|[\[\]{}]', re.DOTALL).finditer
# What an older version may have had just before a cut, up to the cut: every kind of token, cut anywhere.
_CUT_STRINGS = (b'"', b'"\\')
_CUT_VALUES = (b"", b"1", b"1e", b"t", b"tr", b"tru", b"f", b"fa", b"fal", b"fals", b"n", b"nu", b"nul")
_CUT_KEYS = (b"", b'""')


class Reading(Struct, frozen=True):
    """The one document that corrupt bytes hold.  `kind` is a fixed name; `explanation` quotes no data."""

    data: bytes
    kind: str
    explanation: str


def sole_reading(data: bytes, *, parser: Parser, flaw: str | None = None) -> Reading | None:
    """Return the only document that the corrupt `data` can stand for, or None if there is none or more than one.

    Undone are, alone or together: UTF-16 and a byte order mark (Python reads both by itself), NUL bytes at the end,
    and the tail of a longer, older version behind a complete document.  For `data` that `parser` reads as it is, and
    for anything else, None.  The result is well-formed UTF-8 for `parser`; its schema is the caller's to check.
    """
    text, steps = _in_utf8(data, parser)
    if text is None:
        return None
    trimmed = text.rstrip(b"\0")
    if trimmed != text:
        steps.append(("nul_padding", "NUL bytes at the end removed"))
    if not steps and flaw not in _MAY_STAND_BEHIND:
        return None
    constants = parser is Parser.PYTHON
    body_at = len(codecs.BOM_UTF8) if constants and trimmed.startswith(codecs.BOM_UTF8) else 0
    found = read_document(trimmed[body_at:], constants=constants)
    if isinstance(found, Flaw):
        if found.kind is not ProblemKind.TRAILING_DATA:
            return None
        end = _end_before_old_tail(trimmed[body_at:], constants=constants)
        if end is None:
            return None
        trimmed = trimmed[: body_at + end]
        steps.append(("old_tail", "the tail of a longer, older version removed"))
    if not steps or not _is_utf8(trimmed):
        return None
    return Reading(trimmed, "+".join(kind for kind, _ in steps), "; ".join(explanation for _, explanation in steps))


def _in_utf8(data: bytes, parser: Parser) -> tuple[bytes | None, list[tuple[str, str]]]:
    """Return the text in the one encoding that the rest understands, and what had to be undone for that."""
    encoding = json.detect_encoding(data[:4])
    if encoding.startswith("utf-16"):
        if parser is Parser.PYTHON:
            return None, []
        try:
            return data.decode(encoding).encode(), [("utf16", "UTF-16 written as UTF-8")]
        except UnicodeDecodeError:
            return None, []
    if encoding == "utf-8-sig" and parser is not Parser.PYTHON:
        return data[len(codecs.BOM_UTF8) :], [("bom", "byte order mark removed")]
    return data, []


def _end_before_old_tail(text: bytes, *, constants: bool) -> int | None:
    """Return where the first document ends, if what follows can only be the tail of a longer, older version.

    An emptied document is not kept: with the tail cut off nothing would be left.  Nor is one that is followed by the
    start of another: two writers, or two documents appended.  Nor one that goes on with a comma and becomes a longer
    document when its last bracket is taken away: perhaps that bracket is the mistake.
    """
    first = read_first_document(text, constants=constants)
    if not isinstance(first, Document) or not first.records:
        return None
    tail = text[first_token(text, first.end_offset) :].rstrip()
    closer = _CLOSERS[first.root]
    if not tail.endswith(closer) or not _ends_a_document(tail, closer, constants=constants):
        return None
    if tail[:1] in (b"{", b"[") and isinstance(read_first_document(tail, constants=constants), Document):
        return None
    without_bracket = text[: first.end_offset - 1] + text[first.end_offset :]
    if tail[:1] == b"," and isinstance(read_document(without_bracket, constants=constants), Document):
        return None
    return first.end_offset


def _ends_a_document(tail: bytes, closer: bytes, *, constants: bool) -> bool:
    """Return whether some document ends with `tail`, which begins anywhere inside it, and closes with `closer`."""
    return any(
        isinstance(read_document(beginning + tail, constants=constants), Document)
        for in_string in (False, True)
        for beginning in _beginnings(tail, closer, in_string=in_string)
    )


def _beginnings(tail: bytes, closer: bytes, *, in_string: bool) -> Iterator[bytes]:
    """Yield short texts that may complete `tail` to a document, by the brackets that it closes and never opened."""
    for before in _CUT_STRINGS if in_string else (b"",):
        unopened = _unopened(before + tail)
        if not unopened or unopened[-1:] != closer:
            continue
        outer = b"".join(b'{"":' if bracket == ord("}") else b"[" for bracket in reversed(unopened[1:]))
        if unopened[:1] == b"}":
            cut_keys, cut_values = (_CUT_STRINGS, _CUT_STRINGS) if in_string else (_CUT_KEYS, _CUT_VALUES)
            yield from (outer + b"{" + cut for cut in cut_keys)
            yield from (outer + b'{"":' + cut for cut in cut_values)
        else:
            yield from (outer + b"[" + cut for cut in (_CUT_STRINGS if in_string else _CUT_VALUES))


def _unopened(text: bytes) -> bytes:
    """Return the closing brackets of `text`, inner ones first, whose opening ones stand before it."""
    depth, unopened = 0, bytearray()
    for match in _bracket_or_string(text):
        token = match.group()
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]") and depth:
            depth -= 1
        elif token in (b"}", b"]"):
            unopened += token
    return bytes(unopened)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
