"""The text of a JSON document, changed at some places and byte for byte the same everywhere else.

Nothing is parsed into values and written again: indent, key order, escapes, the spelling of numbers and the end of the
file stay as the bot wrote them.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

from msgspec import Struct

from agent.core.json_places import AmbiguousKeyError, Container, JsonText, Path

_LOOK_DEPTH = 8


class _Style(Struct, frozen=True):
    """What stands before the first member, after the last, between two, and between a key and its value."""

    lead: bytes
    tail: bytes
    separator: bytes
    colon: bytes


def with_edits(document: JsonText, edits: Mapping[Path, bytes | None]) -> bytes:
    """Return the text with the value at each path replaced, added (where it is absent) or removed (None).

    New members go behind the last one and take over how their siblings are set apart.  All paths are those of this
    text; none may lead into another, and all but the last step must exist.  An item is added at the index behind
    the last one.

    Raises:
        AmbiguousKeyError: as `JsonText.find`, also for the object that holds the value.
        LookupError: nothing there holds, or could hold, a value.
    """
    slices: list[tuple[int, int, bytes]] = []
    by_holder = defaultdict[Path, dict[str | int, bytes | None]](dict)
    for path, text in edits.items():
        if path:
            by_holder[path[:-1]][path[-1]] = text
        elif text is not None:
            slices.append((document.root.value, document.root.end, text))
        else:
            raise LookupError("the root cannot be removed")
    for path, changes in by_holder.items():
        slices += _slices(document, path, changes)
    pieces, at = [], 0
    for start, end, text in sorted(slices):
        pieces += [document.text[at:start], text]
        at = end
    return b"".join([*pieces, document.text[at:]])


def written_like(document: JsonText, value: object, path: Path) -> bytes:
    """Return `value` as text in the style of this document, as it would stand at `path`.

    Raises:
        ValueError, TypeError: JSON has no such value.
        LookupError: as `with_edits`.
    """
    lead = _style(document, path[:-1]).lead if path else b""
    unit, colon = _unit(document), _colon(document)
    indent, comma = None, ", " if colon.endswith(b" ") else ","
    if unit and b"\n" in lead:
        indent, comma = unit.decode(), ","
    text = json.dumps(
        value,
        indent=indent,
        separators=(comma, colon.decode()),
        ensure_ascii=document.text.isascii(),
        allow_nan=False,
    )
    return text.encode().replace(b"\n", lead)  # inside a string a line feed is escaped


def _holder(document: JsonText, path: Path) -> Container:
    member = document.find(path)
    holder = document.container(member) if member else None
    if holder is None:
        raise LookupError("nothing there can hold a member")
    if holder.has_repeated_key:
        raise AmbiguousKeyError("a key is written twice in the object concerned")
    return holder


def _slices(
    document: JsonText, path: Path, changes: Mapping[str | int, bytes | None]
) -> Iterator[tuple[int, int, bytes]]:
    """Yield what changes in one container: from where to where, and into what."""
    holder = _holder(document, path)
    added = [(step, text) for step, text in changes.items() if step not in holder.members and text is not None]
    _require_fit(holder, changes, added_count=len(added))
    if holder.is_array:
        added.sort(key=lambda item: item[0])
    style = _style(document, path) if added else _Style(b"", b"", b"", b"")
    new = [text if holder.is_array else _quoted(document, step) + style.colon + text for step, text in added]
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


def _require_fit(holder: Container, changes: Mapping[str | int, bytes | None], *, added_count: int) -> None:
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


def _style(document: JsonText, path: Path) -> _Style:
    """Return how the members of the container at `path` are set apart."""
    holder = _holder(document, path)
    members = list(holder.members.values())
    colon = document.spacing(members[-1]) if members and not holder.is_array else _colon(document)
    plain = b", " if colon.endswith(b" ") else b","
    if not members:
        outer = _style(document, path[:-1]).lead if path else b""
        if b"\n" not in outer:
            return _Style(b"", b"", plain, colon)
        lead = outer + _unit(document)
        return _Style(lead, outer, b"," + lead, colon)
    lead = document.text[holder.opening + 1 : members[0].start]
    tail = document.text[members[-1].end : holder.closing]
    if len(members) > 1:
        return _Style(lead, tail, document.text[members[-2].end : members[-1].start], colon)
    return _Style(lead, tail, b"," + lead if b"\n" in lead else plain, colon)


def _unit(document: JsonText) -> bytes:
    """Return one level of indent, or nothing where members share a line."""
    root = document.container(document.root)
    if root is None or not root.members:
        return b""
    lead = document.text[root.opening + 1 : next(iter(root.members.values())).start]
    return lead.rpartition(b"\n")[2] if b"\n" in lead else b""


def _colon(document: JsonText) -> bytes:
    """Return what stands between the first key near the root and its value."""
    member = document.root
    for _ in range(_LOOK_DEPTH):
        container = document.container(member)
        if container is None or not container.members:
            break
        member = next(iter(container.members.values()))
        if not container.is_array:
            return document.spacing(member)
    return b": "


def _quoted(document: JsonText, step: str | int) -> bytes:
    return json.dumps(str(step), ensure_ascii=document.text.isascii()).encode()
