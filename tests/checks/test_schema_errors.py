from typing import Any

import pytest

from agent.checks.schema_errors import ERRORS_MAX, schema_errors

USER = {"type": "object", "required": ["coins"], "properties": {"coins": {"type": "integer"}}}
NULL = {"type": "null"}


def found(text: bytes, schema: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    return [(error.at, error.keyword) for error in schema_errors(text, schema)]


@pytest.mark.parametrize(
    ("text", "schema", "errors"),
    [
        (b'{"coins": 1}', USER, []),
        (b'{"coins": "1"}', USER, [(("coins",), "type")]),
        (b"{}", USER, [(("coins",), "required")]),
        (b'{"a": 1}', {"dependentRequired": {"a": ["b", "c"]}}, [(("b",), "required"), (("c",), "required")]),
        (
            b'{"a": 1, "b": 2}',
            {"additionalProperties": False, "properties": {"c": {}}},
            [(("a",), "additionalProperties"), (("b",), "additionalProperties")],
        ),
        (b'{"a": 1, "b": 2}', {"additionalProperties": False}, [(("a",), "falseSchema"), (("b",), "falseSchema")]),
        (b'[{"a": 1}]', {"items": {"propertyNames": False}}, [((0, "a"), "falseSchema")]),
        (
            b'{"additionalProperties": 1}',
            {"properties": {"additionalProperties": False}},
            [(("additionalProperties",), "falseSchema")],
        ),
        (b'{"a": 1}', {"unevaluatedProperties": False}, [(("a",), "unevaluatedProperties")]),
        (b'{"abc": 1}', {"propertyNames": {"maxLength": 2}}, [(("abc",), "propertyNames")]),
        (b'[{"007": ""}]', {"items": {"additionalProperties": {"type": "integer"}}}, [((0, "007"), "type")]),
        (b'{"12345678901234567": ""}', {"additionalProperties": NULL}, [(("12345678901234567",), "type")]),
        (b'{"7": null, "+7": 1}', {"additionalProperties": NULL}, [((), "undecided")]),
        (b'["\\ud800", 1e400, NaN]', {"items": {"type": "number"}}, [((0,), "type")]),
        (b'{"\\ud800": 1}', {"additionalProperties": NULL}, [(("\ufffd",), "type")]),
        (b"[" * 600 + b"]" * 600, {"type": "array"}, [((), "undecided")]),
        (b"1", {"type": "nonsense"}, [((), "undecided")]),
        (b"1", {"const": {1, 2}}, [((), "undecided")]),
    ],
)
def test_each_wrong_place_is_named(
    text: bytes, schema: dict[str, Any], errors: list[tuple[tuple[str | int, ...], str]]
) -> None:
    assert sorted(found(text, schema), key=str) == errors


@pytest.mark.parametrize(
    ("text", "branches", "errors"),
    [
        (b'{"coins": "1"}', [USER, NULL], [(("coins",), "type")]),
        (b'{"coins": "1"}', [USER, {"type": "object", "required": ["x"]}], [((), "anyOf")]),
        (b"5", [USER, NULL], [((), "anyOf")]),
        (
            b'{"kind": "b", "n": 1}',
            [
                {"properties": {"kind": {"const": "a"}, "n": {"type": "string"}}},
                {"properties": {"kind": {"const": "b"}, "n": NULL}},
            ],
            [(("n",), "type")],
        ),
        (b'{"coins": "1"}', [{"anyOf": [USER, NULL]}, NULL], [(("coins",), "type")]),
    ],
)
def test_errors_are_those_under_the_one_schema_that_is_meant(
    text: bytes, branches: list[Any], errors: list[tuple[tuple[str | int, ...], str]]
) -> None:
    assert found(text, {"anyOf": branches}) == errors


def test_value_that_fits_several_of_one_of_is_itself_the_error() -> None:
    assert found(b"5", {"oneOf": [{"type": "integer"}, {"minimum": 3}]}) == [((), "oneOf")]


def test_errors_are_bounded() -> None:
    assert len(schema_errors(b"[" + b"1," * 5000 + b"1]", {"items": NULL})) == ERRORS_MAX
