"""Members of any size are counted with little effort: the exact judge would take minutes for the largest texts."""

import json

import pytest

from agent.checks import check, json_format, json_members
from agent.checks.json_members import count_members
from agent.core.json_text import Document, read_document
from agent.core.model import CheckSpec, Grade

SMALL = b'{"a": 1, "b": "x, y"}, '


def member(size: int) -> bytes:
    """Return an array of about `size` bytes that is full of small objects."""
    return b"[" + SMALL * (size // len(SMALL)) + b"0]"


def count(text: bytes | bytearray | memoryview) -> int | None:
    found = read_document(bytes(text))
    return found.records if isinstance(found, Document) else None


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of a piece were searched through, each time."""
    sizes: list[int] = []
    search = json_members._shallowest_comma

    def noted(piece: bytearray, start: int) -> int:
        sizes.append(len(piece) - start)
        return search(piece, start)

    monkeypatch.setattr(json_members, "_shallowest_comma", noted)
    return sizes


def test_large_member_does_not_lengthen_the_searches_after_it(searches: list[int]) -> None:
    text = b"[" + SMALL * 5000 + member(60_000) + b", " + SMALL * 50_000 + b"0]"

    assert count_members(text, count, piece_bytes=128 << 10) == 55_002
    assert len(searches) > 8
    assert sum(size > 8 << 10 for size in searches) == 1


def test_large_members_are_passed_over_whole_in_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = []
    found = json_members._tokens
    monkeypatch.setattr(json_members, "_tokens", lambda *where: (tokens.append(t) or t for t in found(*where)))
    whole = b"[" + b", ".join([member(30_000)] * 4)

    assert json_members._shallowest_comma(bytearray(whole + b", [" + SMALL), 0) == len(whole)
    assert len(tokens) < 20


def test_too_many_long_searches_are_not_made(searches: list[int]) -> None:
    text = b"[" + b", ".join([member(60_000)] * 30) + b"]"

    assert count_members(text, count, piece_bytes=128 << 10, long_searches=2) is None
    assert sum(size > 8 << 10 for size in searches) == 3


@pytest.mark.parametrize("size", [20_000, 100_000, 300_000, 900_000])
def test_members_of_any_size_below_a_mebibyte_are_told_without_the_exact_judge(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def unwanted(*_: object, **__: object) -> None:
        raise AssertionError("the exact judge was asked")

    monkeypatch.setattr(json_format, "read_document", unwanted)
    monkeypatch.setattr(json_members, "_COMMAS_MAX", 1000)
    text = b'{"k": ' + b', "k": '.join([member(size)] * (4_500_000 // size)) + b"}"

    found = check(text, CheckSpec(), child_above_bytes=len(text), wants_warnings=False)

    assert found.grade is Grade.GOOD
    assert found.shape is not None
    assert found.shape.root == "object"


@pytest.mark.parametrize("opener", [b"[", b"{"])
def test_strings_full_of_brackets_are_no_hindrance(opener: bytes) -> None:
    odd = json.dumps('"]},{[\\",' * 50).encode()
    one = odd + b": [" + odd + b", {" + odd + b": [[[[" + odd + b"]]]]}]" if opener == b"{" else odd
    text = opener + b", ".join([one] * 500) + (b"}" if opener == b"{" else b"]")

    assert count_members(text, count, piece_bytes=20_000) == 500
