"""What a JSON Schema says about the place of one error: which defaults stand there, and on what it depends.

The schema is walked along the keywords that a validator followed, so no pattern is matched here and a recursive schema
is as deep as the document.  Only references within the schema document are followed.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from agent.core.json_places import Path

_NAMED_STEPS = {"properties", "patternProperties", "prefixItems"}  # followed by a name or an index
_STEPS = {"additionalProperties", "unevaluatedProperties", "items", "unevaluatedItems"}
_NAMED_APPLICATORS = {"allOf", "anyOf", "oneOf", "dependentSchemas"}
_NAMED = _NAMED_STEPS | _NAMED_APPLICATORS
# What these, or what stands in these, finds wrong hangs on other members as well.
_CONDITIONAL = {"then", "else", "dependentRequired", "unevaluatedProperties", "unevaluatedItems"}
_NAMED_CONDITIONS = {"anyOf", "oneOf", "dependentSchemas"}
_DEFAULT_DEPTH = 8
_SCHEMAS_MAX = 64


class Standing(Struct, frozen=True):
    """What applies where a keyword found an error.

    `schemas` apply to the very value that the keyword looks at, outer ones first.  `hangs_on` is how many steps of the
    path of that value lead to the one whose other members decide whether the keyword applies at all; None where it
    always does.
    """

    schemas: tuple[Mapping[str, object], ...]
    hangs_on: int | None


def standing(schema: object, keywords: Path) -> Standing:
    """Return what the schema says where the `keywords` lead, from its root to the one that found an error."""
    here: object = schema
    schemas = [schema]
    hangs_on, depth, at = None, 0, 0
    while at < len(keywords):
        keyword, left = keywords[at], len(keywords) - at
        if hangs_on is None and (keyword in _CONDITIONAL or (keyword in _NAMED_CONDITIONS and left > 1)):
            hangs_on = depth
        if left == 1:
            break  # the keyword that found the error
        if keyword == "$ref":
            here = _referred(schema, here)
        elif keyword in _NAMED:
            here = _step(_step(here, keyword), keywords[at + 1])
        elif keyword in _STEPS or keyword in ("then", "else"):
            here = _step(here, keyword)
        else:
            return Standing((), depth if hangs_on is None else hangs_on)  # a keyword that is not followed here
        if keyword in _NAMED_STEPS or keyword in _STEPS:
            schemas, depth = [], depth + 1
        schemas.append(here)
        at += 2 if keyword in _NAMED else 1
    return Standing(tuple(one for one in schemas if isinstance(one, dict)), hangs_on)


def types_at(schema: object, place: Standing) -> set[object]:
    """Return the types that are asked for at a place; empty where none is named."""
    found = set[object]()
    for one in _with_references(schema, place.schemas):
        wanted = one.get("type", ())
        found.update([wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else ())
    return found


def defaults_at(schema: object, place: Standing) -> Iterator[object]:
    """Yield the defaults that stand at a place, completed by those of the members they lack."""
    for one in _with_references(schema, place.schemas):
        if "default" in one:
            yield _completed(schema, place.schemas, one["default"], _DEFAULT_DEPTH)


def below(schema: object, place: Standing, name: str) -> Standing:
    """Return what applies to the member `name` of the object at a place."""
    return Standing(_member_schemas(schema, place.schemas, name), place.hangs_on)


def _completed(root: object, schemas: tuple[Mapping[str, object], ...], value: object, depth: int) -> object:
    """Return `value` with the required members that it lacks and that have a default themselves."""
    if not isinstance(value, dict) or depth == 0:
        return value
    whole = dict(value)
    for one in list(_with_references(root, schemas)):
        required = one.get("required")
        for name in required if isinstance(required, list) else ():
            of_member = _member_schemas(root, schemas, name)
            for default in (s["default"] for s in _with_references(root, of_member) if "default" in s):
                if name not in whole:
                    whole[name] = _completed(root, of_member, default, depth - 1)
    return whole


def _member_schemas(
    root: object, schemas: tuple[Mapping[str, object], ...], name: object
) -> tuple[Mapping[str, object], ...]:
    members = (_step(one.get("properties"), name) for one in _with_references(root, schemas))
    return tuple(member for member in members if isinstance(member, dict))


def _with_references(root: object, schemas: tuple[Mapping[str, object], ...]) -> Iterator[Mapping[str, object]]:
    """Yield the schemas, each once, and those that apply together with them through `$ref` and `allOf`."""
    waiting: list[object] = list(schemas)
    seen = list[object]()
    while waiting and len(seen) < _SCHEMAS_MAX:
        one = waiting.pop(0)
        if not isinstance(one, dict) or any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        waiting.append(_referred(root, one))
        together = one.get("allOf")
        waiting += together if isinstance(together, list) else []


def _referred(root: object, schema: object) -> object:
    """Return what the `$ref` of a schema means, or None if it is no pointer into the same document."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
        return None
    here = root
    for part in reference.split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        here = _step(here, int(step) if isinstance(here, list) and step.isdecimal() else step)
    return here


def _step(holder: object, step: object) -> object:
    if isinstance(holder, dict):
        return holder.get(str(step))  # a validator may give a name of digits as a number
    if isinstance(holder, list) and isinstance(step, int) and 0 <= step < len(holder):
        return holder[step]
    return None
