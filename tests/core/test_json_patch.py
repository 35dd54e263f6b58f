import json

import pytest

from agent.core.json_patch import Change, How, explain, patch_text, pointer_to

CHANGES = (
    Change(("1", "coins"), How.COERCED, b'"4200"', b"4200"),
    Change(("2", "coins"), How.FROM_SNAPSHOT, b"-5", b"0.10"),
    Change(("2", "name"), How.FROM_SNAPSHOT, b'"hunter2"', b'"hunter3"'),
    Change(("3", "coins"), How.DEFAULT, None, b"0"),
    Change(("4", "x/~y"), How.REMOVED, b"true", None),
    Change((5,), How.RECORD_FROM_SNAPSHOT, b"null", b'{"token":\n"hunter2"}'),
)


def test_every_change_is_one_line_of_words() -> None:
    assert explain(CHANGES) == [
        "/1/coins: string -> number (written as the type that its schema wants)",
        "/2/coins: -5 -> 0.10 (taken from the restore point)",
        "/2/name: string -> string (taken from the restore point)",
        "/3/coins: nothing -> 0 (the schema's default)",
        "/4/x~1~0y: true -> nothing (removed)",
        "/5: null -> object (the whole record taken from the restore point)",
    ]


def test_words_stay_on_one_printable_line() -> None:
    lines = explain([Change(("a\n\x1b[2J",), How.REMOVED, b"9" * 5000, None)])

    assert lines == ["/a\\n\\x1b[2J: number -> nothing (removed)"]


def test_patch_has_an_operation_a_line_with_values_as_they_are_spelt() -> None:
    patch = patch_text(CHANGES)

    assert b'{"op": "replace", "path": "/2/coins", "value": 0.10},\n' in patch
    assert [(op["op"], op["path"]) for op in json.loads(patch)] == [
        ("replace", "/1/coins"),
        ("replace", "/2/coins"),
        ("replace", "/2/name"),
        ("add", "/3/coins"),
        ("remove", "/4/x~1~0y"),
        ("replace", "/5"),
    ]


def test_no_changes_are_an_empty_patch() -> None:
    assert json.loads(patch_text(())) == []


def test_no_value_shows_in_the_representation_of_a_change() -> None:
    assert "hunter" not in repr(CHANGES)


@pytest.mark.parametrize(("path", "pointer"), [((), ""), (("",), "/"), (("a/b", 0, "~1"), "/a~1b/0/~01")])
def test_pointer_escapes_its_steps(path: tuple[str | int, ...], pointer: str) -> None:
    assert pointer_to(path) == pointer
