"""The check against the runtimes themselves: what they read is never called corrupt, what they refuse is never good."""

import json
import random
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks import check
from agent.checks.text_place import line_and_column
from agent.core.json_text import Document, Flaw, read_document
from agent.core.model import CheckSpec, Grade, Parser
from agent.core.problem import ProblemKind

JUDGE = Path(__file__).with_name("judge.js")
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: nothing to compare with")

READ = {Grade.GOOD, Grade.SUSPECT}
TOKENS = [
    *(b'{ } [ ] : , " \\ / 0 1 -1 1.5 1e5 1E+2 -0 01 .5 1. - + e true false null nul NaN -Infinity undefined'.split()),
    *(b'" "" "a" "b": "\\u00e9" "\\ud800" "\\udc00" "\\uD83D\\uDE00" "\\x" \\u12 \\n // \xc3\xa9 \xff \xc3'.split()),
    *(
        b" ",
        b"\n",
        b"\t",
        b"\r",
        b"\0",
        b"\x0b",
        b"\x7f",
        b"\x1f",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xe2\x80\xa8",
        b"{}",
        b"[]",
    ),
]


def document(rng: random.Random, depth: int = 4) -> object:
    scalars: list[Callable[[], object]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.randrange(-(10**18), 10**18),
        lambda: rng.uniform(-1e6, 1e6),
        lambda: "".join(rng.choice('ab"\\/\n\u00e9\u2028\ud800\U0001f600 {}[],:') for _ in range(rng.randrange(8))),
    ]
    kind = rng.randrange(7 if depth else 5)
    if kind == 5:
        return [document(rng, depth - 1) for _ in range(rng.randrange(5))]
    if kind == 6:
        return {str(rng.randrange(99)): document(rng, depth - 1) for _ in range(rng.randrange(5))}
    return scalars[kind % 5]()


def mutated(rng: random.Random, text: bytes) -> bytes:
    """Return `text` as a crash, an editor or a bad disk may leave it."""
    at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
    return rng.choice(
        [
            lambda: text,
            lambda: text[:at],
            lambda: text[at:],
            lambda: text[:at] + text[end:],
            lambda: text + text[at:],
            lambda: text[:at] + b"\0" * (end - at) + text[end:],
            lambda: text[:at] + b"\0" * rng.randrange(9),
            lambda: text[:at] + rng.choice(TOKENS) + text[at:],
            lambda: text[:at] + rng.choice(TOKENS) + text[at + 1 :],
            lambda: text[:at] + rng.randbytes(1) + text[at + 1 :],
        ]
    )()


def texts(count: int, *, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        if rng.random() < 0.4:
            yield b"".join(rng.choice(TOKENS) for _ in range(rng.randrange(8)))
            continue
        ascii_only = rng.random() < 0.5
        text = json.dumps(document(rng), ensure_ascii=ascii_only, indent=rng.choice([None, 2]))
        yield mutated(rng, text.encode("utf-8", "surrogatepass"))


def read_by_node(samples: list[bytes]) -> list[bool]:
    assert NODE is not None
    request = b"".join(b64encode(sample) + b"\n" for sample in samples)
    answer = subprocess.run([NODE, str(JUDGE)], input=request, capture_output=True, check=True).stdout
    return [verdict == "1" for verdict in answer.decode().split("\n")]


def read_by_python(sample: bytes) -> bool:
    try:
        json.loads(sample)
    except RecursionError:
        raise
    except ValueError as error:
        return "Exceeds the limit" in str(error)  # 4,300 digits: a setting of the interpreter, no fault of the text
    return True


def compare_with_node(samples: list[bytes]) -> None:
    verdicts = read_by_node(samples)
    wrong = [
        (sample, verdict)
        for sample, verdict in zip(samples, verdicts, strict=True)
        if (check(sample, CheckSpec(parser=Parser.NODE)).grade in READ) is not verdict
    ]

    assert wrong == []
    assert 0.05 < sum(verdicts) / len(verdicts) < 0.95  # a comparison in which both sides say no proves little


def compare_with_python(samples: list[bytes]) -> None:
    wrong = [
        s for s in samples if (check(s, CheckSpec(parser=Parser.PYTHON)).grade is Grade.GOOD) is not read_by_python(s)
    ]

    assert wrong == []


@needs_node
def test_node_and_the_check_agree() -> None:
    deep = [b"[" * n + b"]" * n for n in (900, 1100, 20_000, 100_000)]

    compare_with_node([*texts(6000, seed=1), *deep, b"9" * 5000, b"[" * 100_000])


def test_python_and_the_check_agree() -> None:
    compare_with_python(list(texts(6000, seed=2)))


def test_strict_reads_only_what_both_others_read() -> None:
    for sample in texts(3000, seed=3):
        strict, node, python = (check(sample, CheckSpec(parser=parser)).grade is Grade.GOOD for parser in Parser)
        assert strict == (node and python), sample


def test_damage_is_told_as_the_last_judge_tells_it() -> None:
    cut = 0
    for sample in texts(6000, seed=4):
        flaw, problems = read_document(sample), check(sample, CheckSpec()).problems
        if not isinstance(flaw, Flaw) or problems[0].kind in (ProblemKind.BOM, ProblemKind.UTF16, ProblemKind.ENCODING):
            continue
        cut += flaw.kind is ProblemKind.TRUNCATED
        told = problems[0].kind, problems[0].message, problems[0].line, problems[0].column

        assert told == (flaw.kind, flaw.message, *line_and_column(sample, flaw.offset)), sample
    assert cut > 200


@pytest.mark.torture
@needs_node
@pytest.mark.parametrize("seed", range(100, 120))
def test_node_and_the_check_agree_on_very_many_texts(seed: int) -> None:
    samples = list(texts(50_000, seed=seed))

    compare_with_node(samples)
    compare_with_python(samples)


def read_by_scanner(text: bytes) -> bool:
    return isinstance(read_document(text, constants=True), Document)


def read_by_standard(text: bytes) -> bool:
    try:
        json.loads(text.decode())
    except ValueError:
        return False
    return True


@given(st.lists(st.sampled_from([token for token in TOKENS if token.isascii()]), max_size=12).map(b"".join))
def test_last_judge_agrees_with_the_standard_parser_on_token_soup(text: bytes) -> None:
    assert read_by_scanner(text) == read_by_standard(text)


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_last_judge_agrees_with_the_standard_parser_on_damaged_documents(seed: int, damage: int) -> None:
    text = json.dumps(document(random.Random(seed))).encode()
    damaged = mutated(random.Random(damage), text)

    assert read_by_scanner(text)
    if damaged.isascii():
        assert read_by_scanner(damaged) == read_by_standard(damaged)
