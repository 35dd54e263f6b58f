"""Names, configs, documents and schemas that a hostile hand may write."""

import random
from typing import Any

OLD, AHEAD, LAST = "2020-01-01T00-00-00-000Z", "2999-01-01T00-00-00-000Z", "9999-12-31T23-59-59-999Z"

PARTS = ["users", "..", ".", "", "/", "a", "_suspect", "_quarantine", "_migration", ".agent", "__suspect", "_backup_",
         "_suspect_", "_quarantined_", OLD, AHEAD, LAST, "0000-00-00T00-00-00-000Z", ".json", ".zst", ".gz", "~01234567",
         "\udcff", "\ud800", "\n", "é", "x" * 250, "x" * 300, "_", "1700000000000", "2024-01-01"]  # fmt: skip


def name(dice: random.Random) -> str:
    """Return a path made of what the parser of names looks for, in any order."""
    joined = "".join(dice.choice([*PARTS, "/", "/", "_backup_", OLD, ".json"]) for _ in range(dice.randrange(1, 9)))
    return joined if dice.random() < 0.7 else f"users_backup_{OLD}{joined}"


def yaml_bombs() -> list[bytes]:
    laughs = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20))
    return [
        f"a0: &a0 [x]\n{laughs}\nwatch: *a19\n".encode(),
        b"[" * 1_000_000,
        b"{a: " * 200_000,
        b"- " * 300_000,
        b"a: &a [*a]",
        b"? " * 100_000,
        b"files: [" + b"{path: a}," * 60_000 + b"]",
        b"watch: {include: [" + b"'**/" * 50_000 + b"']}",
        b"watch: {include: ['" + b"**/" * 5_000 + b"x.json']}",
        b"watch: {debounce: " + b"9" * 100_000 + b"s}",
        b"backup: {max_total_size: 1e99999GB}",
        b"data_dir: ${A:-" * 10_000,
        b"!!python/object/apply:os.system [id]",
        b"a: !!binary ////\nb: 2001-99-99\n",
        b"\xff\xfe" + b"a: 1".decode().encode("utf-16-le"),
        b"\0" * 1000,
        b"%YAML 9.9\n---\n" * 2000,
        b"'" * 999_999,
        b"&a " * 100_000,
        b"x" * 2_000_000,
    ]


def yaml_text(dice: random.Random, example: bytes) -> bytes:
    """Return the example with a few lines, words or bytes that are not what they were."""
    lines = example.split(b"\n")
    words = [b"null", b"-1", b"99999999999999999999", b"[]", b"{}", b"*x", b"&x", b"!!int", b"${NO}", b"${", b"1e400",
             b"../../..", b"/", b"\xff", b"\t", b"? ", b": ", b"- ", b"| ", b"'", b'"', b"0s", b"1d", b"\xc2\x85"]  # fmt: skip
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(lines))
        line = lines[at]
        cut = dice.randrange(len(line) + 1)
        lines[at] = dice.choice(
            [line[:cut] + dice.choice(words) + line[cut:], line[:cut], dice.choice(lines), b" " + line, line + line,
             line.replace(b"# ", b"", 1), line.replace(b"#", b"", 1), dice.randbytes(3)]
        )  # fmt: skip
    return b"\n".join(lines)


def heavy_texts() -> list[bytes]:
    """Texts on which a careless reader runs out of stack, memory or time."""
    million = 1_000_000
    return [
        b"[" * million, b"]" * million, b"{" * million, b'{"a":' * million, b"[" * million + b"]" * million, b'"' * million,
        b'"\\' * million, b"\\" * million, b"[]" + b"]" * million, b'{"a":1}' + b"}" * million, b"9" * million,
        b"[1]" + b'"' * million + b"]", b'{"a":1}' + b"[}" * million, b'{"a":1}' + b'","' * million + b"}", b"\0" * million,
        b'[1]' + b"\0" * million, b"-" * million, b"[1," * million, b'{"a":1}' * million,
    ]  # fmt: skip


def schema(dice: random.Random, depth: int = 3) -> dict[str, Any]:
    """Return a JSON Schema, sound or not, now and then one that refers to itself."""
    types = ["object", "array", "string", "number", "integer", "boolean", "null", "nonsense", 7]
    made: dict[str, Any] = {"type": dice.choice(types)} if dice.random() < 0.8 else {}
    if depth and dice.random() < 0.8:
        keys = [str(dice.randrange(99)) for _ in range(dice.randrange(4))]
        made["properties"] = {key: schema(dice, depth - 1) for key in keys}
        made["required"] = dice.sample(keys, dice.randrange(len(keys) + 1))
        made[dice.choice(["additionalProperties", "unevaluatedProperties", "items", "not"])] = dice.choice(
            [True, False, schema(dice, depth - 1)]
        )
    if dice.random() < 0.5:
        made["default"] = dice.choice([0, "", None, {}, [], 1.5, {"a": [1]}, float("inf"), 10**400])
    if dice.random() < 0.1:
        made[dice.choice(["anyOf", "oneOf", "allOf"])] = [schema(dice, max(0, depth - 1)) for _ in range(2)]
    if dice.random() < 0.05:
        made["$ref"] = dice.choice(["#", "#/properties/1", "http://127.0.0.1:1/x", "#/nowhere", "file:///etc/passwd"])
    if dice.random() < 0.05:
        made["pattern"] = dice.choice(["(a+)+$", "[", "^(([a-z])+.)+[A-Z]([a-z])+$"])
    return made
