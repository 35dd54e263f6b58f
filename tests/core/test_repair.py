import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks.schema_errors import schema_errors
from agent.core.json_patch import How
from agent.core.json_places import JsonText
from agent.core.repair import FieldRepair, SchemaError, coercions, repair_fields

INTEGER = {"type": "integer"}
USER: dict[str, Any] = {
    "type": "object",
    "required": ["coins"],
    "properties": {
        "coins": {"type": "integer", "minimum": 0, "default": 0},
        "name": {"type": "string"},
        "vip": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
USERS = {"type": "object", "additionalProperties": USER}


class Judge:
    """The real validator, counting how often it is asked."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.looks = 0

    def __call__(self, text: bytes) -> Sequence[SchemaError]:
        self.looks += 1
        return schema_errors(text, self.schema)


def repaired(data: bytes, schema: dict[str, Any], older: bytes | None = None) -> FieldRepair | None:
    return repair_fields(data, schema, older, find_errors=Judge(schema))


def outcome(data: bytes, schema: dict[str, Any], older: bytes | None = None) -> tuple[bytes, dict[str, str]] | None:
    repair = repaired(data, schema, older)
    return repair and (repair.data, {change.pointer: str(change.how) for change in repair.changes})


@pytest.mark.parametrize(
    ("data", "older", "result", "how"),
    [
        # a coercion keeps the newest value, so it comes before the restore point
        (b'{"1": {"coins": "4200"}}', b'{"1": {"coins": 7}}', b'{"1": {"coins": 4200}}', {"/1/coins": How.COERCED}),
        (b'{"1": {"coins": "4200.0"}}', None, b'{"1": {"coins": 4200}}', {"/1/coins": How.COERCED}),
        (b'{"1": {"coins": 1, "vip": "true"}}', None, b'{"1": {"coins": 1, "vip": true}}', {"/1/vip": How.COERCED}),
        (b'{"1": {"coins": 1, "name": 0.10}}', None, b'{"1": {"coins": 1, "name": "0.10"}}', {"/1/name": How.COERCED}),
        # a coerced value that is still wrong is not kept
        (b'{"1": {"coins": "-5"}}', b'{"1": {"coins": 7}}', b'{"1": {"coins": 7}}', {"/1/coins": How.FROM_SNAPSHOT}),
        (b'{"1": {"coins": "x"}}', b'{"1": {"coins": 7}}', b'{"1": {"coins": 7}}', {"/1/coins": How.FROM_SNAPSHOT}),
        (b'{"1": {}}', b'{"1": {"coins": 7}}', b'{"1": {"coins": 7}}', {"/1/coins": How.FROM_SNAPSHOT}),
        # a default only where the restore point knows nothing valid
        (b'{"1": {"coins": "x"}}', b'{"2": {"coins": 7}}', b'{"1": {"coins": 0}}', {"/1/coins": How.DEFAULT}),
        (b'{"1": {"coins": "x"}}', b'{"1": {"coins": -7}}', b'{"1": {"coins": 0}}', {"/1/coins": How.DEFAULT}),
        (b'{"1": {}}', None, b'{"1": {"coins": 0}}', {"/1/coins": How.DEFAULT}),
        # a field without which the record is valid
        (b'{"1": {"coins": 1, "name": []}}', None, b'{"1": {"coins": 1}}', {"/1/name": How.REMOVED}),
        (b'{"1": 5, "2": {"coins": 2}}', None, b'{"2": {"coins": 2}}', {"/1": How.REMOVED}),
        (
            b'{"1": {"coins": 1, "tags": ["a", null]}}',
            b'{"1": {"coins": 9, "tags": ["a", "b"]}}',
            b'{"1": {"coins": 1, "tags": ["a", "b"]}}',
            {"/1/tags/1": How.FROM_SNAPSHOT},
        ),
        (
            b'{"1": {"coins": 1, "tags": ["a", null]}}',
            b'{"1": {"coins": 9, "tags": ["a"]}}',
            b'{"1": {"coins": 1, "tags": ["a"]}}',
            {"/1/tags": How.RECORD_FROM_SNAPSHOT},
        ),
        (
            b'{"1": {"coins": 1, "tags": [null]}}',
            b'{"1": {"coins": 9}}',
            b'{"1": {"coins": 9}}',
            {"/1": How.RECORD_FROM_SNAPSHOT},
        ),
    ],
)
def test_the_way_that_loses_least_is_taken(
    data: bytes, older: bytes | None, result: bytes, how: dict[str, str]
) -> None:
    assert outcome(data, USERS, older) == (result, how)


@pytest.mark.parametrize(
    ("data", "schema", "older"),
    [
        (b'{"1": {"tags": [null]}}', {"additionalProperties": {"required": ["tags"], **USER}}, None),
        (b'{"1": {}}', {"additionalProperties": {"required": ["x"]}}, b'{"1": {"y": 1}}'),
        (b"[1]", {"type": "object", "default": {}}, b"{}"),
        (b'"x"', INTEGER, b"5"),
        (b"[]", {"minItems": 1}, b"[1]"),
        (b'[1, "x", 3]', {"items": INTEGER}, b"[1, 2]"),
        (b'{"a": 1, "a": "x"}', {"additionalProperties": INTEGER}, b'{"a": 1}'),
        (b'{"a": {"b": 1, "c": "x", "b": 2}}', {"additionalProperties": {"additionalProperties": INTEGER}}, None),
        (b'{"a": "x"', USERS, None),
        ('{"a": "x"}'.encode("utf-16"), USERS, None),
        (b"[" * 600 + b"]" * 600, {"type": "array"}, None),
        (b"1", {"type": "nonsense"}, b"1"),
        (b'{"+7": 1, "7": "x"}', {"additionalProperties": INTEGER}, None),
    ],
)
def test_what_cannot_be_mended_field_by_field_is_left_to_a_restore(
    data: bytes, schema: dict[str, Any], older: bytes | None
) -> None:
    assert repaired(data, schema, older) is None


def test_restore_point_that_is_no_json_gives_nothing() -> None:
    assert outcome(b'{"1": {}}', USERS, b'{"1": {"coins": 7}') == (b'{"1": {"coins": 0}}', {"/1/coins": How.DEFAULT})


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b'{"a": [NaN, 1e400, 123456789012345678], "n": "1"}', b'{"a": [NaN, 1e400, 123456789012345678], "n": 1}'),
        (b'\xef\xbb\xbf{"n": "1"}\r\n', b'\xef\xbb\xbf{"n": 1}\r\n'),
        (b'{"\\ud800": "\\udfff", "n": "1"}', b'{"\\ud800": "\\udfff", "n": 1}'),
        (b'{"\xed\xa0\x80": "\xff", "n": "1"}', b'{"\xed\xa0\x80": "\xff", "n": 1}'),
        (b'{"n" :\t"12345678901234567890" }', b'{"n" :\t12345678901234567890 }'),
    ],
)
def test_what_is_unusual_elsewhere_stays_as_it_is(data: bytes, result: bytes) -> None:
    repair = repaired(data, {"properties": {"n": INTEGER}})

    assert repair is not None
    assert repair.data == result


def test_values_of_the_restore_point_keep_their_spelling() -> None:
    schema = {"properties": {"a": {"type": "array"}, "b": {"type": "number"}}}

    repair = repaired(b'{"a": 1, "b": null}', schema, b'{"a": [1e400, 123456789012345678, "\\u00e9"], "b": 0.10}')

    assert repair is not None
    assert repair.data == b'{"a": [1e400, 123456789012345678, "\\u00e9"], "b": 0.10}'


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        (b'"4200"', {"integer"}, [b"4200"]),
        (b'"4200.0"', {"integer"}, [b"4200"]),
        (b'"4200.0"', {"number"}, [b"4200.0"]),
        (b'"0.10"', {"number"}, [b"0.10"]),
        (b'"123456789012345678901"', {"integer"}, [b"123456789012345678901"]),
        (b'"1e3"', {"number"}, [b"1e3"]),
        (b'"1e999"', {"number"}, []),
        (b'" 42"', {"integer"}, []),
        (b'"007"', {"integer"}, []),
        (b'"+5"', {"integer"}, []),
        (b'"5,000"', {"integer"}, []),
        (b'"\\u0034"', {"integer"}, []),
        ('"٤"'.encode(), {"integer"}, []),
        (b'"NaN"', {"number"}, []),
        (b'"' + b"9" * 401 + b'"', {"integer"}, []),
        (b'"false"', {"boolean"}, [b"false"]),
        (b'"True"', {"boolean"}, []),
        (b"4200.0", {"integer"}, [b"4200", b'"4200.0"']),
        (b"0.10", {"string"}, [b'"0.10"']),
        (b"1e3", {"string"}, []),
        (b"NaN", {"string"}, []),
        (b"true", {"string"}, []),
        (b"null", {"string"}, []),
        (b"{}", {"string"}, []),
    ],
)
def test_coercion_changes_the_type_and_no_digit(text: bytes, wanted: set[object], found: list[bytes]) -> None:
    assert coercions(text, wanted) == found


@pytest.mark.parametrize(
    ("data", "schema", "older", "result"),
    [
        # what hangs on another member is looked at after that member is mended
        (
            b'{"1": {"kind": "2", "v": "new"}}',
            {
                "additionalProperties": {
                    "properties": {"kind": INTEGER},
                    "if": {"properties": {"kind": {"const": 2}}},
                    "then": {"properties": {"v": {"type": "string"}}},
                    "else": {"properties": {"v": INTEGER}},
                }
            },
            b'{"1": {"kind": 1, "v": 5}}',
            b'{"1": {"kind": 2, "v": "new"}}',
        ),
        (
            b'{"1": {"kind": "2"}}',
            {
                "additionalProperties": {
                    "properties": {"kind": INTEGER},
                    "if": {"properties": {"kind": {"const": 2}}},
                    "then": {"required": ["p"], "properties": {"p": {"default": 3}}},
                }
            },
            b'{"1": {"kind": 1}}',
            b'{"1": {"kind": 2, "p": 3}}',
        ),
        # dependent fields
        (
            b'{"a": 1}',
            {"dependentRequired": {"a": ["b"]}, "properties": {"b": {"default": 2}}},
            None,
            b'{"a": 1, "b": 2}',
        ),
        (b'{"a": 1}', {"dependentSchemas": {"a": {"required": ["b"]}}}, b'{"b": 3}', b'{"a": 1, "b": 3}'),
        # members that are not allowed
        (b'{"a": 1, "x": 2}', {"properties": {"a": {}}, "additionalProperties": False}, b'{"x": 1}', b'{"a": 1}'),
        (b'{"a": 1, "x": 2}', {"properties": {"a": {}}, "unevaluatedProperties": False}, None, b'{"a": 1}'),
        (b'{"a": 1, "long": 2}', {"propertyNames": {"maxLength": 2}}, None, b'{"a": 1}'),
        (b'{"a": 1, "x": 2}', {"properties": {"x": False}}, b'{"x": 1}', b'{"a": 1}'),
        # a member is not thrown away for being unevaluated while something else is wrong
        (
            b'{"r": {"z": "x", "b": 1}}',
            {"properties": {"r": {"anyOf": [{"properties": {"z": INTEGER, "b": {}}}], "unevaluatedProperties": False}}},
            b'{"r": {"z": 5}}',
            b'{"r": {"z": 5, "b": 1}}',
        ),
        # alternatives
        (b'{"a": "5"}', {"additionalProperties": {"anyOf": [INTEGER, {"type": "null"}]}}, b'{"a": 1}', b'{"a": 5}'),
        (
            b'{"1": {"coins": "5", "name": "new"}}',
            {"additionalProperties": {"anyOf": [USER, {"type": "null"}]}},
            b'{"1": {"coins": 1, "name": "old"}}',
            b'{"1": {"coins": 5, "name": "new"}}',
        ),
        (
            b'{"1": {"x": []}}',
            {"additionalProperties": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}},
            b'{"1": {"a": 1}}',
            b'{"1": {"a": 1}}',
        ),
        (b'{"a": 0}', {"additionalProperties": {"not": {"const": 0}}}, b'{"a": 3}', b'{"a": 3}'),
        # a coercion that breaks what holds it is taken back
        (
            b'{"l": [5, "5", 9]}',
            {"properties": {"l": {"items": INTEGER, "uniqueItems": True}}},
            b'{"l": [5, 6, 7]}',
            b'{"l": [5, 6, 9]}',
        ),
        (
            b'{"r": {"a": []}}',
            {"properties": {"r": {"minProperties": 1, "properties": {"a": INTEGER}}}},
            b'{"r": {"b": 1}}',
            b'{"r": {"b": 1}}',
        ),
        # defaults beside and behind references, and of members of defaults
        (
            b'{"a": "x", "b": "x"}',
            {
                "properties": {"a": {"$ref": "#/$defs/n", "default": 1}, "b": {"$ref": "#/$defs/n"}},
                "$defs": {"n": {"type": "integer", "default": 2}},
            },
            None,
            b'{"a": 1, "b": 2}',
        ),
        (
            b"{}",
            {
                "required": ["wallet"],
                "properties": {"wallet": {"default": {}, "$ref": "#/$defs/wallet"}},
                "$defs": {
                    "wallet": {
                        "required": ["coins", "log"],
                        "properties": {"coins": {"default": 0}, "log": {"default": []}},
                    }
                },
            },
            None,
            b'{"wallet": {"coins": 0, "log": []}}',
        ),
        (
            b"{}",
            {"allOf": [{"required": ["n"]}, {"properties": {"n": {"allOf": [{"default": 4}]}}}]},
            None,
            b'{"n": 4}',
        ),
        (b'{"a": "x"}', {"properties": {"a": {"type": "integer", "default": "y"}}}, None, b"{}"),
        (b'{"a": "x"}', {"properties": {"a": {"type": "integer", "default": float("nan")}}}, None, b"{}"),
        # a schema names its members as it likes
        (b'{"then": "5"}', {"properties": {"then": INTEGER}}, None, b'{"then": 5}'),
        (b'{"7": "x"}', {"properties": {"7": {"type": "integer", "default": 3}}}, None, b'{"7": 3}'),
        (b'{"007": "x", "07": 1}', {"additionalProperties": INTEGER}, b'{"007": 5}', None),
    ],
)
def test_schema_of_every_kind_is_met(
    data: bytes, schema: dict[str, Any], older: bytes | None, result: bytes | None
) -> None:
    repair = repaired(data, schema, older)

    assert (repair and repair.data) == result


def test_recursive_schema_is_followed_as_deep_as_the_data() -> None:
    schema: dict[str, Any] = {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}, "v": {"type": "integer", "default": 1}}}},
    }
    data = b'{"next": ' * 150 + b'{"v": "x"}' + b"}" * 150

    repair = repaired(data, schema)

    assert repair is not None
    assert repair.data == data.replace(b'"x"', b"1")


def test_default_that_needs_itself_without_end_is_not_completed() -> None:
    node = {"default": {}, "required": ["next"], "properties": {"next": {"$ref": "#/$defs/node"}}}
    schema: dict[str, Any] = {"required": ["n"], "properties": {"n": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}

    assert repaired(b"{}", schema) is None


def test_record_is_taken_from_the_restore_point_as_near_as_possible() -> None:
    schema = {"properties": {"users": {"additionalProperties": {"required": ["token"]}}}}
    data = b'{"users": {"1": {"n": 1}, "2": {"token": 2, "n": "newest"}}}'
    older = b'{"users": {"1": {"token": 1, "n": 0}, "2": {"token": 2, "n": "old"}}}'
    broken = data.replace(b'"n": 1', b'"token": []').replace(b'{"token": []}', b'{"token": [], "n": 1}')
    schema["properties"]["users"]["additionalProperties"]["properties"] = {"token": INTEGER}  # type: ignore[dict-item]

    assert outcome(data, schema, older) == (
        data.replace(b'"n": 1', b'"n": 1, "token": 1'),
        {"/users/1/token": How.FROM_SNAPSHOT},
    )
    assert outcome(broken, schema, older) == (broken.replace(b"[]", b"1"), {"/users/1/token": How.FROM_SNAPSHOT})


def test_restore_point_of_before_a_schema_change_still_gives_its_values() -> None:
    schema = {
        "additionalProperties": {
            **USER,
            "required": ["coins", "level"],
            "properties": {**USER["properties"], "level": {"type": "integer", "default": 1}},
        }
    }

    assert outcome(b'{"1": 5, "2": {"level": 2}}', schema, b'{"1": {"coins": "70"}, "2": {"coins": "80"}}') == (
        b'{"1": {"coins": 70, "level": 1}, "2": {"level": 2, "coins": 80}}',
        {"/1": How.FROM_SNAPSHOT, "/2/coins": How.FROM_SNAPSHOT},
    )


def test_restore_point_without_the_field_does_not_lend_it_a_default() -> None:
    assert outcome(b'{"1": {}}', USERS, b'{"1": {"name": "a"}}') == (b'{"1": {"coins": 0}}', {"/1/coins": How.DEFAULT})


def test_items_are_known_again_by_their_id() -> None:
    schema = {"items": USER}
    data = b'[{"id": 3, "coins": 30}, {"id": 1, "coins": []}]'

    repair = repaired(data, schema, b'[{"id": 1, "coins": 10}, {"id": 2, "coins": 20}, {"id": 3, "coins": 29}]')

    assert repair is not None
    assert repair.data == b'[{"id": 3, "coins": 30}, {"id": 1, "coins": 10}]'


def test_validator_that_is_never_content_is_asked_a_bounded_number_of_times() -> None:
    looks = 0

    def never_content(text: bytes) -> list[SchemaError]:
        nonlocal looks
        looks += 1
        return [SchemaError((f"k{looks}",), "required", ("required",))]

    schema = {"properties": {f"k{n}": {"default": 0} for n in range(1000)}}

    assert repair_fields(b"{}", schema, None, find_errors=never_content) is None
    assert looks <= 100


def test_thousands_of_errors_take_few_looks() -> None:
    judge = Judge(USERS)
    data = json.dumps({str(n): {"coins": "x" if n % 2 else "5"} for n in range(3000)}).encode()

    repair = repair_fields(data, USERS, None, find_errors=judge)

    assert repair is not None
    assert len(repair.changes) == 3000
    assert judge.looks < 15


def test_two_megabytes_with_one_wrong_field_differ_there_and_nowhere_else() -> None:
    record = b'  "%d": {\n    "coins": %d,\n    "name": "\\u043f \xd0\xb8 %d",\n    "list": [1, 0.10, {"a": 1e2}]\n  }'
    older = b"{\n" + b",\n".join(record % (10**17 + n, n, n) for n in range(22_000)) + b"\n}\n"
    data = older.replace(b'"coins": 7777,', b'"coins": "x",').replace(b'"coins": 8888,', b'"coins": 8889,')

    repair = repaired(data, USERS, older)

    assert len(data) > 2_000_000
    assert repair is not None
    assert repair.data == data.replace(b'"coins": "x",', b'"coins": 7777,')
    assert json.loads(repair.patch) == [{"op": "replace", "path": f"/{10**17 + 7777}/coins", "value": 7777}]


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**70),
    st.sampled_from(["", "5", "4200", "-1", "0.10", "true", "12345678901234567890", "näme", "\ud800"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.sampled_from(["a", 1, None, "5"]), max_size=3),
    st.dictionaries(st.sampled_from(["coins", "id"]), st.integers(), max_size=2),
)
fields = ["coins", "name", "vip", "tags", "extra", "id"]
records = st.dictionaries(st.sampled_from(fields), values, max_size=5) | values
maps = st.dictionaries(st.sampled_from(["1", "2", "007", "a/b~", "ü", "10000000000000001"]), records, max_size=4)
lists = st.lists(records, max_size=4)
printers = st.sampled_from([{"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": True, "indent": "\t"}])
STRICT = {
    **USER,
    "additionalProperties": False,
    "properties": {**USER["properties"], "id": {"type": ["string", "null"]}},
}
SCHEMAS = [
    USERS,
    {"additionalProperties": STRICT, "maxProperties": 3},
    {"additionalProperties": {"anyOf": [STRICT, {"type": "null"}]}},
    {"items": STRICT, "uniqueItems": True, "type": "array"},
    {
        "type": "object",
        "additionalProperties": {"if": {"required": ["vip"]}, "then": {**USER, "required": ["name", "coins"]}},
    },
    {
        "additionalProperties": {
            "oneOf": [{"type": "object", "required": ["id"]}, {"type": "object", "required": ["coins"]}]
        }
    },
    {
        "additionalProperties": {
            "dependentRequired": {"name": ["coins"]},
            "unevaluatedProperties": INTEGER,
            "properties": {"name": {}, "coins": {"default": 1}},
        }
    },
]
schemas = st.sampled_from(SCHEMAS)


def printed(value: Any, printer: dict[str, Any]) -> bytes:
    return json.dumps(value, **printer).encode("utf-8", "surrogatepass")


def exact(text: bytes) -> Any:
    """The document with every number as it is spelt."""
    return json.loads(
        text.decode("utf-8", "surrogatepass"), parse_int=lambda s: ("n", s), parse_float=lambda s: ("n", s)
    )


def patched(document: Any, patch: Any) -> Any:
    for operation in patch:
        if operation["path"] == "":
            document = operation["value"]
            continue
        *way, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        holder = document
        for step in way:
            holder = holder[int(step) if isinstance(holder, list) else step]
        if operation["op"] == "remove":
            del holder[last]
        else:
            assert isinstance(holder, list) or (last in holder) is (operation["op"] == "replace")
            holder[int(last) if isinstance(holder, list) else last] = operation["value"]
    return document


@given(maps | lists, st.none() | maps | lists, schemas, printers)
def test_repaired_document_is_valid_and_needs_no_second_repair(
    value: Any, older: Any, schema: dict[str, Any], printer: dict[str, Any]
) -> None:
    repair = repaired(printed(value, printer), schema, None if older is None else printed(older, printer))

    if repair is not None:
        assert schema_errors(repair.data, schema) == []
        again = repaired(repair.data, schema, None if older is None else printed(older, printer))
        assert again == FieldRepair(repair.data, (), b"[\n]\n")


@given(maps | lists, st.none() | maps | lists, schemas, printers)
def test_patch_leads_from_the_damaged_document_to_the_repaired_one(
    value: Any, older: Any, schema: dict[str, Any], printer: dict[str, Any]
) -> None:
    data = printed(value, printer)

    repair = repaired(data, schema, None if older is None else printed(older, printer))

    if repair is not None:
        assert patched(exact(data), exact(repair.patch)) == exact(repair.data)


@given(maps | lists, st.none() | maps | lists, schemas, printers)
def test_bytes_outside_of_the_changed_values_are_untouched(
    value: Any, older: Any, schema: dict[str, Any], printer: dict[str, Any]
) -> None:
    data = printed(value, printer)

    repair = repaired(data, schema, None if older is None else printed(older, printer))

    if repair is not None and all(change.before and change.after for change in repair.changes):
        text, expected = JsonText(data), data
        for change in reversed(repair.changes):
            place = text.find(change.at)
            assert place is not None
            assert change.after is not None
            expected = expected[: place.value] + change.after + expected[place.end :]
        assert repair.data == expected


@given(maps | lists, schemas, printers)
def test_valid_document_is_not_changed(value: Any, schema: dict[str, Any], printer: dict[str, Any]) -> None:
    data = printed(value, printer)

    if not schema_errors(data, schema):
        assert repaired(data, schema, b"{}") == FieldRepair(data, (), b"[\n]\n")


@given(maps, maps, schemas)
def test_valid_records_keep_their_newest_state(value: Any, older: Any, schema: dict[str, Any]) -> None:
    data = printed(value, {})

    repair = repaired(data, schema, printed(older, {}))

    if repair is not None and "maxProperties" not in schema:
        wrong = {error.at[0] for error in schema_errors(data, schema)}
        before, after = exact(data), exact(repair.data)
        assert all(after[key] == before[key] for key in before if key not in wrong)


@given(maps | lists, st.none() | maps | lists, schemas)
def test_same_input_gives_the_same_repair(value: Any, older: Any, schema: dict[str, Any]) -> None:
    data, point = printed(value, {}), None if older is None else printed(older, {})

    assert repaired(data, schema, point) == repaired(data, schema, point)
