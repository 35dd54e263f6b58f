"""The last judge of a JSON text: it follows RFC 8259 to the byte, at any depth, and builds nothing.

Other parsers give up on some texts that Node or Python read: beyond a depth, beyond a number of digits, at an escaped
half of a surrogate pair.  This one keeps one byte per open bracket and converts no number, so whatever it rejects is
wrong for everybody.  It looks at bytes and takes every byte above 0x7f inside a string as it is: whether the text is
UTF-8 is another question, asked elsewhere.
"""

import re
from collections.abc import Callable
from functools import cache

from msgspec import Struct

from agent.core.problem import ProblemKind

WHITESPACE = b" \t\n\r"
_TAIL_BYTES = 64

# Before Python 3.11.5 a possessive group keeps what its last, failed round had taken (gh-106052); an atomic group
# inside it gives that back.
_WS = rb"[ \t\n\r]*+"
_OPEN_STRING = rb'"[^"\\\x00-\x1f]*+(?:(?>\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+))*+'
_STRING = _OPEN_STRING + rb'"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:(?>\.[0-9]++))?+(?:(?>[eE][+-]?[0-9]++))?+"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_CONSTANT = rb"NaN|-?Infinity"

_next_token = re.compile(_WS).match
_open_string = re.compile(_OPEN_STRING).match
_cut_escape = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z").match
_cut_word = re.compile(rb"(?:t|tr|tru|f|fa|fal|fals|n|nu|nul|-|\.|[eE][+-]?)\Z").match
_constant = re.compile(_CONSTANT).match
_scalar = re.compile(_SCALAR).match
_scalar_or_constant = re.compile(rb"(?:" + _SCALAR + rb"|" + _CONSTANT + rb")").match
_key = re.compile(_STRING + _WS + rb":").match
_key_string = re.compile(_STRING).match
_OBJECT, _ARRAY = ord("{"), ord("[")

# Whole stretches of plain members are swallowed at once: most of a document, several times faster.
_plain_members = {
    _OBJECT: re.compile(rb"(?:(?>" + _WS + _STRING + _WS + rb":" + _WS + _SCALAR + _WS + rb",))*+").match,
    _ARRAY: re.compile(rb"(?:(?>" + _WS + _SCALAR + _WS + rb",))*+").match,
}
# In the root, members are counted: by their commas, in stretches that have no other commas.
_SIMPLE_STRING = rb'"[^"\\,\x00-\x1f]*+"'
_SIMPLE = _WS + rb"(?:" + _SIMPLE_STRING + rb"|" + _NUMBER + rb"|true|false|null)" + _WS + rb","
_counted_members = {
    _OBJECT: re.compile(rb"(?:(?>" + _WS + _SIMPLE_STRING + _WS + rb":" + _SIMPLE + rb")){0,4096}+").match,
    _ARRAY: re.compile(rb"(?:(?>" + _SIMPLE + rb")){0,4096}+").match,
}
# A member that is a container is swallowed whole too, if nothing in it lies deeper than some levels.
_NESTED_LEVELS = 3
_TRIED_LEVELS = 8  # what lies deeper is more likely brackets and nothing else: each try would be in vain


def _container(levels: int) -> bytes:
    """Return the pattern of an object or array that holds containers to `levels` below."""
    value = rb"(?:" + _SCALAR + (rb"|" + _container(levels - 1) if levels else b"") + rb")"
    members = _filled(_WS + _STRING + _WS + rb":" + _WS + value + _WS, rb"\}")
    return rb"(?>\{" + members + rb"|\[" + _filled(_WS + value + _WS, rb"\]") + rb")"


def _filled(one: bytes, closer: bytes) -> bytes:
    """Return the pattern of any number of `one` up to the closing bracket, with a comma between two of them.

    `one` stands in it once, as the pattern doubles with each level as it is.
    """
    return rb"(?:(?>" + one + rb"(?:,(?!" + _WS + closer + rb")|(?=" + closer + rb"))))*+" + _WS + closer


@cache
def _container_member(bracket: int) -> Callable[[bytes | memoryview, int], re.Match[bytes] | None]:
    """Return what swallows a member of an object or array; made on first need, as that takes its time."""
    key = _STRING + _WS + rb":" + _WS if bracket == _OBJECT else b""
    return re.compile(_WS + key + _container(_NESTED_LEVELS) + _WS + b",").match


_CLOSER = {_OBJECT: ord("}"), _ARRAY: ord("]")}
_COMMA, _QUOTE = ord(","), ord('"')

_ROOTS = {_OBJECT: "object", _ARRAY: "array", _QUOTE: "string", ord("t"): "boolean", ord("f"): "boolean"}
_ROOTS[ord("n")] = "null"


class Document(Struct, frozen=True):
    """A complete document: it ends before `end_offset`.

    `records` counts the members of a root that has any, as they are written: a key that appears twice counts twice.
    None for other roots, and where a member is so large that nobody counts in good time.
    """

    root: str
    records: int | None
    end_offset: int


class Flaw(Struct, frozen=True):
    """The first place where a text stops being JSON.  `message` quotes none of it."""

    kind: ProblemKind
    message: str
    offset: int


def cut_short(text: bytes | memoryview) -> Flaw:
    """Return the flaw of a text that is the beginning of a document."""
    return Flaw(ProblemKind.TRUNCATED, "the text ends in the middle of the document", len(text))


def ends_closed(text: bytes | memoryview) -> bool:
    """Whether the last byte that is not white space, if it is near, closes an object or array."""
    return bytes(text[-_TAIL_BYTES:]).rstrip(WHITESPACE)[-1:] in (b"}", b"]")


def lacks_its_end(head: bytes, tail: bytes) -> bool:
    """Whether a text with this head and tail, some dozens of bytes, begins an object or array and does not close one.

    Then no parser reads it, and what is there of it is no document with something behind it that a repair would take
    away.  False proves nothing.
    """
    last = tail.rstrip()[-1:]
    is_begun = head.lstrip(WHITESPACE)[:1] in (b"{", b"[") and b"\0" not in head
    return is_begun and last not in (b"", b"\0", b"}", b"]")


def root_type(first_byte: int) -> str:
    """Return the type of the value that begins with `first_byte`: object, array, string, number, boolean or null."""
    return _ROOTS.get(first_byte, "number")


def first_token(text: bytes | memoryview, offset: int = 0) -> int:
    """Return where the first byte that is not white space stands, at or after `offset`; the length if none does."""
    return _end(_next_token(text, offset))


def read_document(text: bytes | memoryview, *, constants: bool = False) -> Document | Flaw:
    """Return the one document that fills the whole text, or the first flaw.

    `constants` also admits NaN, Infinity and -Infinity, which Python writes and reads.
    """
    if first_token(text) == len(text):
        message = "there is nothing but white space" if text else "the file is empty"
        return Flaw(ProblemKind.EMPTY, message, len(text))
    found = read_first_document(text, constants=constants)
    if isinstance(found, Flaw):
        return found
    rest = first_token(text, found.end_offset)
    if rest == len(text):
        return found
    if text[rest] == 0:
        return Flaw(ProblemKind.NUL, "a NUL byte follows the document", rest)
    return Flaw(ProblemKind.TRAILING_DATA, "more text follows the complete document", rest)


def read_first_document(text: bytes | memoryview, offset: int = 0, *, constants: bool = False) -> Document | Flaw:
    """Return the document that begins at `offset` or after white space, whatever follows it, or the first flaw."""
    scalar = _scalar_or_constant if constants else _scalar
    start = at = first_token(text, offset)
    open_brackets = bytearray()
    records = 0
    while True:
        # A member is due; outside every bracket that is the root itself.
        if open_brackets:
            at, counted = _skip_members(text, at, open_brackets)
            records += counted
            at = first_token(text, at)
            if open_brackets[-1] == _OBJECT:
                key = _key(text, at)
                if key is None:
                    return _flawed_key(text, at)
                at = first_token(text, key.end())
        value = scalar(text, at)
        if value is not None:
            at = value.end()
        elif at < len(text) and text[at] in _CLOSER:
            open_brackets.append(text[at])
            at += 1
            if not _closes(text, first_token(text, at), open_brackets):
                records += len(open_brackets) == 1  # for the last member, which no comma follows
                continue
        else:
            return _flaw(text, at, "a value is missing here")
        after = _after_value(text, at, open_brackets)
        if isinstance(after, Flaw):
            return after
        at = after
        if not open_brackets:
            root = root_type(text[start])
            return Document(root, records if text[start] in _CLOSER else None, at)
        records += len(open_brackets) == 1  # for the comma


def _skip_members(text: bytes | memoryview, at: int, open_brackets: bytearray) -> tuple[int, int]:
    """Return where the next member begins that is not plain, or is the last, and how many root members were passed."""
    bracket = open_brackets[-1]
    plain = _counted_members[bracket] if len(open_brackets) == 1 else _plain_members[bracket]
    counted, begun_at = 0, -1
    while at != begun_at:
        begun_at = at
        while (end := _end(plain(text, at))) != at:
            counted += bytes(text[at:end]).count(b",") if len(open_brackets) == 1 else 0
            at = end
        while len(open_brackets) <= _TRIED_LEVELS and (container := _container_member(bracket)(text, at)):
            counted += len(open_brackets) == 1
            at = container.end()
    return at, counted


def _after_value(text: bytes | memoryview, at: int, open_brackets: bytearray) -> int | Flaw:
    """Close what is closed after a value, and return where the next member or the end of the document is."""
    while open_brackets:
        at = first_token(text, at)
        if at < len(text) and text[at] == _COMMA:
            return at + 1
        if not _closes(text, at, open_brackets):
            return _flaw(text, at, "a comma or a closing bracket is missing here")
        open_brackets.pop()
        at += 1
    return at


def _closes(text: bytes | memoryview, at: int, open_brackets: bytearray) -> bool:
    return at < len(text) and text[at] == _CLOSER[open_brackets[-1]]


def _flawed_key(text: bytes | memoryview, at: int) -> Flaw:
    key = _key_string(text, at)
    if key is None:
        return _flaw(text, at, "a key in double quotes is missing here")
    return _flaw(text, first_token(text, key.end()), "a colon is missing here")


def _flaw(text: bytes | memoryview, at: int, message: str) -> Flaw:
    """Name the flaw at `at` as closely as its neighbourhood allows."""
    opened = _open_string(text, at)
    if opened is not None:
        at = opened.end()
        if at < len(text) and _cut_escape(text, at):
            at = len(text)
        elif at < len(text):
            message = "an escape is wrong here" if text[at] == ord("\\") else "a control character stands in a string"
    elif _cut_word(text, at):
        at = len(text)
    if at == len(text):
        return cut_short(text)
    if text[at] == 0:
        return Flaw(ProblemKind.NUL, "a NUL byte stands here", at)
    if _constant(text, at):
        return Flaw(ProblemKind.NOT_A_NUMBER, "NaN and Infinity are not JSON", at)
    return Flaw(ProblemKind.SYNTAX, message, at)


def _end(match: re.Match[bytes] | None) -> int:
    assert match is not None  # every such pattern also matches nothing at all
    return match.end()
