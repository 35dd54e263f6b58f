import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.difference import Comparison, compare, lines, patch_text, sentence, shown
from agent.core.json_record import open_document

KEYS = st.sampled_from(["a", "b", "~/x", "", "ü"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "a", "é"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def compared(before: bytes, after: bytes) -> Comparison:
    return compare(open_document(before), open_document(after))


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def exact(text: bytes) -> Any:
    return json.loads(text, parse_int=lambda n: ("n", n), parse_float=lambda n: ("n", n))


def apply(value: Any, patch: list[dict[str, Any]]) -> Any:
    """RFC 6902, as far as `add`, `remove` and `replace`."""
    holder = {"": value}
    for operation in patch:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")]
        target: Any = holder
        for step in steps[:-1]:
            target = target[int(step)] if isinstance(target, list) else target[step]
        last: Any = int(steps[-1]) if isinstance(target, list) else steps[-1]
        if operation["op"] == "remove":
            del target[last]
        elif operation["op"] == "add" and isinstance(target, list):
            assert 0 <= last <= len(target)
            target.insert(last, operation["value"])
        else:
            assert operation["op"] == "add" or isinstance(target, list) or last in target
            target[last] = operation["value"]
    return holder[""]


@settings(deadline=None)
@given(VALUES, VALUES)
def test_the_patch_applied_to_one_gives_the_other(before: object, after: object) -> None:
    patch = exact(patch_text(compared(dumped(before), dumped(after))))

    assert apply(exact(dumped(before)), patch) == exact(dumped(after))


@settings(deadline=None)
@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_equal_values_have_no_difference_however_they_are_written(value: object, indent: Any, escaped: bool) -> None:
    other = json.dumps(value, indent=indent, ensure_ascii=escaped, sort_keys=True).encode()

    assert compared(dumped(value), other).differences == ()


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5), st.dictionaries(KEYS, VALUES, max_size=5))
def test_every_record_is_unchanged_changed_or_removed(before: dict[str, object], after: dict[str, object]) -> None:
    found = compared(dumped(before), dumped(after))

    assert found.unchanged_count == sum(
        1 for key in before if key in after and exact(dumped(before[key])) == exact(dumped(after[key]))
    )
    assert set(found.removed) == before.keys() - after.keys()
    assert set(found.added) == after.keys() - before.keys()


def test_numbers_are_told_apart_that_one_float_stands_for() -> None:
    found = compared(b'{"a": {"coins": 9007199254740993}}', b'{"a": {"coins": 9007199254740992}}')

    assert sentence(found).endswith("1 changed (a): coins 9007199254740993 → 9007199254740992")
    assert b"9007199254740992" in patch_text(found)


def test_an_item_that_goes_from_the_middle_is_one_difference() -> None:
    assert list(lines(compared(b"[1, 2, 3, 4]", b"[1, 3, 4]"))) == ["- /1: 2"]


def test_the_sentence_says_what_became_of_the_records() -> None:
    before = {str(n): {"cartridge": n} for n in range(500)}
    after = {**before, "42": {"cartridge": 0}}
    del after["17"]

    told = sentence(compared(dumped(before), dumped(after)))

    assert told == "498 of 500 records unchanged; 1 removed (17); 1 changed (42): cartridge 42 → 0"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (b"{}", b" { } ", "the same records; only how they are written differs"),
        (b"{}", b"[]", "another document altogether"),
        (b"1", b"2", "another document altogether"),
        (b'{"a": 1}', b'{"a": 2}', "0 of 1 record unchanged; 1 changed (a): 1 → 2"),
        (b'{"a": 1, "a": 2}', b'{"a": 2}', "another document altogether"),
        (
            b"{}",
            dumped(dict.fromkeys("abcde", 1)),
            "0 of 0 records unchanged; 5 added (a, b, c, … 2 more)",
        ),
    ],
)
def test_what_has_no_records_in_common_is_said_in_words(before: bytes, after: bytes, told: str) -> None:
    assert sentence(compared(before, after)) == told


def test_a_long_value_is_cut_and_stays_on_one_line() -> None:
    assert shown(b'{\n  "a": "' + b"x" * 10_000 + b'"\n}') == '{ "a": "' + "x" * 52 + "…"


def test_very_deep_documents_are_compared_without_end_of_the_stack() -> None:
    deep = b"[" * 3000 + b"1" + b"]" * 3000

    assert len(compared(deep, deep.replace(b"1", b"2")).differences) == 1
