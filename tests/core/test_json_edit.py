import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.core.json_edit import with_edits, written_like
from agent.core.json_places import AmbiguousKeyError, JsonText, Path

INDENTED = b'{\n  "a": {\n    "x": 1,\n    "y": [1, 2]\n  },\n  "b": {}\n}\n'
TABBED = b'{\r\n\t"a": {\r\n\t\t"x": 1\r\n\t},\r\n\t"b": []\r\n}\r\n'
COMPACT = b'{"a":{"x":1},"b":{}}'
SPACED = b'{"a": {"x": 1}, "b": {}}'


def edit(text: bytes, **edits: bytes | None) -> bytes:
    """Each keyword is a pointer with `_` for `/`."""
    document = JsonText(text)
    return with_edits(document, {document.resolve(name.replace("_", "/")): value for name, value in edits.items()})


@pytest.mark.parametrize(
    ("text", "edits", "result"),
    [
        (INDENTED, {"_a_x": b"12345678901234567890"}, INDENTED.replace(b'"x": 1', b'"x": 12345678901234567890')),
        (INDENTED, {"_a_y_0": b"9", "_b": b"null"}, INDENTED.replace(b"[1,", b"[9,").replace(b"{}", b"null")),
        (INDENTED, {"": b"[]"}, b"[]\n"),
        (INDENTED, {"_a_z": b"0"}, INDENTED.replace(b"[1, 2]", b'[1, 2],\n    "z": 0')),
        (INDENTED, {"_b_z": b"0"}, INDENTED.replace(b"{}", b'{\n    "z": 0\n  }')),
        (INDENTED, {"_a_y_-": b"3"}, INDENTED.replace(b"2]", b"2, 3]")),
        (INDENTED, {"_c": b"3"}, INDENTED.replace(b"{}\n", b'{},\n  "c": 3\n')),
        (TABBED, {"_a_z": b"0"}, TABBED.replace(b"1\r\n", b'1,\r\n\t\t"z": 0\r\n')),
        (TABBED, {"_b_0": b"0"}, TABBED.replace(b"[]", b"[\r\n\t\t0\r\n\t]")),
        (COMPACT, {"_a_z": b"0"}, b'{"a":{"x":1,"z":0},"b":{}}'),
        (COMPACT, {"_b_z": b"0"}, b'{"a":{"x":1},"b":{"z":0}}'),
        (SPACED, {"_a_z": b"0"}, b'{"a": {"x": 1, "z": 0}, "b": {}}'),
        (SPACED, {"_b_z": b"0"}, b'{"a": {"x": 1}, "b": {"z": 0}}'),
        (b"{}", {"_a": b"1"}, b'{"a": 1}'),
        (b" [ ] ", {"_0": b"1", "_1": b"2"}, b" [ ] "[:2] + b"1, 2] "),
        (b"{ }", {"_\u00e9": b"1"}, b'{"\\u00e9": 1}'),
        ('{"ü": 1}'.encode(), {"_é": b"1"}, '{"ü": 1, "é": 1}'.encode()),
        (b"[1, 2]", {"_1": b"[\n1]", "_2": b"3"}, b"[1, [\n1], 3]"),
    ],
)
def test_values_are_replaced_and_added_in_the_style_of_their_siblings(
    text: bytes, edits: dict[str, bytes | None], result: bytes
) -> None:
    assert edit(text, **edits) == result


@pytest.mark.parametrize(
    ("removed", "result"),
    [
        ("a", b'{\n "b": 2,\n "c": 3,\n "d": 4\n}'),
        ("b", b'{\n "a": 1,\n "c": 3,\n "d": 4\n}'),
        ("d", b'{\n "a": 1,\n "b": 2,\n "c": 3\n}'),
        ("ab", b'{\n "c": 3,\n "d": 4\n}'),
        ("bc", b'{\n "a": 1,\n "d": 4\n}'),
        ("ac", b'{\n "b": 2,\n "d": 4\n}'),
        ("cd", b'{\n "a": 1,\n "b": 2\n}'),
        ("abd", b'{\n "c": 3\n}'),
        ("abcd", b"{}"),
    ],
)
def test_removed_members_take_one_comma_each_along(removed: str, result: bytes) -> None:
    text = JsonText(b'{\n "a": 1,\n "b": 2,\n "c": 3,\n "d": 4\n}')

    assert with_edits(text, {(key,): None for key in removed}) == result


@pytest.mark.parametrize(
    ("edits", "result"),
    [
        ({"_b": None, "_c": b"3"}, b'{"a": 1, "c": 3}'),
        ({"_a": None, "_b": None, "_c": b"3"}, b'{"c": 3}'),
        ({"_a": None, "_b": b"5", "_c": b"3"}, b'{"b": 5, "c": 3}'),
    ],
)
def test_removal_replacement_and_addition_in_one_object_go_together(
    edits: dict[str, bytes | None], result: bytes
) -> None:
    assert edit(b'{"a": 1, "b": 2}', **edits) == result


def test_items_are_removed_by_the_indexes_of_the_text() -> None:
    assert edit(b"[0, 1, 2, 3]", _0=None, _2=None, _3=b"9") == b"[1, 9]"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b'{"a": {"k": 1, "k": 2}}', ("a", "k")),
        (b'{"a": {"k": 1, "k": 2}}', ("a", "new")),
        (b'{"a": 1, "a": {"k": 2}}', ("a", "k")),
        (b'{"a": {"k": 1, "\\u006b": 2}}', ("a", "k")),
        (b'{"\\ud800": 1, "\\udfff": 2}', ("\ufffd",)),
    ],
)
def test_key_that_is_written_twice_is_refused(text: bytes, path: Path) -> None:
    with pytest.raises(AmbiguousKeyError):
        with_edits(JsonText(text), {path: b"0"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("missing", "k"), b"0"),
        (("n", "k"), b"0"),
        (("k",), None),
        ((0,), b"0"),
        (("list", "k"), b"0"),
        (("list", 4), b"0"),
        (("list", 2), None),
        ((), None),
    ],
)
def test_place_that_cannot_hold_a_value_is_refused(path: Path, value: bytes | None) -> None:
    with pytest.raises(LookupError):
        with_edits(JsonText(b'{"n": 5, "list": [1, 2]}'), {path: value})


@pytest.mark.parametrize(
    ("text", "path", "written"),
    [
        (INDENTED, ("a", "x"), b'{\n      "k": [\n        1,\n        2\n      ]\n    }'),
        (TABBED, ("b",), b'{\r\n\t\t"k": [\r\n\t\t\t1,\r\n\t\t\t2\r\n\t\t]\r\n\t}'),
        (COMPACT, ("a", "x"), b'{"k":[1,2]}'),
        (SPACED, ("b",), b'{"k": [1, 2]}'),
        (b"5", (), b'{"k": [1, 2]}'),
    ],
)
def test_value_is_written_as_the_document_would(text: bytes, path: Path, written: bytes) -> None:
    assert written_like(JsonText(text), {"k": [1, 2]}, path) == written


def test_written_text_keeps_to_ascii_where_the_document_does() -> None:
    assert written_like(JsonText(b"{}"), "é\n", ()) == b'"\\u00e9\\n"'
    assert written_like(JsonText('"ü"'.encode()), "é\n", ()) == '"é\\n"'.encode()


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_value_that_json_does_not_have_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        written_like(JsonText(b"{}"), value, ())


@pytest.mark.parametrize("depth", [1000, 50_000])
def test_deep_nesting_is_no_obstacle(depth: int) -> None:
    text = JsonText(b'{"a": ' + b"[" * depth + b'"]"' + b"]" * depth + b', "b": 1}')

    assert with_edits(text, {("b",): b"2"}) == text.text.replace(b'"b": 1', b'"b": 2')


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text('a"\\/é😀{[,: \n')
keys = st.text('ab"\\/~é{,: ', max_size=3)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)
layouts = st.builds(
    dict,
    indent=st.sampled_from([None, 1, 2, "\t"]),
    ensure_ascii=st.booleans(),
    separators=st.sampled_from([None, (",", ":"), (" , ", " : ")]),
)


printers = st.sampled_from([{"indent": 2}, {"indent": "\t"}, {"separators": (",", ":")}, {}])


def places(value: Any, path: Path = ()) -> list[Path]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for step, child in children for place in places(child, (*path, step)))]


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any, *, remove: bool = False) -> Any:
    """The plain meaning of an edit, on values."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    step: Any = path[0]
    if len(path) == 1 and remove:
        del copy[step]
    elif isinstance(copy, list) and step == len(copy):
        copy.append(new)
    else:
        copy[step] = put(copy[step], path[1:], new, remove=remove) if len(path) > 1 else new
    return copy


def draw_edit(data: st.DataObject, value: Any) -> tuple[Path, bool]:
    """A place to replace, to remove or to add a value at."""
    path = data.draw(st.sampled_from(places(value)))
    here = at(value, path)
    what = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if what == "add" and isinstance(here, dict | list):
        path = (*path, len(here) if isinstance(here, list) else data.draw(keys.filter(lambda key: key not in here)))
    return path, what == "remove" and path != ()


@given(documents, layouts, st.data())
def test_every_value_is_found_where_it_stands(value: Any, layout: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(value)))

    found = JsonText(json.dumps(value, **layout).encode()).value(path)

    assert found is not None
    assert json.loads(found) == at(value, path)


@given(documents, documents, layouts, st.data())
def test_edited_text_means_the_edited_value(value: Any, new: Any, layout: dict[str, Any], data: st.DataObject) -> None:
    text = JsonText(json.dumps(value, **layout).encode())
    path, remove = draw_edit(data, value)

    edited = with_edits(text, {path: None if remove else written_like(text, new, path)})

    assert json.loads(edited) == put(value, path, new, remove=remove)


@given(documents, documents, printers, st.data())
def test_edited_text_is_what_the_printer_of_the_bot_would_write(
    value: Any, new: Any, printer: dict[str, Any], data: st.DataObject
) -> None:
    root = {"first": {"k": 1}, "value": value}
    text = JsonText(json.dumps(root, **printer).encode())
    path, remove = draw_edit(data, root)
    assume(path and path[0] != "first")

    edited = with_edits(text, {path: None if remove else written_like(text, new, path)})

    assert edited.decode() == json.dumps(put(root, path, new, remove=remove), **printer)


@given(documents, layouts, st.data())
def test_replaced_value_leaves_every_other_byte_alone(value: Any, layout: dict[str, Any], data: st.DataObject) -> None:
    text = JsonText(json.dumps(value, **layout).encode() + b"\n")
    path = data.draw(st.sampled_from(places(value)))
    place = text.find(path)
    assert place is not None

    edited = with_edits(text, {path: b'"new"'})

    assert edited == text.text[: place.value] + b'"new"' + text.text[place.end :]
