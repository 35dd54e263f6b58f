"""What differs between two JSON documents: as data, in words for people, as a patch (RFC 6902).

Values are compared by meaning, whatever indent and order of keys say, and numbers by their exact spelling: no float
comes in between.  Nothing is built of what is equal byte for byte.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agent.core.json_patch import pointer_to
from agent.core.json_places import Container, JsonText, Member, Path
from agent.core.naming import display

_DEPTH_MAX = 32  # what lies deeper is compared as one value
_SHOWN_CHARACTERS = 60
_SHOWN_NAMES = 3
_line_break = re.compile(r"[ \t\r]*\n[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that was replaced, added (`before` is None) or removed (`after` is None), as JSON text.

    In an array, `at` counts as it stands after the differences before this one.
    """

    at: Path
    before: bytes | None = field(repr=False)
    after: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, in the order in which a patch applies them.

    The counts are those of the members of the root, its records; None where the roots have none or are of two kinds.
    """

    differences: tuple[Difference, ...]
    before_count: int | None
    after_count: int | None

    @property
    def removed(self) -> list[str | int]:
        """The records that are gone: their keys, or their indexes in the text before."""
        return sorted((d.at[0] for d in self.differences if len(d.at) == 1 and d.after is None), key=_order)

    @property
    def added(self) -> list[str | int]:
        """The records that are new: their keys, or their indexes in the text after."""
        return sorted((d.at[0] for d in self.differences if len(d.at) == 1 and d.before is None), key=_order)

    @property
    def changed(self) -> dict[str | int, list[Difference]]:
        """The records that are in both and differ, with what differs in each."""
        changed = defaultdict[str | int, list[Difference]](list)
        for difference in self.differences:
            is_whole = difference.before is None or difference.after is None
            if difference.at and not (len(difference.at) == 1 and is_whole):
                changed[difference.at[0]].append(difference)
        return dict(changed)

    @property
    def unchanged_count(self) -> int | None:
        if self.before_count is None:
            return None
        return self.before_count - len(self.removed) - len(self.changed)


def compare(before: JsonText, after: JsonText) -> Comparison:
    """Return what has to be done to `before` so that it means what `after` means; nothing when they mean the same.

    Applied in their order, the differences make exactly that.  Of an array, what its ends have in common stays; the
    items between are compared one by one.  An object in which a key stands twice is one value: readers disagree.
    """
    one, other = _Value.root(before), _Value.root(after)
    differences = tuple(_between(one, other, ()))
    a, b = one.container, other.container
    if a is None or b is None or a.is_array is not b.is_array or any(d.at == () for d in differences):
        return Comparison(differences, None, None)
    return Comparison(differences, len(a.members), len(b.members))


def patch_text(comparison: Comparison) -> bytes:
    """Return the differences as one JSON Patch document (RFC 6902), values spelt as in the text after."""
    operations = []
    for difference in comparison.differences:
        kind = "remove" if difference.after is None else "add" if difference.before is None else "replace"
        head = f'{{"op": "{kind}", "path": {json.dumps(pointer_to(difference.at))}'.encode()
        value = b"" if difference.after is None else b', "value": ' + difference.after
        operations.append(head + value + b"}")
    return b"[" + b",".join(b"\n  " + operation for operation in operations) + b"\n]\n"


def sentence(comparison: Comparison) -> str:
    """Return the differences in one line: how many records stay, and which do not."""
    if not comparison.differences:
        return "the same records; only how they are written differs"
    if comparison.before_count is None:
        return "another document altogether"
    parts = [f"{comparison.unchanged_count:,} of {_records(comparison.before_count)} unchanged"]
    for word, names in (("removed", comparison.removed), ("added", comparison.added)):
        if names:
            parts.append(f"{len(names):,} {word} ({_names(names)})")
    changed = comparison.changed
    if changed:
        told = f"{len(changed):,} changed ({_names(list(changed))})"
        only = next(iter(changed.values()))
        fields = [f"{_field(d)} {_step(d)}".strip() for d in only]
        parts.append(f"{told}: {', '.join(fields)}" if len(changed) == 1 and len(only) <= _SHOWN_NAMES else told)
    return "; ".join(parts)


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield one line for each difference: `-` gone, `+` new, `~` changed; long values are cut."""
    for difference in comparison.differences:
        sign = "-" if difference.after is None else "+" if difference.before is None else "~"
        value = _step(difference) if sign == "~" else shown(difference.after or difference.before or b"")
        yield f"{sign} {display(pointer_to(difference.at)) or 'the whole document'}: {value}"


def shown(text: bytes) -> str:
    """Return a JSON value on one printable line of bounded length."""
    line = _line_break.sub(" ", text[: 8 * _SHOWN_CHARACTERS].decode("utf-8", "replace"))
    cut = len(text) > 8 * _SHOWN_CHARACTERS or len(line) > _SHOWN_CHARACTERS
    return display(line[:_SHOWN_CHARACTERS]) + ("…" if cut else "")


# comparing


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of one document."""

    document: JsonText
    member: Member

    @classmethod
    def root(cls, document: JsonText) -> "_Value":
        member = document.find(())
        assert member is not None  # the root is always there
        return cls(document, member)

    @property
    def text(self) -> bytes:
        return self.document.text[self.member.value : self.member.end]

    @property
    def container(self) -> Container | None:
        return self.document.container(self.member)

    def inner(self, member: Member) -> "_Value":
        return _Value(self.document, member)


def _between(one: _Value, other: _Value, at: Path) -> Iterator[Difference]:
    before, after = one.text, other.text
    if before == after:
        return
    a, b = one.container, other.container
    comparable = a is not None and b is not None and a.is_array is b.is_array and len(at) < _DEPTH_MAX
    if not comparable or a is None or b is None or a.has_repeated_key or b.has_repeated_key:
        if not _mean_the_same(before, after):
            yield Difference(at, before, after)
    elif a.is_array:
        items = [one.inner(member) for member in a.members.values()]
        yield from _between_arrays(items, [other.inner(member) for member in b.members.values()], at)
    else:
        for key, member in a.members.items():
            if key in b.members:
                yield from _between(one.inner(member), other.inner(b.members[key]), (*at, key))
            else:
                yield Difference((*at, key), one.inner(member).text, None)
        for key, member in b.members.items():
            if key not in a.members:
                yield Difference((*at, key), None, other.inner(member).text)


def _between_arrays(before: Sequence[_Value], after: Sequence[_Value], at: Path) -> Iterator[Difference]:
    shorter = min(len(before), len(after))
    head = 0
    while head < shorter and _mean_the_same(before[head].text, after[head].text):
        head += 1
    tail = 0
    while tail < shorter - head and _mean_the_same(before[-1 - tail].text, after[-1 - tail].text):
        tail += 1
    for index in range(head, shorter - tail):
        yield from _between(before[index], after[index], (*at, index))
    for index in reversed(range(shorter - tail, len(before) - tail)):
        yield Difference((*at, index), before[index].text, None)
    for index in range(shorter - tail, len(after) - tail):
        yield Difference((*at, index), None, after[index].text)


def _mean_the_same(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    try:
        return bool(_meaning(one) == _meaning(other))
    except RecursionError:
        return False  # so deep that it is compared as text


def _meaning(text: bytes) -> object:
    """Return a value that is equal for equal values only: numbers as spelt, objects with a key twice as written."""
    return json.loads(
        text.decode("utf-8", "surrogateescape"),
        parse_int=_spelt,
        parse_float=_spelt,
        parse_constant=_spelt,
        object_pairs_hook=_members,
    )


def _spelt(number: str) -> tuple[str]:
    return (number,)  # equal to no string


def _members(pairs: list[tuple[str, object]]) -> object:
    members = dict(pairs)
    return members if len(members) == len(pairs) else tuple(pairs)


# words


def _order(step: str | int) -> tuple[bool, int, str]:
    return (isinstance(step, str), step if isinstance(step, int) else 0, str(step))


def _records(count: int) -> str:
    return f"{count:,} record" if count == 1 else f"{count:,} records"


def _names(steps: Sequence[str | int]) -> str:
    more = len(steps) - _SHOWN_NAMES
    names = ", ".join(display(str(step))[:_SHOWN_CHARACTERS] for step in steps[:_SHOWN_NAMES])
    return names + (f", … {more:,} more" if more > 0 else "")


def _field(difference: Difference) -> str:
    return display("/".join(str(step) for step in difference.at[1:]))


def _step(difference: Difference) -> str:
    before, after = (shown(text) if text is not None else "nothing" for text in (difference.before, difference.after))
    return f"{before} → {after}"
