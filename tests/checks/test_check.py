import json
import os
import sys
from pathlib import Path

import pytest

from agent.checks import check
from agent.core.model import CheckResult, CheckSpec, Grade, Parser, Shape

STRICT, NODE, PYTHON = Parser.STRICT, Parser.NODE, Parser.PYTHON
GOOD, CORRUPT, SUSPECT, UNREADABLE = Grade.GOOD, Grade.CORRUPT, Grade.SUSPECT, Grade.UNREADABLE
BOM = b"\xef\xbb\xbf"
DEEP = 100_000
BIG = json.dumps({str(i): {"name": "x" * 50, "n": i} for i in range(1000)}).encode()


def grades(content: bytes) -> list[Grade]:
    return [check(content, CheckSpec(parser=parser)).grade for parser in (STRICT, NODE, PYTHON)]


def found(content: bytes, parser: Parser = STRICT) -> tuple[str, int | None, int | None]:
    problem = check(content, CheckSpec(parser=parser)).problems[0]
    return problem.kind, problem.line, problem.column


READABLE_BY_ALL = {
    "object": b'{"a": [1, -0, 0.5e-7, true, false, null, "x"]}',
    "padded": b' \t\r\n{ "a" :\n[ 1 , 2 ] } \n',
    "number": b"-12.5E+3",
    "string": b'"a \\" \\\\ \\/ \\b\\f\\n\\r\\t \\u00e9 \x7f"',
    "null": b"null",
    "empty members": b'[{}, [], "", [[ ]], { }]',
    "empty key": b'{"": 1}',
    "duplicate keys": b'{"a": 1, "a": 2}',
    "lone surrogate": b'["\\ud800", "\\udfff\\ud800", "x\\uD83D"]',
    "lone surrogate key": b'{"\\ud800": {"\\udc00": 1}}',
    "U+2028 and noncharacters": '["\u2028\u2029\ufffe\U0010ffff"]'.encode(),
    "5,000 digits": b"[" + b"9" * 5000 + b"]",
    "infinite": b"[1e400, -1e400, 1e-400, 0e99999999999]",
    "deep": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and lone surrogate": b"[" * 2000 + b'"\\ud800"' + b"]" * 2000,
}


@pytest.mark.parametrize("content", READABLE_BY_ALL.values(), ids=READABLE_BY_ALL.keys())
def test_text_that_node_and_python_read_is_good(content: bytes) -> None:
    assert grades(content) == [GOOD, GOOD, GOOD]


CORRUPT_FOR_ALL = {
    "empty": (b"", "empty", 1, 1),
    "white space": (b" \n\t", "empty", 2, 2),
    "NUL bytes": (b"\0" * 9, "nul", 1, 1),
    "NUL padding": (b'{"a":\n1}\0\0', "nul", 2, 3),
    "NUL inside": (b'{"a": "\0"}', "nul", 1, 8),
    "unclosed": (b'{"a": [1, 2', "truncated", 1, 12),
    "100,000 open brackets": (b"[" * DEEP, "truncated", 1, DEEP + 1),
    "deep, one too few": (b"[" * DEEP + b"]" * (DEEP - 1), "truncated", 1, 2 * DEEP),
    "deep, one too many": (b"[" * DEEP + b"]" * (DEEP + 1), "trailing_data", 1, 2 * DEEP + 1),
    "cut string": (b'["ab', "truncated", 1, 5),
    "cut escape": (b'["ab\\u00', "truncated", 1, 9),
    "cut word": (b"[tru", "truncated", 1, 5),
    "cut key": (b'{"a', "truncated", 1, 4),
    "cut before a colon": (b'{"a"', "truncated", 1, 5),
    "second document": (b"{}\n{}", "trailing_data", 2, 1),
    "old tail": (b'{"a": 1}2}', "trailing_data", 1, 9),
    "trailing comma": (b"[1,]", "syntax", 1, 4),
    "trailing comma in an object": (b'{"a":1,}', "syntax", 1, 8),
    "missing comma": (b"[1 2]", "syntax", 1, 4),
    "missing colon": (b'{"a" 1}', "syntax", 1, 6),
    "wrong closer": (b'{"a": [1}', "syntax", 1, 9),
    "single quotes": (b"{'a': 1}", "syntax", 1, 2),
    "bare key": (b"{a: 1}", "syntax", 1, 2),
    "undefined": (b"undefined", "syntax", 1, 1),
    "[object Object]": (b"[object Object]", "syntax", 1, 2),
    "conflict": (b"<<<<<<< HEAD\n{}\n", "syntax", 1, 1),
    "comment": (b"{} // x", "trailing_data", 1, 4),
    "leading zero": (b"[01]", "syntax", 1, 3),
    "plus": (b"[+1]", "syntax", 1, 2),
    "bare point": (b"[1.]", "syntax", 1, 3),
    "hexadecimal": (b"[0x1]", "syntax", 1, 3),
    "Unicode digits": ("[\u0661]".encode(), "syntax", 1, 2),
    "bad escape": (b'["\\x41"]', "syntax", 1, 3),
    "bad hexadecimal escape": (b'["\\u12g4"]', "syntax", 1, 3),
    "tab in a string": (b'["a\tb"]', "syntax", 1, 4),
    "newline in a string": (b'["a\nb"]', "syntax", 1, 4),
    "vertical tab": (b"[1]\x0b", "trailing_data", 1, 4),
    "no-break space": ("[1,\u00a02]".encode(), "syntax", 1, 4),
    "after wide characters": ('["\u00e9\U0001f600",]'.encode(), "syntax", 1, 7),
    "True": (b"[True]", "syntax", 1, 2),
    "two marks": (BOM + BOM + b"{}", None, 1, 1),
}


@pytest.mark.parametrize(("content", "kind", "line", "column"), CORRUPT_FOR_ALL.values(), ids=CORRUPT_FOR_ALL.keys())
def test_text_that_nobody_reads_is_corrupt_at_its_place(
    content: bytes, kind: str | None, line: int, column: int
) -> None:
    assert grades(content) == [CORRUPT, CORRUPT, CORRUPT]
    assert kind is None or found(content) == (kind, line, column)


@pytest.mark.parametrize(
    ("content", "expected", "kind"),
    [
        (b"[NaN]", [CORRUPT, CORRUPT, GOOD], "not_a_number"),
        (b'{"a": -Infinity}', [CORRUPT, CORRUPT, GOOD], "not_a_number"),
        (BOM + b"{}", [CORRUPT, CORRUPT, GOOD], "bom"),
        ('{"a": 1}'.encode("utf-16"), [CORRUPT, CORRUPT, GOOD], "utf16"),
        ('{"a": 1}'.encode("utf-16-be"), [CORRUPT, CORRUPT, GOOD], "utf16"),
        ('{"a": 1}'.encode("utf-32"), [CORRUPT, CORRUPT, GOOD], None),
        (b'["\xff"]', [CORRUPT, SUSPECT, CORRUPT], "encoding"),
        (b'["\xc3"]', [CORRUPT, SUSPECT, CORRUPT], "encoding"),
        (b'{"\xe2\x82": 1}', [CORRUPT, SUSPECT, CORRUPT], "encoding"),
        (b'["\xed\xa0\x80"]', [CORRUPT, SUSPECT, GOOD], "encoding"),
        (b"[\xff]", [CORRUPT, CORRUPT, CORRUPT], "encoding"),
        (b'["\xff"', [CORRUPT, CORRUPT, CORRUPT], "encoding"),
    ],
)
def test_text_is_judged_with_the_eyes_of_its_parser(content: bytes, expected: list[Grade], kind: str | None) -> None:
    assert grades(content) == expected
    assert kind is None or found(content)[0] == kind


def test_lossy_text_keeps_its_shape_and_says_where() -> None:
    content = b'{"a": 1,\n "b\xff": 2}'

    result = check(content, CheckSpec(parser=NODE))

    assert (result.grade, result.shape) == (SUSPECT, Shape(len(content), "object", 2))
    assert (result.problems[0].kind, result.problems[0].line, result.problems[0].column) == ("encoding", 2, 4)


@pytest.mark.parametrize(
    ("content", "root", "records"),
    [
        (b"{}", "object", 0),
        (b'{"a": {"b": 1}, "c": 2}', "object", 2),
        (b'{"a": 1, "\\u0061": 2}', "object", 1),
        (b'{"a": "\\ud800", "\\u0061": 2, "b": 3}', "object", 3),  # the exact judge counts keys as they are written
        (b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b', "b": 2, "c": ["d", 3]}', "object", 3),
        (b'[1, "\\ud800", [3, 4]]', "array", 3),
        (b"[" * DEEP + b"]" * DEEP, "array", 1),
        (b'"x"', "string", None),
        (b"-1", "number", None),
        (b"false", "boolean", None),
        (b"null", "null", None),
    ],
)
def test_shape_counts_the_members_of_the_root(content: bytes, root: str, records: int | None) -> None:
    assert check(content, CheckSpec()).shape == Shape(len(content), root, records)


@pytest.mark.parametrize(
    ("content", "kind", "line", "column", "pointer"),
    [
        (b'{"a":\n 12345678901234567890}', "big_integer", 2, 2, None),
        (b"[9007199254740993]", "big_integer", 1, 2, None),
        (b"[1, -9007199254740993 ]", "big_integer", 1, 6, None),
        (b'{"a": "\\ud83d\\ude00",\n"b": "\\\\ud800 \\udc00"}', "lone_surrogate", 2, 15, None),
        ('["ok",\n"\ufffd"]'.encode(), "replacement_character", 2, 2, None),
        (b'{"a": [{"b/c": 1, "b/c": 2}]}', "duplicate_key", None, None, "/a/0/b~1c"),
        (b'{"a": 1, "a": 2}', "duplicate_key", None, None, "/a"),
    ],
)
def test_good_text_warns_of_what_is_not_read_alike(
    content: bytes, kind: str, line: int | None, column: int | None, pointer: str | None
) -> None:
    result = check(content, CheckSpec())

    assert result.grade is GOOD
    assert [(w.kind, w.line, w.column, w.pointer) for w in result.warnings] == [(kind, line, column, pointer)]


@pytest.mark.parametrize(
    "content",
    [
        b'{"123456789012345678": "123456789012345678"}',
        b"[9007199254740992, 0.12345678901234567890, 12345678901234567890e1, 1234567890123456789.5]",
        b'["mention <@123456789012345678> 123456789012345678 end"]',
        b'["\\ud83d\\ude00 \\\\ud800 \\u0041"]',
        b'{"a": {"b": 1}, "b": {"b": 1}}',
    ],
)
def test_ordinary_content_raises_no_warning(content: bytes) -> None:
    assert check(content, CheckSpec()).warnings == ()


@pytest.mark.parametrize("member", ["1", '"a,[\\""', '{"a": [2, 3]}', "[[[[[[]]]]]]", "NaN"])
def test_very_many_members_are_counted_and_judged_all_the_same(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.checks.json_members._COMMAS_MAX", 100)
    monkeypatch.setattr("agent.checks.json_format._PIECE_BYTES", 1000)
    spec = CheckSpec(parser=PYTHON)
    array = f"[{', '.join([member] * 5000)}]".encode()
    table = ("{" + ", ".join([f'"k{i}": {member}' for i in range(5000)]) + "}").encode()

    for content, root in ((array, "array"), (table, "object")):
        assert check(content, spec).shape == Shape(len(content), root, 5000)
        assert check(content[:-1], spec).grade is CORRUPT


def test_many_oddities_give_one_warning_of_each_kind() -> None:
    content = b"[" + b'12345678901234567890, "\\ud800", "\xef\xbf\xbd", ' * 5000 + b"1]"

    assert [w.kind for w in check(content, CheckSpec()).warnings] == [
        "big_integer",
        "lone_surrogate",
        "replacement_character",
    ]


@pytest.mark.parametrize("offset", range(-70, 20, 7))
def test_warning_survives_the_seams_of_a_large_text(offset: int) -> None:
    content = b'{"a": "' + b"x" * ((1 << 20) + offset) + b'", "b": 12345678901234567890}'

    assert [w.kind for w in check(content, CheckSpec()).warnings] == ["big_integer"]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_character_across_a_seam_is_valid_and_half_of_it_is_not(cut: int) -> None:
    whole = b'["' + b"x" * ((1 << 18) - 2 - cut) + "😀".encode() + b'"]'

    assert check(whole, CheckSpec()).grade is GOOD
    assert found(whole.replace(b"\x9f\x98", b"\x9f"))[0] == "encoding"


@pytest.mark.parametrize(
    "content", [b'{"token": "hunter2"', b'["hunter2" hunter2]', b'{"hunter2": 1, hunter2', b'["hunter2\xff"]']
)
def test_problem_never_quotes_data(content: bytes) -> None:
    for parser in Parser:
        assert "hunter2" not in repr(check(content, CheckSpec(parser=parser)))


@pytest.mark.parametrize(
    "content",
    [BIG, BIG[:-1], b"", b"[" * DEEP, b'["\xff"]', BOM + b"{}", b'{"a": 12345678901234567890}', "[1]".encode("utf-16")],
    ids=["good", "cut", "empty", "open brackets", "not UTF-8", "mark", "warning", "UTF-16"],
)
@pytest.mark.parametrize("parser", list(Parser))
def test_child_process_finds_the_same_from_bytes_and_from_a_copy(
    content: bytes, parser: Parser, tmp_path: Path
) -> None:
    spec = CheckSpec(parser=parser)
    here = check(content, spec)
    copy = tmp_path / os.fsdecode(b"copy-\xff")
    copy.write_bytes(content)

    assert check(copy, spec) == here
    assert check(content, spec, child_above_bytes=-1) == here
    assert check(copy, spec, child_above_bytes=-1) == here


def test_child_process_applies_the_schema(tmp_path: Path) -> None:
    spec = CheckSpec(schema={"type": "object", "additionalProperties": {"type": "integer"}})

    result = check(b'{"a": 1, "b": "x"}', spec, child_above_bytes=0)

    assert (result.grade, result.problems[0].pointer) == (Grade.INVALID, "/b")


def fake_interpreter(tmp_path: Path, script: str) -> str:
    program = tmp_path / "interpreter"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("kill -SEGV $$", "crashed"),
        ("kill -KILL $$", "crashed"),
        ("exit 1", "crashed"),
        ("echo not an answer", "crashed"),
        ("exec sleep 600", "timeout"),
    ],
)
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_child_that_gives_no_answer_leaves_the_file_unreadable(
    script: str, kind: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", fake_interpreter(tmp_path, script))

    result = check(b" " * size, CheckSpec(), child_above_bytes=0, child_timeout_s=0.2 if kind == "timeout" else 60)

    assert (result.grade, [problem.kind for problem in result.problems]) == (UNREADABLE, [kind])


def test_child_that_cannot_read_the_copy_says_why(tmp_path: Path) -> None:
    result = check(tmp_path, CheckSpec(), child_above_bytes=-1)

    assert (result.grade, result.problems[0].message) == (
        Grade.UNREADABLE, "the checking process could not go on: Is a directory",
    )  # fmt: skip


def test_child_starts_in_a_folder_full_of_traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "mmap", "msgspec", "agent"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert check(BIG, CheckSpec(), child_above_bytes=0).grade is GOOD


@pytest.mark.parametrize("child_above_bytes", [-1, 1000])
def test_missing_private_copy_raises_and_says_nothing_about_the_data(child_above_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "gone", CheckSpec(), child_above_bytes=child_above_bytes)


def test_result_is_a_value() -> None:
    assert check(BIG, CheckSpec()) == CheckResult(GOOD, Shape(len(BIG), "object", 1000))


def test_one_huge_member_is_proved_whole_without_the_exact_judge_and_its_root_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exact judge reads 6 MB a second: a file of a gigabyte was unreadable by its time limit."""
    monkeypatch.setattr("agent.checks.json_format.read_document", pytest.fail)
    text = b'{"users": [' + b"1," * 1_400_000 + b"1]}"

    result = check(text, CheckSpec())

    assert (result.grade, result.shape) == (GOOD, Shape(len(text), "object", None))


def test_one_huge_member_with_a_flaw_is_corrupt_where_the_flaw_is() -> None:
    result = check(b'{"users": [' + b"1," * 1_400_000 + b",1]}", CheckSpec())

    assert (result.grade, result.problems[0].column) == (Grade.CORRUPT, 2_800_012)


@pytest.mark.parametrize(
    "flaw", ["{},", "{,}", "{%s,,%s}", "{%s,%s,}", "{,%s}", "{%s %s}", "{%s,%s]", "{%s,%s", "{%s}}"]
)
def test_very_many_members_with_a_flaw_between_them_are_corrupt(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.checks.json_members._COMMAS_MAX", 10)
    monkeypatch.setattr("agent.checks.json_format._PIECE_BYTES", 100)
    members = ", ".join(f'"k{i}": [{i}, 2]' for i in range(50))

    assert check(flaw.replace("%s", members).encode(), CheckSpec()).grade is Grade.CORRUPT
