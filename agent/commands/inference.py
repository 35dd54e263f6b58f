"""A starting JSON Schema from one good document: what a person reads over and then makes stricter.

It is lenient on purpose, because one state does not show all that the bot may write: a number is any number, what was
only ever null or empty may become anything, and a key is required only where every record of its kind has it.
An object that is a map (its keys are ids, or its members are records of one kind) is described by one schema for all
of its members, so that the next id fits too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.checks.json_schema import load_replacing, schema_grade
from agent.core.errors import AgentError
from agent.core.model import Grade

SCHEMA_URI = "https://json-schema.org/draft/2020-12/schema"
_ANY_KEY = "^"
_ID_KEYS = (
    r"^[0-9]+$",
    r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
    r"^[0-9a-f]{16,}$",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
)
_RECORDS_MIN = 5  # members of one kind that make a map of names
_SCALARS_MIN = 50

Json = dict[str, Any]


class NoInferenceError(AgentError):
    """No schema can be inferred; nothing was written."""


def infer_schema(*texts: bytes) -> Json:
    """Return a schema that the good JSON documents `texts` fit.

    Raises:
        NoInferenceError: the library is not installed, or the document is nested too deeply.
    """
    builder_class = require_library()
    try:
        samples = [load_replacing(text) for text in texts]
        builder = builder_class(schema_uri=SCHEMA_URI)
        builder.add_schema(_seed(samples))
        for sample in samples:
            builder.add_object(sample)
        schema: Json = {"$schema": SCHEMA_URI, **_lenient(builder.to_schema())}
    except RecursionError as error:
        raise NoInferenceError("the document is nested too deeply", hint="write its schema by hand") from error
    if any(schema_grade(text, schema)[0] is not Grade.GOOD for text in texts):
        raise NoInferenceError("the schema that was found does not fit the document", hint="write it by hand")
    return schema


def require_library() -> Any:
    """Return the class that builds schemas.

    Raises:
        NoInferenceError: it is not installed.
    """
    try:
        from genson import SchemaBuilder  # type: ignore[import-untyped,import-not-found,unused-ignore]  # an optional extra
    except ImportError as error:
        raise NoInferenceError(
            "inferring a schema takes the library genson, which is not installed",
            hint="install it with: pip install 'backup-agent[infer]'",
        ) from error
    return SchemaBuilder


def _seed(samples: Sequence[object]) -> Json:
    """Return the places of maps among `samples`, values of one place, as the builder takes them."""
    objects = [value for value in samples if isinstance(value, dict)]
    arrays = [item for value in samples if isinstance(value, list) for item in value]
    seed: Json = {}
    if objects:
        seed |= _object_seed(objects)
    if arrays and (items := _seed(arrays)) and not seed:
        seed |= {"type": "array", "items": items}
    return seed


def _object_seed(objects: Sequence[Mapping[str, object]]) -> Json:
    members: dict[str, list[object]] = {}
    for each in objects:
        for key, value in each.items():
            members.setdefault(key, []).append(value)
    pattern = _map_pattern(members)
    if pattern is not None:
        inner = [value for key, values in members.items() if re.search(pattern, key) for value in values]
        seed: Json = {"type": "object", "patternProperties": {pattern: _seed(inner) or None}}
        members = {key: values for key, values in members.items() if not re.search(pattern, key)}
    else:
        seed = {"type": "object"}
    properties = {key: found for key, values in members.items() if (found := _seed(values))}
    return seed | ({"properties": properties} if properties else {}) if pattern or properties else {}


def _map_pattern(members: Mapping[str, Sequence[object]]) -> str | None:
    """Return what the keys of a map look like; None for an object with fixed keys."""
    for pattern in _ID_KEYS:
        ids = sum(1 for key in members if re.search(pattern, key))
        if ids and 2 * ids >= len(members):
            return pattern
    values = [value for found in members.values() for value in found]
    if len(members) >= _RECORDS_MIN and all(isinstance(value, dict) for value in values):
        keys = [frozenset(value) for value in values if isinstance(value, dict)]
        common, every = frozenset.intersection(*keys), frozenset.union(*keys)
        return _ANY_KEY if every and 2 * len(common) >= len(every) else None
    kinds = {type(value) for value in values}
    return _ANY_KEY if len(members) >= _SCALARS_MIN and len(kinds) == 1 else None


def _lenient(schema: Json) -> Json:
    """Return what the builder found, with room for what this one state does not show."""
    found = {key: value for key, value in schema.items() if key != "$schema"}
    if isinstance(kinds := found.get("type"), str | list):
        names = [kinds] if isinstance(kinds, str) else kinds
        wider = list(dict.fromkeys("number" if name == "integer" else name for name in names))
        found["type"] = wider[0] if len(wider) == 1 else wider
    if found.get("type") == "null":
        return {}
    for key in ("properties", "patternProperties"):
        if key in found:
            found[key] = {name: _lenient(inner) for name, inner in found[key].items()}
    if "items" in found:
        found["items"] = _lenient(found["items"])
    if "anyOf" in found:
        ways = [_lenient(inner) if inner != {"type": "null"} else inner for inner in found["anyOf"]]
        found["anyOf"] = [way for index, way in enumerate(ways) if way not in ways[:index]]
    return _plain_map(found)


def _plain_map(found: Json) -> Json:
    """A map whose keys are all alike needs no pattern: the next id may look different."""
    patterns = found.get("patternProperties", {})
    if len(patterns) != 1 or "properties" in found:
        return found
    (inner,) = patterns.values()
    return {key: value for key, value in found.items() if key != "patternProperties"} | {"additionalProperties": inner}
