"""Where a document breaks its JSON Schema, one place an error, for the repair of its fields."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from agent.checks.json_schema import load_plain, load_replacing, validator_for
from agent.core.json_places import Path
from agent.core.repair import SchemaError

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

ERRORS_MAX = 1000
_UNDECIDED = SchemaError((), "undecided", ())
_oddly_spelt = re.compile(r"\+[0-9]+|0[0-9]+", re.ASCII).fullmatch


def schema_errors(text: bytes, schema: Mapping[str, object]) -> list[SchemaError]:
    """Return up to 1,000 places (and those they stand for) where the JSON document `text` breaks `schema`.

    A member that is missing, or not allowed, is an error of its own at its own place.  Where a value fits none of
    several schemas but only one of them is for a value of its kind, the errors are those under that one.  What cannot
    be decided, because the data is too deep or the schema unusable, is one error at the root, which nothing mends.
    """
    try:
        validator = validator_for(json.dumps(schema))
    except (ValueError, TypeError):
        return [_UNDECIDED]
    for load in (load_plain, load_replacing):
        try:
            data = load(text)
            keys = _Keys(data)
            errors = islice(validator.iter_errors(data), ERRORS_MAX)
            return [place for error in errors for place in _places(error, keys)]
        except ValueError:
            continue  # it holds what only the other way can load, or keys that are no good to either
        except RecursionError:
            break
    return [_UNDECIDED]


def _places(error: "ValidationError", keys: "_Keys") -> Iterator[SchemaError]:
    kind: Any = error.kind  # a union of classes that only share their name
    at, keywords = keys.path(error.instance_path), tuple(error.evaluation_path)
    match kind.name:
        case "required":
            yield SchemaError((*at, kind.property), kind.name, keywords)
        case "additionalProperties" | "unevaluatedProperties":
            for name in kind.unexpected:
                yield SchemaError((*at, name), kind.name, keywords)
        case "propertyNames":
            yield SchemaError((*at, str(kind.error.instance)), kind.name, keywords)
        case "anyOf" | "oneOf":
            meant = [branch for branch in kind.context if branch and not any(_other_kind(e, at) for e in branch)]
            if len(meant) == 1:
                for under_it in meant[0]:
                    yield from _places(under_it, keys)
            else:
                yield SchemaError(at, kind.name, keywords)
        case "falseSchema" if keywords[-1:] in (("additionalProperties",), ("propertyNames",)) and keys.of(at):
            for name in keys.of(at):  # the object is named, but it is its members that may not be there
                yield SchemaError((*at, name), kind.name, keywords)
        case name:
            yield SchemaError(at, name, keywords)


def _other_kind(error: "ValidationError", at: Path) -> bool:
    """Return whether an error says that a schema is for values of another kind than the one at `at`."""
    depth = len(error.instance_path) - len(at)
    return (error.kind.name == "type" and depth == 0) or (error.kind.name == "const" and depth <= 1)


class _Keys:
    """Gives the keys of a document their spelling back: the validator turns `007` and `+7` into the index 7."""

    def __init__(self, data: object) -> None:
        self._data = data
        self._odd: dict[int, dict[int, list[str]]] = {}  # by the identity of an object, then by the number

    def path(self, steps: list[str | int]) -> Path:
        """Return the path as the document spells it.

        Raises:
            ValueError: two keys of one object read as the same number.
        """
        here: Any = self._data
        path = list[str | int]()
        for step in steps:
            exact = self._key(here, step) if isinstance(here, dict) and isinstance(step, int) else step
            here = here[exact]
            path.append(exact)
        return tuple(path)

    def of(self, path: Path) -> list[str]:
        """Return the keys of the object at `path`."""
        here: Any = self._data
        for step in path:
            here = here[step]
        return list(here) if isinstance(here, dict) else []

    def _key(self, holder: dict[str, object], number: int) -> str:
        if id(holder) not in self._odd:
            self._odd[id(holder)] = {}
            for key in filter(_oddly_spelt, holder):
                self._odd[id(holder)].setdefault(int(key), []).append(key)
        spellings = [*self._odd[id(holder)].get(number, ()), *([str(number)] if str(number) in holder else [])]
        if len(spellings) != 1:
            raise ValueError("it is not certain which key is meant")
        spelling: str = spellings[0]
        return spelling
