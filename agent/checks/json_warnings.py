"""What is worth knowing about a good JSON text: places that not everyone reads alike, or that lost something."""

import json
import re
from collections.abc import Iterator
from itertools import islice

import msgspec

from agent.checks.text_place import line_and_column
from agent.core.model import Problem
from agent.core.problem import ProblemKind

_DUPLICATES_MAX_BYTES = 256 * 1024  # this look builds the document, a millisecond or two for this much
_NUMBERS_MAX_BYTES = 32 << 20  # of a larger document only the beginning is searched: a millisecond a megabyte
_CHUNK_BYTES = 1 << 20
_OVERLAP_BYTES = 64
_CANDIDATES_MAX = 1000
_EXACT_MAX = 2**53

_REPLACEMENT = "\ufffd".encode()
# What a number may follow becomes a space and every digit 0, so one search finds long numbers outside of quotes.
_DIGITS = bytes.maketrans(b"123456789:,[-\t\n\r", b"000000000" + b" " * 7)
_LONG_NUMBER = b" " + b"0" * 16
_integer = re.compile(rb"[0-9]++(?=[ \t\n\r]*+(?:[,\]}]|\Z))").match
_before_member = re.compile(rb"[:,\[][ \t\n\r]*+-?\Z").search
# Passes over everything up to an escaped half of a surrogate pair; an escaped backslash takes its successor along.
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_up_to_lone_surrogate = re.compile(rb"(?:(?>[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|" + _PAIR + rb"))*+").match


def find_warnings(text: bytes | memoryview) -> tuple[Problem, ...]:
    """Return at most one warning of each kind, at its first place in the complete document `text` (UTF-8).

    Looked for: integers beyond 2^53 that are members of an array or object (in the first 32 MiB; found by their
    neighbours, so the same digits between commas inside a string may be named too), escaped halves of surrogate pairs,
    U+FFFD, and, in documents of up to 256 KiB, keys that appear twice in one object.  A few milliseconds for 2 MB.
    """
    looks = (_big_integer(text), _lone_surrogate(text), _replacement(text), _duplicate_key(text))
    return tuple(warning for warning in looks if warning is not None)


def lone_surrogate_offsets(text: bytes | memoryview) -> Iterator[int]:
    """Yield where each escaped half of a surrogate pair (six bytes) begins in a complete document."""
    if _find(text, b"\\") is None or (_find(text, b"\\ud") is None and _find(text, b"\\uD") is None):
        return  # one byte is found at the speed of memory, several are not: most texts need the first look only
    at = 0
    while True:
        passed = _up_to_lone_surrogate(text, at)
        assert passed is not None  # the pattern also matches nothing
        if passed.end() == len(text):
            return
        yield passed.end()
        at = passed.end() + 6


def _lone_surrogate(text: bytes | memoryview) -> Problem | None:
    for offset in islice(lone_surrogate_offsets(text), 1):
        return _warning(ProblemKind.LONE_SURROGATE, "half of a surrogate pair: no character", text, offset)
    return None


def _replacement(text: bytes | memoryview) -> Problem | None:
    offset = _find(text, _REPLACEMENT) if _find(text, _REPLACEMENT[:1]) is not None else None
    if offset is None:
        return None
    return _warning(ProblemKind.REPLACEMENT_CHARACTER, "U+FFFD: an earlier read lost a character", text, offset)


def _big_integer(text: bytes | memoryview) -> Problem | None:
    for offset in islice(_long_numbers(text), _CANDIDATES_MAX):
        digits = _integer(text, offset)
        member = _before_member(bytes(text[max(0, offset - _OVERLAP_BYTES) : offset]))
        if digits is None or member is None:
            continue
        significant = digits.group()
        if len(significant) > 16 or int(significant) > _EXACT_MAX:
            return _warning(ProblemKind.BIG_INTEGER, "an integer beyond 2^53: Node rounds it", text, offset)
    return None


def _long_numbers(text: bytes | memoryview) -> Iterator[int]:
    """Yield where a run of 16 or more digits begins that follows neither a quote nor a decimal point."""
    for start, chunk in _chunks(text[:_NUMBERS_MAX_BYTES]):
        digits = chunk.translate(_DIGITS)
        at = digits.find(_LONG_NUMBER)
        while at != -1 and at < _CHUNK_BYTES:
            yield start + at + 1
            at = digits.find(_LONG_NUMBER, at + 1)


def _duplicate_key(text: bytes | memoryview) -> Problem | None:
    if len(text) > _DUPLICATES_MAX_BYTES or _keeps_every_member(text):
        return None
    found: list[tuple[dict[str, object], str]] = []

    def build(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs) and not found:
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add() returns None on purpose
            found.append((members, twice))
        return members

    try:
        root = json.loads(str(text, "utf-8", "replace"), object_pairs_hook=build, parse_int=len, parse_float=len)
    except RecursionError:
        return None  # as deep as this, nobody looks for the second key
    if not found:
        return None
    holder, key = found[0]
    pointer = _pointer_to(root, holder)
    message = "a key appears twice in one object: the last one is read"
    if pointer is not None:
        pointer += json_pointer([key])
    return Problem(ProblemKind.DUPLICATE_KEY, message, pointer=pointer)


def _keeps_every_member(text: bytes | memoryview) -> bool:
    """Whether the document, built and written anew by something quick, surely has as many members as before.

    Each member has a colon.  Those inside strings are the same before and after where nothing is escaped.
    """
    plain = bytes(text)
    if b"\\" in plain:
        return False
    try:
        again = msgspec.json.encode(msgspec.json.decode(plain))
    except (msgspec.MsgspecError, ArithmeticError, ValueError, RecursionError):
        return False
    return again.count(b":") == plain.count(b":")


def json_pointer(path: list[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of a path, in characters that can be written as UTF-8."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps).encode("utf-8", "replace").decode()


def _pointer_to(root: object, wanted: object) -> str | None:
    """Return the pointer to the very object `wanted` inside `root`; None when a duplicate key has replaced it."""
    waiting: list[tuple[object, list[str | int]]] = [(root, [])]
    while waiting:
        value, path = waiting.pop()
        if value is wanted:
            return json_pointer(path)
        if isinstance(value, dict):
            waiting += [(member, [*path, key]) for key, member in value.items() if isinstance(member, dict | list)]
        elif isinstance(value, list):
            waiting += [(member, [*path, i]) for i, member in enumerate(value) if isinstance(member, dict | list)]
    return None


def _find(text: bytes | memoryview, wanted: bytes) -> int | None:
    if isinstance(text, bytes):
        at = text.find(wanted)
        return at if at != -1 else None
    for start, chunk in _chunks(text):
        at = chunk.find(wanted)
        if at != -1:
            return start + at
    return None


def _chunks(text: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the text in overlapping pieces, so that a mapped file is never copied as a whole."""
    for start in range(0, len(text), _CHUNK_BYTES):
        yield start, bytes(text[start : start + _CHUNK_BYTES + _OVERLAP_BYTES])


def _warning(kind: ProblemKind, message: str, text: bytes | memoryview, offset: int) -> Problem:
    line, column = line_and_column(text, offset)
    return Problem(kind, message, line, column)
