import json

import pytest

from agent.checks import check
from agent.core.model import CheckResult, CheckSpec, Grade, Parser

LINKED = {"$defs": {"node": {"type": ["array", "null"], "items": {"$ref": "#/$defs/node"}}}, "$ref": "#/$defs/node"}


def judged(content: bytes, schema: dict[str, object], parser: Parser = Parser.STRICT) -> CheckResult:
    return check(content, CheckSpec(parser=parser, schema=schema))


def test_valid_document_is_good_and_keeps_its_warnings() -> None:
    result = judged(b'{"id": 123456789012345678}', {"properties": {"id": {"type": "integer"}}})

    assert (result.grade, [w.kind for w in result.warnings]) == (Grade.GOOD, ["big_integer"])


def test_every_broken_field_is_named_by_its_pointer() -> None:
    schema = {"additionalProperties": {"required": ["n"], "properties": {"n": {"type": "number", "minimum": 0}}}}

    result = judged(b'{"a/b": {"n": "x"}, "c": {}, "d": {"n": -1}, "e": {"n": 1}}', schema)

    assert result.grade is Grade.INVALID
    assert result.shape is not None
    assert [(p.kind, p.pointer) for p in result.problems] == [
        ("schema", "/a~1b/n"),
        ("schema", "/c"),
        ("schema", "/d/n"),
    ]


def test_problems_are_bounded() -> None:
    assert len(judged(json.dumps(["x"] * 5000).encode(), {"items": {"type": "integer"}}).problems) == 20


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"additionalProperties": False},
        {"unevaluatedProperties": False},
        {"propertyNames": {"maxLength": 3}},
        {"propertyNames": {"pattern": "^x"}},
        {"patternProperties": {"^hun": {"type": "integer"}}},
        {"additionalProperties": {"enum": ["a"]}},
        {"additionalProperties": {"pattern": "^a"}},
        {"additionalProperties": {"const": 1}},
        {"additionalProperties": {"oneOf": [{"type": "string"}, {"minLength": 1}]}},
        {"additionalProperties": {"not": {}}},
        {"additionalProperties": {"format": "email", "maxLength": 2}},
    ],
)
def test_message_quotes_no_data(schema: dict[str, object]) -> None:
    result = judged(b'{"hunter2": "hunter2"}', schema)

    assert result.grade is Grade.INVALID
    assert all("hunter2" not in problem.message for problem in result.problems)


def test_long_schema_values_are_not_repeated_in_messages() -> None:
    assert len(judged(b"1", {"const": "x" * 10_000}).problems[0].message) < 300


@pytest.mark.parametrize(
    ("content", "schema", "grade"),
    [
        (b"9007199254740993", {"maximum": 9007199254740992}, Grade.INVALID),
        (b"9007199254740992", {"maximum": 9007199254740992}, Grade.GOOD),
        (b"123456789012345678", {"const": 123456789012345679}, Grade.INVALID),
        (b"123456789012345678901234567890", {"const": 123456789012345678901234567890}, Grade.GOOD),
        (b"9" * 5000, {"type": "integer", "minimum": 0}, Grade.GOOD),
        (b"-" + b"9" * 5000, {"type": "integer", "minimum": 0}, Grade.INVALID),
        (b"[1e400, -1e400]", {"items": {"type": "number"}}, Grade.GOOD),
        (b"[1e400]", {"items": {"maximum": 5}}, Grade.INVALID),
        (b'["\\ud800"]', {"items": {"type": "string", "maxLength": 1}}, Grade.GOOD),
        (b'["\\ud800"]', {"items": {"type": "integer"}}, Grade.INVALID),
        (
            b'{"\\ud800": {"\\udc00": 1}}',
            {"additionalProperties": {"additionalProperties": {"type": "integer"}}},
            Grade.GOOD,
        ),
        (b'{"\\ud800": {"\\udc00": 1}}', {"additionalProperties": {"maxProperties": 0}}, Grade.INVALID),
    ],
)
def test_unusual_values_are_compared_as_they_are(content: bytes, schema: dict[str, object], grade: Grade) -> None:
    assert judged(content, schema).grade is grade


def test_values_only_python_reads_are_numbers_and_texts_there() -> None:
    schema = {"prefixItems": [{"type": "number"}, {"type": "number"}, {"type": "string"}]}

    assert judged(b'[NaN, -Infinity, "\xed\xa0\x80"]', schema, Parser.PYTHON).grade is Grade.GOOD


def test_lossy_text_that_breaks_its_schema_is_invalid_and_says_both() -> None:
    result = judged(b'["\xff"]', {"items": {"type": "integer"}}, Parser.NODE)

    assert (result.grade, [p.kind for p in result.problems]) == (Grade.INVALID, ["encoding", "schema"])


def test_lossy_text_that_fits_its_schema_stays_suspect() -> None:
    assert judged(b'["\xff"]', {"items": {"type": "string"}}, Parser.NODE).grade is Grade.SUSPECT


@pytest.mark.parametrize("depth", [600, 2000, 100_000])
def test_data_too_deep_for_a_schema_is_unreadable_and_never_damage(depth: int) -> None:
    result = judged(b"[" * depth + b"]" * depth, LINKED)

    assert (result.grade, [p.kind for p in result.problems]) == (Grade.UNREADABLE, ["nesting"])


def test_data_of_ordinary_depth_meets_a_recursive_schema() -> None:
    assert judged(b"[" * 500 + b"]" * 500, LINKED).grade is Grade.GOOD
    assert judged(b"[" * 500 + b"1" + b"]" * 500, LINKED).grade is Grade.INVALID


@pytest.mark.parametrize(
    "schema", [{"type": "foo"}, {"pattern": "(["}, {"$ref": "http://192.0.2.1/x"}, {"const": {1, 2}}]
)
@pytest.mark.parametrize("child_above_bytes", [0, 1000])
def test_unusable_schema_says_nothing_about_the_data(schema: dict[str, object], child_above_bytes: int) -> None:
    result = check(b"[1]", CheckSpec(schema=schema), child_above_bytes=child_above_bytes)

    assert (result.grade, [p.kind for p in result.problems]) == (Grade.UNREADABLE, ["schema_unusable"])


def test_corrupt_text_never_reaches_the_schema() -> None:
    assert judged(b"[1", {"type": "foo"}).grade is Grade.CORRUPT
