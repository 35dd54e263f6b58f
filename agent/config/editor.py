"""The JSON Schema of the config file itself, for editors: completion, documentation and red lines while typing."""

from typing import Any

import msgspec
from msgspec import Struct

from agent.config.kind import Kind, fields_of
from agent.config.model import Config


def config_json_schema() -> dict[str, Any]:
    """Return a JSON Schema 2020-12 that every valid config file satisfies, with each key described.

    It is the model as msgspec sees it, with quantities in the form in which they are written; what only the loader
    can see (the environment, contradictions, other files) is left to `backup-agent config check`.
    """
    schema = msgspec.json.schema(Config)
    definitions = schema.pop("$defs")
    for section in _sections(Config):
        properties = definitions[section.__name__]["properties"]
        for key, info in fields_of(section).items():
            kind = Kind.of(info.type)
            if kind.unit:
                properties[key] = _quantity(kind, properties[key])
            elif properties[key].get("default") in ("", None):
                properties[key].pop("default", None)  # it is told in the description
    root = definitions.pop(Config.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "backup-agent",
        "$defs": definitions,
    }


def _sections(section: type[Struct]) -> set[type[Struct]]:
    below = {section}
    for info in fields_of(section).values():
        kind = Kind.of(info.type)
        item = Kind.of(kind.item) if kind.item else kind
        if item.section:
            below |= _sections(item.section)
    return below


def _quantity(kind: Kind, of_number: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a number that is written with a unit, given the one of the bare number."""
    words = [kind.unset_word] if kind.unset_word else []
    forms: list[dict[str, Any]] = [{"type": "string", "pattern": rf"^(?:{'|'.join([kind.pattern, *words])})$|\$\{{"}]
    forms.append({"type": "integer", "minimum": 0} if kind.unit == "size" else {"const": 0})
    if kind.optional:
        forms.append({"type": "null"})
    schema = {"description": of_number["description"], "anyOf": forms}
    if of_number.get("default") is not None or kind.unset_word:
        schema["default"] = kind.show(of_number["default"])
    return schema
