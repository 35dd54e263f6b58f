"""JSON, judged with the eyes of the program that will read it.

Fast parsers look first.  They reject some texts that Node and Python read, so their rejection counts only when the
exact judge, which has no limits, agrees.  Nothing is built of a document that may have very many members: it would
take many times the memory of its text.
"""

import codecs
import json
from functools import partial

import msgspec

from agent.checks.json_members import count_members, has_too_many_members
from agent.checks.json_quick import read_quickly
from agent.checks.json_schema import schema_grade
from agent.checks.json_warnings import find_warnings
from agent.checks.text_place import line_and_column
from agent.core.json_text import Document, Flaw, cut_short, ends_closed, first_token, read_document, root_type
from agent.core.model import CheckResult, CheckSpec, Grade, Parser, Problem, Shape
from agent.core.problem import ProblemKind

_CHUNK_BYTES = 1 << 18
_PIECE_BYTES = 1 << 20  # a member that is larger is left to the exact judge, where there are too many

# Members are found but not decoded.
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_WHOLE = msgspec.json.Decoder(msgspec.Raw)
_Decoder = msgspec.json.Decoder[dict[str, msgspec.Raw]] | msgspec.json.Decoder[list[msgspec.Raw]]

_CUT_SHORT = "Input data was truncated"
_NO_MORE = b" " * 8  # longer than any literal that is looked for at once


def check_json(content: bytes | memoryview, spec: CheckSpec, *, wants_warnings: bool = True) -> CheckResult:
    """Return the grade of `content` for `spec.parser`: good, suspect, invalid, corrupt or unreadable.

    Suspect is a text with invalid UTF-8 for Node alone: Node reads it and loses characters.  No message quotes data.
    """
    text, losses = content, tuple[Problem, ...]()
    found: Document | Flaw | None = read_quickly(content)
    if found is None:
        text, flaw, losses = _as_utf8(content, spec.parser)
        found = flaw or _judge(text, spec.parser)
    if isinstance(found, Flaw):
        return CheckResult(Grade.CORRUPT, problems=(_located(text, found),))
    shape = Shape(len(content), found.root, found.records)
    grade = Grade.SUSPECT if losses else Grade.GOOD
    if spec.schema is not None:
        by_schema, problems = schema_grade(text, spec.schema)
        if by_schema is not Grade.GOOD:
            return CheckResult(by_schema, shape, losses + problems)
    return CheckResult(grade, shape, losses, find_warnings(text) if wants_warnings and not losses else ())


def json_warnings(content: bytes, spec: CheckSpec) -> tuple[Problem, ...]:
    """Return the warnings about a text that `check_json` found good."""
    return find_warnings(_as_utf8(content, spec.parser)[0])


def _as_utf8(
    content: bytes | memoryview, parser: Parser
) -> tuple[bytes | memoryview, Flaw | None, tuple[Problem, ...]]:
    """Return the text as `parser` decodes it, in UTF-8; the flaw that keeps it from that; what it loses on the way."""
    head = bytes(content[:4])
    encoding = json.detect_encoding(head) if any(head) else "utf-8"  # NUL bytes alone are nobody's text
    if parser is Parser.PYTHON:
        return *_as_python_decodes(content, encoding), ()
    if head.startswith(codecs.BOM_UTF8):
        return content, Flaw(ProblemKind.BOM, "the text begins with a byte order mark", 0), ()
    if encoding.startswith("utf-16") and len(content) > 1:
        return content, Flaw(ProblemKind.UTF16, "the text is UTF-16, not UTF-8", 0), ()
    offset = _first_invalid(content, "strict")
    if offset is None:
        return content, None, ()
    flaw = Flaw(ProblemKind.ENCODING, "bytes that are not UTF-8", offset)
    if parser is Parser.STRICT:
        return content, flaw, ()
    lossy = str(content, "utf-8", "replace").encode()
    return lossy, None, (_located(content, flaw),)


def _as_python_decodes(content: bytes | memoryview, encoding: str) -> tuple[bytes | memoryview, Flaw | None]:
    if encoding.startswith("utf-8"):
        text = content[3:] if encoding == "utf-8-sig" else content
        offset = _first_invalid(text, "surrogatepass")
        return text, None if offset is None else Flaw(ProblemKind.ENCODING, "bytes that are not UTF-8", offset)
    try:
        return str(content, encoding, "surrogatepass").encode("utf-8", "surrogatepass"), None
    except UnicodeDecodeError:
        return content, Flaw(ProblemKind.ENCODING, "looks like UTF-16 or UTF-32, and is not", 0)


def _first_invalid(text: bytes | memoryview, errors: str) -> int | None:
    """Return where the first bytes stand that are no UTF-8; decodes in pieces, so memory stays flat."""
    view, at = memoryview(text), 0
    while at < len(view):
        piece = view[at : at + _CHUNK_BYTES]
        try:
            at += codecs.utf_8_decode(piece, errors, at + len(piece) == len(view))[1]
        except UnicodeDecodeError as error:
            return at + error.start
    return None


def _judge(text: bytes | memoryview, parser: Parser) -> Document | Flaw:
    fast = _fast(text) if ends_closed(text) else None
    return fast or _cut(text) or read_document(text, constants=parser is Parser.PYTHON)


def _fast(text: bytes | memoryview) -> Document | None:
    """Return the document, or None when the fast parser will not have it."""
    start = first_token(text)
    if start == len(text):
        return None
    root = root_type(text[start])
    if root not in ("object", "array"):
        return Document(root, None, len(text)) if _parses(text) else None
    count = partial(_members, _OBJECT if root == "object" else _ARRAY)
    if not has_too_many_members(text):
        records = count(text)
        return None if records is None else Document(root, records, len(text))
    records = count_members(text, count, piece_bytes=_PIECE_BYTES)
    # A member larger than a piece: that the text is whole is soon proved, how many there are is not.
    return None if records is None and not _parses(text) else Document(root, records, len(text))


def _parses(text: bytes | memoryview) -> bool:
    try:
        _WHOLE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _members(decoder: _Decoder, text: bytes | memoryview) -> int | None:
    try:
        return len(decoder.decode(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _cut(text: bytes | memoryview) -> Flaw | None:
    """Return the flaw of a text of which every byte may stand, but there is no end: the commonest damage, told soon.

    The exact judge says the same of it.  What is mapped is left to it, because it would have to be copied.
    """
    if isinstance(text, bytes) and first_token(text) < len(text):
        try:
            _WHOLE.decode(text + _NO_MORE)
        except (msgspec.DecodeError, RecursionError) as error:
            return cut_short(text) if str(error) == _CUT_SHORT else None
    return None


def _located(text: bytes | memoryview, flaw: Flaw) -> Problem:
    return Problem(flaw.kind, flaw.message, *line_and_column(text, flaw.offset))
