"""The JSON Schemas that operators write: read from their files, and judged before a data file is judged by them."""

import functools
import json
import os
from typing import Any

from agent.config.reader import NodeReader, below
from agent.config.source import SIZE_MAX_BYTES, ConfigProblem, InvalidConfigError, compose

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def load_schema(written: dict[str, Any] | str, *, at: str, folder: str, reader: NodeReader) -> dict[str, Any] | None:
    """Return the schema that `written` is, or names by a path relative to `folder`; None if it cannot be read.

    `at` is the key path in the config.  Problems, of which a returned schema may have some, go to `reader`.
    """
    if not isinstance(written, str):
        _examine(written, at=at, reader=reader)
        return written
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(written)))
    its_reader = NodeReader(file=path, environ={})
    try:
        with open(path, "rb") as file:
            content = file.read(SIZE_MAX_BYTES + 1)
        schema = _read_json(content, path) if path.endswith(".json") else _read_yaml(content, path, its_reader)
    except OSError as error:
        hint = "the path is relative to the folder of the config file"
        reader.complain(at, f"cannot read {path}: {error.strerror}", hint)
        return None
    except InvalidConfigError as error:
        reader.problems.extend(error.problems)
        return None
    if isinstance(schema, dict):
        _examine(schema, at="", reader=its_reader)
    else:
        its_reader.complain("", "is no JSON Schema: it must be an object")
    reader.problems.extend(its_reader.problems)
    return schema if isinstance(schema, dict) else None


def _read_yaml(content: bytes, path: str, reader: NodeReader) -> Any:
    node = compose(content, file=path)
    return None if node is None else reader.plain(node, "")


def _read_json(content: bytes, path: str) -> Any:
    def stop(message: str, line: int | None = None, column: int | None = None) -> InvalidConfigError:
        return InvalidConfigError([ConfigProblem(path, line, column, "", message)])

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            twice = next(key for key in members if sum(key == other for other, _ in pairs) > 1)
            raise stop(f"`{twice}` is given twice in one object")
        return members

    def no_number(text: str) -> Any:
        raise stop(f"{text} is not a number in JSON")

    if len(content) > SIZE_MAX_BYTES:
        raise stop(f"is longer than {SIZE_MAX_BYTES} bytes")
    try:
        return json.loads(content, object_pairs_hook=once, parse_constant=no_number)
    except json.JSONDecodeError as error:
        raise stop(f"is not JSON: {error.msg}", error.lineno, error.colno) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number beyond all measure, or nested too deep
        raise stop(f"is not JSON that can be read: {type(error).__name__}") from error


def _examine(schema: dict[str, Any], *, at: str, reader: NodeReader) -> None:
    """Complain about everything that keeps `schema` from being used as a JSON Schema 2020-12, offline."""
    import jsonschema_rs  # six megabytes that an agent without schemas does without

    dialect = schema.get("$schema", _DIALECT)
    if not isinstance(dialect, str) or dialect.removesuffix("#") != _DIALECT:
        reader.complain(below(at, "$schema"), "only JSON Schema 2020-12 is known", f"port it, then write {_DIALECT}")
        return
    try:
        meta = jsonschema_rs.Draft202012Validator({"$ref": _DIALECT}, offline=True, validate_formats=True)
        faults = {tuple(fault.instance_path): fault.message for fault in meta.iter_errors(schema)}
        if not faults:
            jsonschema_rs.Draft202012Validator(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        faults = {tuple(error.instance_path): error.message}
    except ValueError as error:  # a value that JSON does not have
        faults = {(): str(error)}
    for path, message in faults.items():
        hint = ""
        if path and path[-1] == "type":
            hint = "types are array, boolean, integer, null, number, object, string"
        elif "retriev" in message:
            hint = "schemas are read offline and alone: move what is meant into $defs"
        reader.complain(functools.reduce(below, path, at), f"is no JSON Schema: {message}", hint)
