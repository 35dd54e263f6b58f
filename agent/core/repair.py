"""Field repair: a document that breaks its schema is mended where it does, and keeps whatever else it holds.

For each place that is wrong the ways to mend it are tried in a fixed order, the ones that lose least first; after each
try the whole text is validated again.  A value of the restore point comes before any default, so that a balance is
never set to 0 while it is known.
"""

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.core.counterpart import Counterparts
from agent.core.json_edit import with_edits, written_like
from agent.core.json_patch import Change, How, patch_text
from agent.core.json_places import AmbiguousKeyError, JsonText, Path
from agent.core.schema_walk import below, defaults_at, standing, types_at

SIZE_MAX_BYTES = 64 * 1024 * 1024
ROUNDS_MAX = 100

# What no other value mends: the member is not allowed at all.
_UNEXPECTED = {"additionalProperties", "unevaluatedProperties", "propertyNames", "falseSchema"}
_ABOUT_ONE_VALUE = {"type", "required"} | _UNEXPECTED
_LAST = {"unevaluatedProperties", "unevaluatedItems"}  # whatever else is wrong leaves members unevaluated
_COERCIBLE = {"type", "enum", "const", "anyOf", "oneOf"}
_number = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?>(\.[0-9]++))?+(?:(?>[eE][+-]?[0-9]++))?+").fullmatch
_decimal = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:(?>\.[0-9]++))?+").fullmatch
_whole = re.compile(rb"(-?(?:0|[1-9][0-9]*+))\.0++").fullmatch
_NUMBER_MAX = 400  # characters; beyond, some readers give up


@dataclass(frozen=True, slots=True)
class SchemaError:
    """One error of a validator.

    `at` leads to the value that is wrong: for a missing member to where it is missing (`keyword` is `required` then),
    for one that is not allowed to the member.  `schema_at` are the keywords that were followed, references included.
    """

    at: Path
    keyword: str
    schema_at: Path


FindErrors = Callable[[bytes], Sequence[SchemaError]]


@dataclass(frozen=True, slots=True)
class FieldRepair:
    """A mended document, what was changed, and the same as an RFC 6902 document."""

    data: bytes = field(repr=False)
    changes: tuple[Change, ...]
    patch: bytes = field(repr=False)


def repair_fields(
    data: bytes, schema: Mapping[str, object], restore_point: bytes | None, *, find_errors: FindErrors
) -> FieldRepair | None:
    """Return `data` with every place mended that breaks its schema, or None where the whole file must be restored.

    The ways, in order: the same value as the wanted type (`"4200"` is 4200), the value of the restore point, the
    schema's default, removal, then the objects around it from the restore point, the innermost first; never the root.
    Items of arrays are not removed, for others would move.  `find_errors` judges a text; it may return a part of the
    errors, but an empty list says that there is none.  The result has none, all bytes outside of its changes are those
    of `data`, and the same input gives the same result.  None also for an object with a key twice on the way, text that
    is not UTF-8 JSON, and what is not mended within 100 rounds and 64 MiB.
    """
    bom = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    text = _readable(data)
    if text is None:
        return None
    repair = _Repair(text, _older_versions(text, restore_point, schema, find_errors), schema, find_errors)
    mended = repair.run()
    if mended is None:
        return None
    changes = repair.changes()
    return FieldRepair(bom + mended, changes, patch_text(changes))


def _older_versions(
    text: JsonText, restore_point: bytes | None, schema: Mapping[str, object], find_errors: FindErrors
) -> list[Counterparts]:
    """Return the restore point to take values from; where the schema has moved on since, also as it would be now.

    The latter may have members more, but no default in the place of a value: that would pass for a value of old.
    """
    older = _readable(restore_point) if restore_point is not None else None
    if older is None:
        return []
    versions = [older]
    repair = _Repair(older, [], schema, find_errors)
    mended = repair.run()
    changes = repair.changes() if mended is not None else ()
    if mended is not None and changes and not any(c.how is How.DEFAULT and c.before is not None for c in changes):
        versions.append(JsonText(mended))
    return [Counterparts(text, version) for version in versions]


def _readable(data: bytes) -> JsonText | None:
    text = data.removeprefix(codecs.BOM_UTF8)
    if len(text) > SIZE_MAX_BYTES:
        return None
    try:
        json.loads(text.decode("utf-8", "replace"), parse_int=len, parse_float=len, parse_constant=len)
    except (ValueError, RecursionError):
        return None
    return JsonText(text)


class _Repair:
    """One repair under way: the changes that stand, and for each wrong place the ways that are left."""

    def __init__(
        self, text: JsonText, older: Sequence[Counterparts], schema: Mapping[str, object], find_errors: FindErrors
    ) -> None:
        self._text = text
        self._older = older
        self._schema = schema
        self._find_errors = find_errors
        self._ways: dict[Path, Iterator[Change]] = {}
        self._standing: dict[Path, tuple[Path, Change]] = {}  # by where it changes; with the place it is meant to mend
        self._last_change: dict[Path, Path] = {}  # the same the other way round
        self._touched: set[Path] = set()  # what the last round changed
        self._above_touched: set[Path] = set()

    def run(self) -> bytes | None:
        """Return the valid text, or None if some place cannot be mended."""
        seen = frozenset[SchemaError]()
        try:
            for _ in range(ROUNDS_MAX):
                edited = with_edits(self._text, {at: change.after for at, (_, change) in self._standing.items()})
                if len(edited) > SIZE_MAX_BYTES:
                    return None
                errors = self._find_errors(edited)
                if not errors:
                    return edited
                self._above_touched = {at[:depth] for at in self._touched for depth in range(len(at))}
                chosen = self._choose(errors, seen)
                seen, self._touched = frozenset(errors), set()
                if not all(self._advance(place, error) for place, error in chosen.items()):
                    return None
        except AmbiguousKeyError:
            return None
        return None

    def changes(self) -> tuple[Change, ...]:
        """Return what was changed, in the order of the document; what was added comes last."""
        standing = [change for _, change in self._standing.values()]
        ends = {change.at: self._text.find(change.at) for change in standing}
        last = len(self._text.text)
        return tuple(sorted(standing, key=lambda c: (m.start if (m := ends[c.at]) else last, _sortable(c.at))))

    def _choose(self, errors: Sequence[SchemaError], seen: frozenset[SchemaError]) -> dict[Path, SchemaError]:
        """Return the places to be mended in this round, which have no bearing on each other, each with an error.

        What is wrong in itself comes first, then what hangs on the members beside it, then what is wrong with a
        container as a whole: mending the former may lift the latter.
        """
        chosen: dict[Path, SchemaError] = {}
        taken, above_taken = set[Path](), set[Path]()
        for error, scope in sorted(((e, self._scope(e)) for e in errors), key=lambda pair: self._rank(*pair)):
            if scope in above_taken or any(scope[:depth] in taken for depth in range(len(scope) + 1)):
                continue
            taken.add(scope)
            above_taken.update(scope[:depth] for depth in range(len(scope) + 1))
            for place in self._places(error, seen):
                chosen.setdefault(place, error)
        return chosen

    def _scope(self, error: SchemaError) -> Path:
        hangs_on = standing(self._schema, error.schema_at).hangs_on
        return error.at if hangs_on is None else error.at[:hangs_on]

    def _rank(self, error: SchemaError, scope: Path) -> tuple[object, ...]:
        member = self._text.find(error.at)
        is_whole = error.keyword not in _ABOUT_ONE_VALUE and member is not None and self._text.container(member)
        kind = 3 if error.keyword in _LAST else 2 if is_whole else int(scope != error.at)
        return kind, -len(error.at), _sortable(error.at), error.keyword, _sortable(error.schema_at)

    def _places(self, error: SchemaError, seen: frozenset[SchemaError]) -> list[Path]:
        """Return which places an error speaks against: what was put in around it, or put in last and broke it."""
        for depth in range(len(error.at) + 1):
            if error.at[:depth] in self._standing:
                return [self._standing[error.at[:depth]][0]]
        if error in seen or error.at not in self._above_touched:
            return [error.at]
        broke_it = [self._standing[at][0] for at in self._touched if at[: len(error.at)] == error.at]
        return sorted(broke_it, key=_sortable)

    def _advance(self, place: Path, error: SchemaError) -> bool:
        """Take the next way to mend a place; False when none is left."""
        around = {self._standing[place[:n]][0] for n in range(len(place) + 1) if place[:n] in self._standing}
        if around and place not in around:
            return True  # another place of this round has had everything around it replaced
        last = self._last_change.pop(place, None)
        if last is not None:
            del self._standing[last]
        change = next(self._ways.setdefault(place, self._ways_to_mend(place, error)), None)
        if change is None:
            return False
        if change.before is not None and change.before[:1] in b"{[":
            self._drop_beneath(change.at)
        self._standing[change.at] = (place, change)
        self._last_change[place] = change.at
        self._touched.add(change.at)
        return True

    def _drop_beneath(self, path: Path) -> None:
        for at in [at for at in self._standing if at[: len(path)] == path]:
            del self._last_change[self._standing.pop(at)[0]]
            self._touched.discard(at)

    def _ways_to_mend(self, place: Path, error: SchemaError) -> Iterator[Change]:
        before = self._text.value(place)
        if before is None and error.keyword != "required":
            return  # the validator knows this place by another name
        if error.keyword not in _UNEXPECTED:
            yield from self._other_values(place, error, before)
        if before is not None and place and isinstance(place[-1], str):
            yield Change(place, How.REMOVED, before, None)
        for depth in range(len(place) - 1, 0, -1):
            for around in self._older_values(place[:depth]):
                yield Change(place[:depth], How.RECORD_FROM_SNAPSHOT, self._text.value(place[:depth]), around)

    def _other_values(self, place: Path, error: SchemaError, before: bytes | None) -> Iterator[Change]:
        here = standing(self._schema, error.schema_at)
        if before is not None and error.keyword in _COERCIBLE:
            for text in coercions(before, types_at(self._schema, here)):
                yield Change(place, How.COERCED, before, text)
        if not place:
            return  # another root is another file
        for older in self._older_values(place):
            if older != before:
                yield Change(place, How.FROM_SNAPSHOT, before, older)
        if error.keyword == "required":
            here = below(self._schema, here, str(place[-1]))
        for default in defaults_at(self._schema, here):
            try:
                yield Change(place, How.DEFAULT, before, written_like(self._text, default, place))
            except (ValueError, TypeError):
                continue  # a schema written in YAML may hold what JSON has no word for

    def _older_values(self, path: Path) -> list[bytes]:
        """Return what the restore point itself holds at a path, and if that has been mended, the mended value."""
        values = [version.value(path) for version in self._older]
        if not values or values[0] is None:
            return []
        return [value for value in dict.fromkeys(values) if value is not None]


def coercions(text: bytes, wanted: set[object]) -> list[bytes]:
    """Return the ways to write the very value of the JSON text `text` as another type.

    A string that spells a number or a truth value, a number as a string, a whole number without `.0`: digit for digit,
    never by way of a double.  Not offered is what another program may spell or read in another way: exponents in a
    string, and what is too large for a double.
    """
    found = []
    if text[:1] == b'"':
        spelt = text[1:-1]
        if len(spelt) <= _NUMBER_MAX and _number(spelt) and math.isfinite(float(spelt)):
            whole = _whole(spelt)
            found.append(whole[1] if whole and "integer" in wanted and "number" not in wanted else spelt)
        elif spelt in (b"true", b"false"):
            found.append(spelt)
    elif _decimal(text):
        if whole := _whole(text):
            found.append(whole[1])
        if len(text) <= _NUMBER_MAX:
            found.append(b'"' + text + b'"')
    return found


def _sortable(path: Path) -> tuple[tuple[bool, int, str], ...]:
    return tuple((False, step, "") if isinstance(step, int) else (True, 0, step) for step in path)
