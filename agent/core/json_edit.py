"""The text of a JSON document, changed at some places and byte for byte the same everywhere else.

Nothing is parsed into values and written again: indent, key order, escapes, the spelling of numbers and the end of the
file stay as the bot wrote them.  A container is looked through when something in it is asked for, and only once.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
_LOOK_DEPTH = 8


class AmbiguousKeyError(LookupError):
    """A key on the way to a value is written twice in one object, so readers may disagree which one counts."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where one member stands: it starts with its key, or in an array with its value, and ends before `end`."""

    start: int
    value: int
    end: int


@dataclass(frozen=True, slots=True)
class Container:
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
        self._root = Member(start, start, self._value_end(start))

    def find(self, path: Path) -> Member | None:
        """Return where the value at `path` stands; None if it is absent.

        Raises:
            AmbiguousKeyError: an object on the way has a key twice.
        """
        member: Member | None = self._root
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

    def edited(self, edits: Mapping[Path, bytes | None]) -> bytes:
        """Return the text with the value at each path replaced, added (where it is absent) or removed (None).

        New members go behind the last one and take over how their siblings are set apart.  All paths are those of this
        text; none may lead into another, and all but the last step must exist.  An item is added at the index behind
        the last one.

        Raises:
            AmbiguousKeyError: as `find`, also for the object that holds the value.
            LookupError: nothing there holds, or could hold, a value.
        """
        slices: list[tuple[int, int, bytes]] = []
        by_holder = defaultdict[Path, dict[str | int, bytes | None]](dict)
        for path, text in edits.items():
            if path:
                by_holder[path[:-1]][path[-1]] = text
            elif text is not None:
                slices.append((self._root.value, self._root.end, text))
            else:
                raise LookupError("the root cannot be removed")
        for path, changes in by_holder.items():
            slices += self._slices(path, changes)
        pieces, at = [], 0
        for start, end, text in sorted(slices):
            pieces += [self.text[at:start], text]
            at = end
        return b"".join([*pieces, self.text[at:]])

    def written(self, value: object, path: Path) -> bytes:
        """Return `value` as text in the style of this document, as it would stand at `path`.

        Raises:
            ValueError, TypeError: JSON has no such value.
            LookupError: as `edited`.
        """
        lead = self._style(path[:-1]).lead if path else b""
        unit, colon = self._unit(), self._colon()
        indent, comma = None, ", " if colon.endswith(b" ") else ","
        if unit and b"\n" in lead:
            indent, comma = unit.decode(), ","
        text = json.dumps(
            value,
            indent=indent,
            separators=(comma, colon.decode()),
            ensure_ascii=self.text.isascii(),
            allow_nan=False,
        )
        return text.encode().replace(b"\n", lead)  # inside a string a line feed is escaped

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

    def _holder(self, path: Path) -> Container:
        member = self.find(path)
        holder = self.container(member) if member else None
        if holder is None:
            raise LookupError("nothing there can hold a member")
        if holder.has_repeated_key:
            raise AmbiguousKeyError("a key is written twice in the object concerned")
        return holder

    def _slices(self, path: Path, changes: Mapping[str | int, bytes | None]) -> Iterator[tuple[int, int, bytes]]:
        """Yield what changes in one container: from where to where, and into what."""
        holder = self._holder(path)
        added = [(step, text) for step, text in changes.items() if step not in holder.members and text is not None]
        self._require_fit(holder, changes, added_count=len(added))
        if holder.is_array:
            added.sort(key=lambda item: item[0])
        style = self._style(path) if added else _Style(b"", b"", b"", b"")
        new = [text if holder.is_array else self._quoted(step) + style.colon + text for step, text in added]
        last_kept = previous = None
        for step, member in holder.members.items():
            text = changes.get(step, b"")
            if text is not None:
                if last_kept is None and previous is not None:  # all members so far go, and the comma behind them
                    yield next(iter(holder.members.values())).start, member.start, b""
                last_kept = member
                if text:
                    yield member.value, member.end, text
            elif last_kept is not None:
                assert previous is not None
                yield previous.end, member.end, b""
            previous = member
        if last_kept is not None:
            yield last_kept.end, last_kept.end, b"".join(style.separator + text for text in new)
        elif new or previous is not None:
            inside = style.lead + style.separator.join(new) + style.tail if new else b""
            yield holder.opening + 1, holder.closing, inside

    def _require_fit(self, holder: Container, changes: Mapping[str | int, bytes | None], *, added_count: int) -> None:
        size = len(holder.members)
        for step, text in changes.items():
            if step in holder.members:
                continue
            if text is None:
                raise LookupError("there is nothing to remove")
            if isinstance(step, int) is not holder.is_array:
                raise LookupError("an object is given keys and an array indexes")
            if isinstance(step, int) and not size <= step < size + added_count:
                raise LookupError("an array grows at its end, without gaps")

    def _style(self, path: Path) -> "_Style":
        """Return how the members of the container at `path` are set apart."""
        holder = self._holder(path)
        members = list(holder.members.values())
        colon = self._colon_of(members[-1]) if members and not holder.is_array else self._colon()
        plain = b", " if colon.endswith(b" ") else b","
        if not members:
            outer = self._style(path[:-1]).lead if path else b""
            if b"\n" not in outer:
                return _Style(b"", b"", plain, colon)
            lead = outer + self._unit()
            return _Style(lead, outer, b"," + lead, colon)
        lead = self.text[holder.opening + 1 : members[0].start]
        tail = self.text[members[-1].end : holder.closing]
        if len(members) > 1:
            return _Style(lead, tail, self.text[members[-2].end : members[-1].start], colon)
        return _Style(lead, tail, b"," + lead if b"\n" in lead else plain, colon)

    def _unit(self) -> bytes:
        """Return one level of indent, or nothing where members share a line."""
        root = self.container(self._root)
        if root is None or not root.members:
            return b""
        lead = self.text[root.opening + 1 : next(iter(root.members.values())).start]
        return lead.rpartition(b"\n")[2] if b"\n" in lead else b""

    def _colon(self) -> bytes:
        """Return what stands between the first key near the root and its value."""
        member = self._root
        for _ in range(_LOOK_DEPTH):
            container = self.container(member)
            if container is None or not container.members:
                break
            member = next(iter(container.members.values()))
            if not container.is_array:
                return self._colon_of(member)
        return b": "

    def _colon_of(self, member: Member) -> bytes:
        return self.text[_end(_string(self.text, member.start)) : member.value]

    def _quoted(self, step: str | int) -> bytes:
        return json.dumps(str(step), ensure_ascii=self.text.isascii()).encode()


@dataclass(frozen=True, slots=True)
class _Style:
    """What stands before the first member, after the last, between two, and between a key and its value."""

    lead: bytes
    tail: bytes
    separator: bytes
    colon: bytes


def _key(quoted: bytes) -> str:
    text = quoted.decode("utf-8", "replace")
    if "\\" not in text:
        return text[1:-1]
    key: str = json.loads(text)
    return _lone_surrogate.sub("\ufffd", key)


def _end(match: re.Match[bytes] | None) -> int:
    assert match is not None  # the text is well-formed
    return match.end()
