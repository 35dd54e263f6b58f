import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.checks import check
from agent.core.json_text import Document, read_document
from agent.core.model import CheckSpec, Parser
from agent.core.reading import Reading, sole_reading

BOM = b"\xef\xbb\xbf"
DOC = b'{"a": 1, "b": [2, "x"]}'


def read(data: bytes, parser: Parser = Parser.STRICT) -> Reading | None:
    return sole_reading(data, parser=parser)


@pytest.mark.parametrize(
    ("data", "kept", "kind"),
    [
        (DOC + b"\0" * 5, DOC, "nul_padding"),
        (DOC + b"\n" + b"\0" * 4096, DOC + b"\n", "nul_padding"),
        (b"{}\0", b"{}", "nul_padding"),
        (BOM + DOC, DOC, "bom"),
        (BOM + DOC + b"\0\0", DOC, "bom+nul_padding"),
        (DOC.decode().encode("utf-16"), DOC, "utf16"),
        (DOC.decode().encode("utf-16-le"), DOC, "utf16"),
        (DOC.decode().encode("utf-16-be"), DOC, "utf16"),
        ((DOC.decode() + "\0\0").encode("utf-16"), DOC, "utf16+nul_padding"),
        ('{"ü": "😀"}'.encode("utf-16"), '{"ü": "😀"}'.encode(), "utf16"),
        (DOC + b"}", DOC, "old_tail"),
        (DOC + b'34, "c": 5}', DOC, "old_tail"),
        (DOC + b'34, "c": 5}\n', DOC, "old_tail"),
        (DOC + b'me": {"c": [1]}}', DOC, "old_tail"),
        (DOC + b'" quoted end", "c": 1}', DOC, "old_tail"),
        (DOC + b': "value"}', DOC, "old_tail"),
        (DOC + b'lse, "c": true}', DOC, "old_tail"),
        (DOC + b'2], "c": [3]}}}', DOC, "old_tail"),
        (DOC + b'e5, "c": 1}', DOC, "old_tail"),
        (DOC + b'\xbcber", "c": 1}', DOC, "old_tail"),
        (b'{"a":1}345}', b'{"a":1}', "old_tail"),
        (b"[1,2,3]4,5]", b"[1,2,3]", "old_tail"),
        (BOM + DOC + b"}\0\0", DOC, "bom+nul_padding+old_tail"),
    ],
)
def test_bytes_with_one_reading_keep_exactly_that_document(data: bytes, kept: bytes, kind: str) -> None:
    reading = read(data)

    assert reading is not None
    assert (reading.data, reading.kind) == (kept, kind)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0" * 50, id="only NUL bytes"),
        pytest.param(BOM, id="only a mark"),
        pytest.param(DOC, id="nothing wrong"),
        pytest.param(DOC[:-1], id="cut"),
        pytest.param(DOC[:-3] + b"\0\0\0", id="cut and padded"),
        pytest.param(DOC[:9] + b"\0" * 4 + DOC[9:], id="NUL bytes inside"),
        pytest.param(DOC + b"\0\0" + b'"c": 1}', id="NUL bytes before a tail"),
        pytest.param(DOC + DOC, id="two documents"),
        pytest.param(DOC + b"\n" + DOC, id="two lines"),
        pytest.param(DOC + DOC + b"}", id="two documents and a tail"),
        pytest.param(DOC + DOC[:-1], id="a second document, cut"),
        pytest.param(DOC + b", " + DOC[1:], id="closed too early"),
        pytest.param(b'{"a": {"b": 1}}, "c": 2}', id="one bracket too many inside"),
        pytest.param(DOC + b"]", id="closes another bracket"),
        pytest.param(DOC + b'34, "c": [5}', id="a tail that closes wrongly"),
        pytest.param(DOC + b"undefined", id="undefined"),
        pytest.param(DOC + b"undefined}", id="undefined and a bracket"),
        pytest.param(DOC + b"\n>>>>>>> theirs\n", id="end of a conflict"),
        pytest.param(b"<<<<<<< ours\n" + DOC + b"\n=======\n" + DOC + b"\n>>>>>>> theirs\n", id="conflict"),
        pytest.param(b'{}"a": 1}', id="emptied object and a tail"),
        pytest.param(b"[]1, 2]", id="emptied array and a tail"),
        pytest.param(b'"text"}', id="a string and a tail"),
        pytest.param(b"1}", id="a number and a tail"),
        pytest.param(b"undefined", id="not JSON at all"),
        pytest.param(BOM + BOM + DOC, id="two marks"),
        pytest.param(b'{"a": "\xff"}\0', id="padded and not UTF-8"),
        pytest.param(b"\xff\xfe" + b"{\0}", id="half a UTF-16 character"),
        pytest.param('{"a": "'.encode("utf-16"), id="UTF-16, cut"),
        pytest.param(b'\xff\xfe{\0"\0\x00\xd8"\0:\x001\0}\0', id="UTF-16 with half a pair"),
    ],
)
@pytest.mark.parametrize("parser", list(Parser))
def test_bytes_without_one_sole_reading_are_left_to_a_restore(data: bytes, parser: Parser) -> None:
    assert read(data, parser) is None


def test_what_python_reads_by_itself_is_no_damage_there() -> None:
    for data in (BOM + DOC, DOC.decode().encode("utf-16")):
        assert read(data, Parser.PYTHON) is None


def test_python_keeps_the_mark_and_nan_of_a_padded_document() -> None:
    reading = read(BOM + b'{"a": NaN}\0', Parser.PYTHON)

    assert reading is not None
    assert reading.data == BOM + b'{"a": NaN}'


def test_nan_before_a_tail_has_no_reading_for_node() -> None:
    data = b'{"a": NaN}9}'

    assert read(data, Parser.PYTHON) is not None
    assert read(data, Parser.NODE) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=5)
escaped = st.booleans()


@given(objects, objects, escaped)
def test_overwritten_longer_version_reads_as_the_new_one_or_not_at_all(one: object, other: object, ascii_: bool) -> None:
    written, over = sorted((json.dumps(state, ensure_ascii=ascii_).encode() for state in (one, other)), key=len)
    assume(len(over) > len(written))

    reading = read(written + over[len(written) :])

    assert reading is None or reading.data == written


@given(objects, st.integers(1, 999), escaped)
def test_tail_of_a_version_with_one_more_text_is_always_recognised(
    new: dict[str, object], cut: int, ascii_: bool
) -> None:
    written = json.dumps(new, ensure_ascii=ascii_).encode()
    tail = json.dumps({"k": "ü" * 2000}, ensure_ascii=ascii_).encode()[-cut:]

    reading = read(written + tail)

    assert reading is not None
    assert reading.data == written


@given(st.binary(max_size=30), objects, st.sampled_from(list(Parser)))
def test_whatever_is_kept_is_a_document_and_nothing_is_added(junk: bytes, document: object, parser: Parser) -> None:
    data = json.dumps(document).encode() + junk

    reading = read(data, parser)

    if reading is not None:
        assert data.startswith(reading.data)
        assert isinstance(read_document(reading.data, constants=parser is Parser.PYTHON), Document)


@given(objects, st.integers(0, 200))
def test_cut_document_is_never_completed(document: object, cut: int) -> None:
    data = json.dumps(document).encode()
    kept = data[: max(0, len(data) - 1 - cut)]

    assert read(kept) is None
    assert read(kept + b"\0" * 8) is None


@given(
    st.binary(max_size=12),
    st.recursive(st.integers() | st.text(max_size=4), lambda inner: st.dictionaries(st.text(max_size=3), inner)),
    st.integers(0, 60),
    st.sampled_from([Parser.STRICT, Parser.PYTHON]),
)
def test_knowing_the_first_flaw_changes_no_reading(junk: bytes, document: object, cut: int, parser: Parser) -> None:
    whole = json.dumps(document).encode()
    data = whole[: len(whole) - cut % (len(whole) + 1)] + junk
    problems = check(data, CheckSpec(parser=parser)).problems
    assume(problems)

    known = sole_reading(data, parser=parser, flaw=problems[0].kind)

    assert known == sole_reading(data, parser=parser)


@pytest.mark.parametrize("parser", [Parser.STRICT, Parser.PYTHON])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_old_tail_may_begin_in_the_middle_of_a_character(cut: int, parser: Parser) -> None:
    """The first flaw is an encoding then: it stands behind the document, and takes nothing from it."""
    data = DOC + '日", "c": 1}'.encode()[cut:]
    problems = check(data, CheckSpec(parser=parser)).problems

    reading = sole_reading(data, parser=parser, flaw=problems[0].kind)

    assert reading is not None
    assert (reading.data, reading.kind) == (DOC, "old_tail")
