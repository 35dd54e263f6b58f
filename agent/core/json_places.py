"""Where the values of a JSON document stand in its text.

Nothing is parsed into values.  A container is looked through when something in it is asked for, and only once.
"""

import json
import re
from collections.abc import Mapping

from msgspec import Struct

from agent.core.json_text import first_token

Path = tuple[str | int, ...]  # the keys and indexes that lead from the root to a value

# An atomic group in each possessive one: see json_text.
_STRING = rb'"[^"\\]*+(?:(?>\\.[^"\\]*+))*+"'
_FLAT = rb"[^\"\[\]{}]++|" + _STRING
_string = re.compile(_STRING, re.DOTALL).match
_bare_word = re.compile(rb"[^ \t\n\r,\]}]++").match
# Inside a container: up to its end, or into a container in it that holds another one.
_stretch = re.compile(rb"(?:(?>" + _FLAT + rb"|[\[{](?:(?>" + _FLAT + rb"))*+[\]}]))*+", re.DOTALL).match
_lone_surrogate = re.compile("[\ud800-\udfff]")
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


class AmbiguousKeyError(LookupError):
    """A key on the way to a value is written twice in one object, so readers may disagree which one counts."""


class Member(Struct, frozen=True):
    """Where one member stands: it starts with its key, or in an array with its value, and ends before `end`."""

    start: int
    value: int
    end: int


class Container(Struct, frozen=True):
    """An object or array, the offsets of its brackets, and its members by key or index in the order of the text."""

    is_array: bool
    opening: int
    closing: int
    members: Mapping[str | int, Member]
    has_repeated_key: bool


class JsonText:
    """One complete, well-formed JSON document (UTF-8 without byte order mark; NaN and Infinity are numbers).

    Keys are compared as a lossy reader sees them: what is no character counts as U+FFFD.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._containers: dict[int, Container | None] = {}
        start = first_token(text)
        self.root = Member(start, start, self._value_end(start))

    def find(self, path: Path) -> Member | None:
        """Return where the value at `path` stands; None if it is absent.

        Raises:
            AmbiguousKeyError: an object on the way has a key twice.
        """
        member: Member | None = self.root
        for step in path:
            container = self.container(member) if member else None
            if container is None:
                return None
            if container.has_repeated_key:
                raise AmbiguousKeyError("a key on the way is written twice in one object")
            # An index is no key of an object, nor a key an index of an array.
            member = container.members.get(step) if container.is_array is isinstance(step, int) else None
        return member

    def value(self, path: Path) -> bytes | None:
        """Return the text of the value at `path`, or None if it is absent.  Raises: as `find`."""
        member = self.find(path)
        return None if member is None else self.text[member.value : member.end]

    def resolve(self, pointer: str) -> Path:
        """Return the path that a JSON pointer (RFC 6901) means here; digits, or `-`, are an index in an array only.

        The path need not lead to a value.

        Raises:
            ValueError: not a JSON pointer.
            AmbiguousKeyError: as `find`.
        """
        if pointer and not pointer.startswith("/"):
            raise ValueError("a JSON pointer is empty or begins with /")
        path: Path = ()
        for part in pointer.split("/")[1:]:
            step: str | int = part.replace("~1", "/").replace("~0", "~")
            member = self.find(path)
            container = self.container(member) if member else None
            if container is not None and container.is_array:
                step = len(container.members) if part == "-" else int(part) if _INDEX.fullmatch(part) else part
            path = (*path, step)
        return path

    def container(self, member: Member) -> Container | None:
        """Return the insides of the value of `member`, or None if it has none."""
        at = member.value
        if at not in self._containers:
            self._containers[at] = self._look_through(at) if self.text[at] in b"{[" else None
        return self._containers[at]

    def _value_end(self, at: int) -> int:
        text = self.text
        if text[at] not in b"{[":
            scalar = _string(text, at) or _bare_word(text, at)
            assert scalar is not None
            return scalar.end()
        at, depth = at + 1, 1
        while depth:
            at = _end(_stretch(text, at))
            depth += 1 if text[at] in b"{[" else -1
            at += 1
        return at

    def _look_through(self, opening: int) -> Container:
        text, members = self.text, dict[str | int, Member]()
        is_array = text[opening] in b"["
        at, count = first_token(text, opening + 1), 0
        while text[at] not in b"}]":
            start, key = at, count
            if not is_array:
                end = _end(_string(text, at))
                key = _key(text[start:end])  # type: ignore[assignment]  # a key in an object, an index in an array
                at = first_token(text, first_token(text, end) + 1)
            end = self._value_end(at)
            members[key] = Member(start, at, end)
            count += 1
            at = first_token(text, end)
            if text[at] in b",":
                at = first_token(text, at + 1)
        return Container(is_array, opening, at, members, has_repeated_key=len(members) < count)

    def spacing(self, member: Member) -> bytes:
        """Return what stands between the key of a member of an object and its value."""
        return self.text[_end(_string(self.text, member.start)) : member.value]


def _key(quoted: bytes) -> str:
    text = quoted.decode("utf-8", "replace")
    if "\\" not in text:
        return text[1:-1]
    key: str = json.loads(text)
    return _lone_surrogate.sub("\ufffd", key)


def _end(match: re.Match[bytes] | None) -> int:
    assert match is not None  # the text is well-formed
    return match.end()
