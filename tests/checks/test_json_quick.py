"""What the quickest look reads is read alike by everybody else; where it is not there, or says no, nothing changes."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_json_runtimes import TOKENS, document, mutated, needs_node, read_by_node, read_by_python, texts

from agent.checks import check, json_quick
from agent.checks.json_quick import read_quickly
from agent.core.json_text import Document, read_document
from agent.core.model import CheckSpec, Grade, Parser, Shape

pytest.importorskip("simdjson", reason="it is not installed everywhere")

LARGE = json.dumps({f"k{i}": {"name": "x" * 50, "n": [i, {}]} for i in range(3000)}).encode()
PIECES = (20, 60, 200, 1 << 18)


@contextmanager
def quick_from(size: int, *, piece: int = 1 << 18) -> Iterator[None]:
    """Texts from `size` bytes on get the quick look, in pieces of `piece`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_quick, "_FROM_BYTES", size)
        patch.setattr(json_quick, "_PIECE_BYTES", piece)
        yield


def many(count: int, *, seed: int) -> Iterator[bytes]:
    """Yield texts with more members in their root than `texts` has, some of them damaged, and then those."""
    rng = random.Random(seed)
    for number in range(count // 2):
        members = [document(rng, 3) for _ in range(rng.randrange(1, 20))]
        root = members if number % 2 else {f"{rng.randrange(99)}": member for member in members}
        text = json.dumps(root, ensure_ascii=rng.random() < 0.3, indent=rng.choice([None, None, 1]))
        if number % 8:  # one of these is enough for a text to be refused
            text = text.replace("\ud800", "\u00e9").replace("\\ud800", "\\u00e9")
        whole = text.encode("utf-8", "surrogatepass")
        yield whole if rng.random() < 0.3 else mutated(rng, whole)
    yield from texts(count // 2, seed=seed)


def agrees_with_the_exact_judge(text: bytes) -> bool:
    """Whether the quick look reads it; it fails where that reads what the exact judge does not, or reads it otherwise."""
    quick = read_quickly(text)
    if quick is not None:
        text.decode()
        exact = read_document(text)
        assert isinstance(exact, Document), text
        assert (quick.root, quick.records, quick.end_offset) == (exact.root, exact.records, len(text)), text
    return quick is not None


@pytest.mark.parametrize("piece", PIECES)
def test_what_is_read_quickly_is_read_by_the_exact_judge(piece: int) -> None:
    with quick_from(0, piece=piece):
        read = sum(agrees_with_the_exact_judge(text) for text in many(3000, seed=piece))

    assert 50 < read < 2700


@given(st.lists(st.sampled_from(TOKENS), max_size=30).map(lambda tokens: b"[" + b"".join(tokens) + b"]"))
def test_what_is_read_quickly_of_token_soup_is_read_by_the_exact_judge(text: bytes) -> None:
    with quick_from(0, piece=8):
        agrees_with_the_exact_judge(text)


@pytest.mark.parametrize("parser", list(Parser))
def test_verdict_is_the_same_with_and_without_the_quick_look(parser: Parser) -> None:
    spec = CheckSpec(parser=parser)
    for number, text in enumerate(many(1500, seed=7)):
        with quick_from(0, piece=PIECES[number % 4]):
            quick = check(text, spec)
        slow = check(text, spec)
        if quick.shape != slow.shape:  # that counts a key that appears twice once
            assert any(warning.kind == "duplicate_key" for warning in slow.warnings), text
            assert slow.shape is not None
            slow = replace(slow, shape=replace(slow.shape, records=read_document(text).records))

        assert quick == slow, text


@pytest.mark.torture
@needs_node
@pytest.mark.parametrize("seed", range(200, 220))
def test_what_is_read_quickly_of_very_many_texts_is_read_by_node_and_python(seed: int) -> None:
    read = []
    for text in many(50_000, seed=seed):
        with quick_from(0, piece=random.Random(text).choice(PIECES)):
            if agrees_with_the_exact_judge(text):
                read.append(text)

    assert all(read_by_node(read))
    assert all(map(read_by_python, read))
    assert len(read) > 4000


def test_large_text_is_read_quickly_and_what_it_will_not_have_is_good_all_the_same() -> None:
    odd = [b'"\\ud800"', b"9" * 30, b"1e999", b"[" * 2000 + b"]" * 2000]

    assert read_quickly(LARGE) == Document("object", 3000, len(LARGE))
    for member in odd:
        text = LARGE[:-1] + b', "odd": ' + member + b"}"
        assert read_quickly(text) is None
        assert check(text, CheckSpec()).shape == Shape(len(text), "object", 3001)


@pytest.mark.parametrize("wrap", [b'{"a": %s, "b": %s}', b"[[[%s], %s], 1]"])
def test_text_of_few_large_members_is_left_to_others(wrap: bytes) -> None:
    text = wrap.replace(b"%s", LARGE)

    with quick_from(0, piece=1 << 14):
        assert read_quickly(text) is None
        assert check(text, CheckSpec()).shape == Shape(len(text), "object" if text[:1] == b"{" else "array", 2)


@pytest.mark.parametrize("flaw", [b"\xef\xbb\xbf", b" \xef\xbb\xbf", b"[", b"\0"])
def test_large_text_after_something_else_is_damage(flaw: bytes) -> None:
    assert check(flaw + LARGE, CheckSpec()).grade is Grade.CORRUPT


def test_key_that_appears_twice_in_a_large_text_counts_as_it_is_written() -> None:
    text = LARGE[:-1] + b', "k1": 2, "k1": 3}'

    assert check(text, CheckSpec()).shape == Shape(len(text), "object", 3002)


def test_large_text_is_judged_alike_where_the_parser_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = check(LARGE, CheckSpec())
    monkeypatch.setitem(sys.modules, "simdjson", None)
    monkeypatch.setattr(json_quick, "_idle", [])

    assert read_quickly(LARGE) is None
    assert check(LARGE, CheckSpec()) == quick


def test_parser_is_loaded_with_the_first_large_text() -> None:
    program = f"""if True:
        import sys
        from agent.checks import check
        from agent.core.model import CheckSpec
        check(b'{{"a": 1}}' + b" " * 1000, CheckSpec())
        before = "simdjson" in sys.modules
        check(b"[" + b"1, " * {1 << 17} + b"1]", CheckSpec())
        print(before, "simdjson" in sys.modules)
    """

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout

    assert answer == "False True\n"
