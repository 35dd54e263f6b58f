import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place import Place

from agent.checks.json_schema import schema_grade
from agent.commands.inference import infer_schema
from agent.core.model import Grade

KEYS = st.sampled_from(["1", "2", "123456789012345678", "name", "level", "2024-01-01"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


def infer(document: Any) -> dict[str, Any]:
    schema = infer_schema(json.dumps(document).encode())
    del schema["$schema"]
    return schema


@settings(deadline=None)  # the machine may be busy
@given(JSON)
def test_every_document_fits_the_schema_inferred_from_it(document: Any) -> None:
    assert schema_grade(json.dumps(document).encode(), infer(document))[0] is Grade.GOOD


def test_map_keyed_by_ids_has_one_schema_for_every_member() -> None:
    schema = infer({"1": {"cartridge": 3}, "20": {"cartridge": 5.5}})

    assert schema == {
        "type": "object",
        "additionalProperties": {
            "type": "object", "properties": {"cartridge": {"type": "number"}}, "required": ["cartridge"],
        },
    }  # fmt: skip


def test_ids_beside_fixed_keys_become_a_pattern() -> None:
    schema = infer({"version": 2, "123456789012345678": {"a": "x"}, "223456789012345678": {"a": "y"}})

    assert list(schema["patternProperties"]) == ["^[0-9]+$"]
    assert schema["properties"] == {"version": {"type": "number"}}


def test_map_inside_records_is_seen_too() -> None:
    schema = infer({"1": {"guilds": {"11": 1, "12": 2}}, "2": {"guilds": {}}})

    guilds = schema["additionalProperties"]["properties"]["guilds"]
    assert guilds == {"type": "object", "additionalProperties": {"type": "number"}}


def test_map_of_names_is_seen_by_its_records() -> None:
    schema = infer({name: {"hp": 1, "level": 2} for name in ("ann", "bob", "cyd", "dan", "eve")})

    assert schema["additionalProperties"]["required"] == ["hp", "level"]


def test_object_with_fixed_keys_keeps_them() -> None:
    assert infer({"prefix": "!", "volume": 3})["required"] == ["prefix", "volume"]


def test_key_that_one_record_lacks_is_not_required() -> None:
    schema = infer({"1": {"a": 1, "b": 2}, "2": {"a": 3}, "3": {}})

    assert "required" not in schema["additionalProperties"]


def test_what_was_only_ever_null_may_become_anything() -> None:
    assert infer({"welcome": None})["properties"]["welcome"] == {}


def test_schema_infer_prints_the_schema_of_a_file(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    from agent.cli import main

    assert main(["schema", "infer", "data/users.json"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema_grade((place.data / "users.json").read_bytes(), schema)[0] is Grade.GOOD


@pytest.mark.parametrize(("content", "code"), [(b'{"1":', 1), (None, 2)])
def test_schema_infer_refuses_what_is_no_good_document(
    place: Place, capsys: pytest.CaptureFixture[str], content: bytes | None, code: int
) -> None:
    from agent.cli import main

    if content is not None:
        place.write("bad.json", content)

    assert main(["schema", "infer", "data/bad.json"]) == code
    assert "hint: " in capsys.readouterr().err


def test_without_the_library_the_extra_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genson", None)
    from agent.cli import main

    assert main(["schema", "infer", "data/users.json"]) == 1
    assert main(["init", "--schemas"]) == 1
    assert "backup-agent[infer]" in place.capsys.readouterr().err
    assert not (place.root / "backup-agent.yaml").exists()


def test_schema_infer_finds_a_file_by_its_name_in_the_data_folder(place: Place) -> None:
    assert place.json("schema", "infer", "users.json") == place.json("schema", "infer", "data/users.json")
