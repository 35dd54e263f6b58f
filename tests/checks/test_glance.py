"""Damage that is seen at the ends of a text: whatever is named so is damage to every judge, and has no repair."""

import json
import random
from pathlib import Path

import pytest

from agent.checks import check, glance
from agent.core.model import CheckSpec, Grade, Parser
from agent.core.reading import sole_reading

DOCUMENT = json.dumps({f"ä{i}": [i, -0.5e3, "x, y", None, {"deep": [[True]]}] for i in range(3)}, ensure_ascii=False)
TOKENS = [b"{", b"}", b"[", b"]", b'"', b",", b":", b" ", b"\n", b"1", b"-", b"e", b"NaN", b"null", b'"a":', b"\\"]
TOKENS += [b"\0", b"\xff", b"\xef\xbb\xbf", b"\x0b", b"\x0c", b"x"]


def is_damage_without_a_repair(text: bytes, parser: Parser) -> bool:
    result = check(text, CheckSpec(parser=parser))
    flaw = next((problem.kind for problem in result.problems), None)
    return result.grade is Grade.CORRUPT and sole_reading(text, parser=parser, flaw=flaw) is None


@pytest.mark.parametrize("parser", list(Parser))
@pytest.mark.parametrize("ending", [b"", b"\n", b"\0", b"\x0c", b" " * 70, b'{"a": 1', b"}", b"\xff", b"NaN"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32"])
def test_what_is_named_of_a_cut_text_is_damage_to_every_parser_and_has_no_repair(
    parser: Parser, ending: bytes, encoding: str
) -> None:
    whole = DOCUMENT.encode(encoding)
    texts = [whole[:cut] + ending for cut in range(len(whole) + 1)]
    if encoding == "utf-8":
        texts += [whole + text for text in texts]

    named = [text for text in texts if glance(text) is not None]

    assert all(is_damage_without_a_repair(text, parser) for text in named)


@pytest.mark.parametrize("parser", list(Parser))
def test_what_is_named_of_token_soup_is_damage_and_has_no_repair(parser: Parser) -> None:
    draw = random.Random(7)
    soup = [b"".join(draw.choices(TOKENS, k=draw.randrange(1, 12))) for _ in range(4_000)]

    named = [text for text in soup if glance(text) is not None]

    assert len(named) > 100
    assert all(is_damage_without_a_repair(text, parser) for text in named)


@pytest.mark.parametrize("cut", range(1, 60))
def test_object_that_was_cut_short_is_named_in_memory_and_on_the_disk(tmp_path: Path, cut: int) -> None:
    text = json.dumps({"players": ["x" * 9] * 40, "n": 12345})[:-cut].encode()
    (tmp_path / "copy").write_bytes(text)

    seen = glance(text)

    assert seen == glance(tmp_path / "copy")
    assert (seen is None) == text.endswith(b"]")
    if seen is not None:
        assert (seen.grade, seen.problems[0].kind) == (Grade.CORRUPT, "truncated")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"12",
        b'"a"',
        b"nul",
        b'{"a": 1}',
        b"[1]\n",
        b'{"a": 1' + b" " * 99,
        b'{"a": 1}\0',
        "{".encode("utf-16"),
    ],
)
def test_text_whose_ends_prove_nothing_is_left_to_the_check(text: bytes) -> None:
    assert glance(text) is None
