import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.guard import SuspectThresholds, find_collapse
from agent.core.model import Shape

DEFAULTS = SuspectThresholds()


def shape(root: str = "object", records: int | None = 10, size_bytes: int = 2000) -> Shape:
    return Shape(size_bytes, root, records)


def kinds(now: Shape, last_good: Shape, thresholds: SuspectThresholds = DEFAULTS) -> list[str]:
    return [problem.kind for problem in find_collapse(now, last_good, thresholds)]


def shapes() -> st.SearchStrategy[Shape]:
    sizes = st.integers(1, 10**7)
    holders = st.builds(Shape, sizes, st.sampled_from(["object", "array"]), st.integers(0, 10**5))
    return holders | st.builds(Shape, sizes, st.sampled_from(["string", "number", "boolean", "null"]), st.none())


@pytest.mark.parametrize(
    ("now", "last_good", "expected"),
    [
        (shape(records=0, size_bytes=2), shape(), ["emptied"]),
        (shape(records=0, size_bytes=2), shape(records=1, size_bytes=9), ["emptied"]),
        (shape("array", 0, 2), shape(), ["emptied"]),
        (shape("null", None, 4), shape(), ["emptied"]),
        (shape("null", None, 4), shape("string", None), ["emptied"]),
        (shape(records=0, size_bytes=2), shape(records=0, size_bytes=2), []),
        (shape("array"), shape(), ["root_changed"]),
        (shape("array", 0, 2), shape(records=0, size_bytes=2), ["root_changed"]),
        (shape("string", None), shape(), ["root_changed"]),
        (shape(records=5), shape(records=10), []),
        (shape(records=4), shape(records=10), ["fewer_records"]),
        (shape(records=2), shape(records=5), ["fewer_records"]),
        (shape(records=1), shape(records=4), []),
        (shape(size_bytes=1000), shape(size_bytes=2000), []),
        (shape(size_bytes=999), shape(size_bytes=2000), ["fewer_bytes"]),
        (shape(size_bytes=511), shape(size_bytes=1024), ["fewer_bytes"]),
        (shape(size_bytes=10), shape(size_bytes=1023), []),
        (shape("string", None, 10), shape("string", None, 5000), ["fewer_bytes"]),
        (shape(records=1, size_bytes=10), shape(), ["fewer_records", "fewer_bytes"]),
    ],
)
def test_collapse_is_named_only_beyond_the_thresholds(now: Shape, last_good: Shape, expected: list[str]) -> None:
    assert kinds(now, last_good) == expected


def test_disabled_guard_suspects_nothing() -> None:
    assert kinds(shape(records=0, size_bytes=2), shape(), SuspectThresholds(enabled=False)) == []


def test_stricter_fraction_suspects_a_smaller_loss() -> None:
    assert kinds(shape(records=8), shape(records=10), SuspectThresholds(min_fraction=0.9)) == ["fewer_records"]


@given(shapes())
def test_equal_shape_is_never_suspect(state: Shape) -> None:
    assert kinds(state, state) == []


@given(shapes(), st.integers(0, 1000), st.integers(0, 10**6))
def test_growth_is_never_suspect(before: Shape, more_records: int, more_bytes: int) -> None:
    records = None if before.records is None else before.records + more_records
    grown = Shape(before.size_bytes + more_bytes, before.root, records)

    assert kinds(grown, before) == []


@given(shapes(), shapes())
def test_what_is_empty_already_cannot_be_emptied(now: Shape, before: Shape) -> None:
    nothing = Shape(before.size_bytes, "object", 0)

    assert "emptied" not in kinds(now, nothing)


@given(shapes(), shapes(), st.integers(0, 1000))
def test_losing_more_is_never_less_suspect(now: Shape, before: Shape, lost: int) -> None:
    smaller = Shape(max(1, now.size_bytes - lost), now.root, now.records)

    assert not find_collapse(now, before, DEFAULTS) or find_collapse(smaller, before, DEFAULTS)
