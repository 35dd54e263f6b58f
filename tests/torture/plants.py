"""What a hostile hand may put in front of the agent: links, odd files, snapshots, journals, catalogs."""

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from plant_texts import AHEAD, LAST, OLD, name

from agent.cli import main

GOOD = json.dumps({str(number): {"name": f"user {number}"} for number in range(12)}).encode()
NEWER = json.dumps({str(number): {"name": f"user {number}"} for number in range(13)}).encode()
DAMAGED = NEWER[:30]
HOSTILE = json.dumps({str(number): {"name": f"evil {number}"} for number in range(14)}).encode()
BOMB_BYTES = 300 * 1024**2
FAR_NS = (1 << 62, -(1 << 62), 253402300800 * 10**9, 0)


@dataclass
class Place:
    """A bot's folder with two good snapshots, and a folder outside that nobody of ours may touch."""

    root: Path
    genuine: set[str] = field(default_factory=set)

    @property
    def users(self) -> Path:
        return self.root / "data/users.json"

    @property
    def backups(self) -> Path:
        return self.root / "data/backups"

    @property
    def state(self) -> Path:
        return self.backups / ".agent"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    def protect(self) -> None:
        (self.outside / "folder").mkdir(parents=True)
        for rel in ("secret.json", "folder/backup-agent-0123456789abcdef.tmp", "empty"):
            (self.outside / rel).write_bytes(b"" if rel == "empty" else b'{"secret": 1}')
        (self.root / "data/temp").mkdir(parents=True)
        (self.root / "agent.yaml").write_text(
            "data_dir: data\nwatch: {debounce: 0, max_file_size: 50MB}\nmetrics: {listen: off}\n"
        )
        for content in (GOOD, NEWER):
            self.users.write_bytes(content)
            said = self.agent("snapshot")
            assert not said, said
        self.genuine = {path.name for path in self.backups.glob("users_backup_*")}

    def damage(self) -> None:
        self.users.write_bytes(DAMAGED)

    def heal(self) -> str:
        """Run the gate; return '' when all is good now, and what was said otherwise."""
        said = self.agent("check", "--heal")
        for verb in ("list", "status"):
            self.agent(verb)
        return said

    def agent(self, *words: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main([*words, "--config", str(self.root / "agent.yaml")])
        return "" if code == 0 else out.getvalue() or f"exit code {code}"

    def outside_now(self) -> dict[str, tuple[int, int, bytes]]:
        found = {}
        for path in sorted(self.outside.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = status.st_mode, status.st_mtime_ns, content
        return found


Plant = Callable[[Place, random.Random], str]


def replaced(path: Path) -> Path:
    """Make room for something else under this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def own_names(place: Place) -> list[Path]:
    """Return the paths that the agent writes, or made once."""
    state = place.state
    inside = ["journal.jsonl", "catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm", "catalog.sqlite3-journal",
              "format", "daemon.lock", "files.lock", "staging", "bot_stopped"]  # fmt: skip
    temp = "backup-agent-0123456789abcdef"
    loose = [state / "staging" / f"{temp}.part.tmp", place.root / f"data/temp/{temp}.tmp",
             place.root / f"data/temp/{temp}.part.tmp", state / f"{temp}.part.tmp"]  # fmt: skip
    shelves = [place.backups / shelf for shelf in ("_suspect", "_quarantine", "_migration", "sub")]
    copies = [place.backups / f"users_backup_{stamp}.json" for stamp in (OLD, AHEAD)]
    return [state / inner for inner in inside] + loose + shelves + copies


def link(place: Place, dice: random.Random) -> str:
    path = dice.choice(own_names(place))
    target = dice.choice(["secret.json", "folder", "empty", "not_there", "folder/not_there"])
    replaced(path).symlink_to(place.outside / target)
    return f"{path.relative_to(place.root)} -> {target}"


def odd_file(place: Place, dice: random.Random) -> str:
    """A pipe, a folder or nothing readable in the place of a file of ours."""
    path = replaced(dice.choice(own_names(place)))
    kind = dice.choice(["pipe", "folder", "garbage", "empty"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "inner").mkdir(parents=True)
    else:
        path.write_bytes(dice.randbytes(3000) if kind == "garbage" else b"")
    return f"{path.relative_to(place.root)} is {kind}"


def future(place: Place, dice: random.Random) -> str:
    stamp = dice.choice([AHEAD, LAST])
    (place.backups / f"users_backup_{stamp}.json").write_bytes(HOSTILE)
    return f"a copy of {stamp}"


def _bomb() -> bytes:
    if not hasattr(_bomb, "made"):
        block = gzip.compress(bytes(1 << 20), 9)
        _bomb.made = block * (BOMB_BYTES >> 20)  # type: ignore[attr-defined]  # made once, needed often
    return bytes(_bomb.made)  # type: ignore[attr-defined]


def packed(place: Place, dice: random.Random) -> str:
    kind = dice.choice(["gzip bomb", "zstd bomb", "cut gzip", "cut zstd", "garbage"])
    data: dict[str, Callable[[], bytes]] = {
        "gzip bomb": _bomb,
        "cut gzip": lambda: gzip.compress(HOSTILE)[:20],
        "garbage": lambda: dice.randbytes(99),
    }
    suffix = ".zst" if "zstd" in kind else dice.choice([".gz", ".zst"]) if kind == "garbage" else ".gz"
    path = place.backups / f"users_backup_{OLD}.json{suffix}"
    path.write_bytes(data[kind]() if kind in data else zstd_of(kind))
    return kind


def zstd_of(kind: str) -> bytes:
    from backports import zstd

    whole = zstd.compress(bytes(BOMB_BYTES) if kind == "zstd bomb" else HOSTILE)
    return whole if kind == "zstd bomb" else whole[:15]


def odd_time(place: Place, dice: random.Random) -> str:
    path = place.backups / f"users_backup_{dice.choice(['odd', '2020-13-77', OLD, '99999999999999'])}.json"
    path.write_bytes(GOOD)
    when = dice.choice(FAR_NS)
    with contextlib.suppress(OSError, OverflowError):
        os.utime(path, ns=(when, when))
    return f"{path.name} of {when}"


def odd_name(place: Place, dice: random.Random) -> str:
    rel = "/".join(part for part in name(dice).split("/") if part not in ("", ".", "..") and "\0" not in part)
    with contextlib.suppress(OSError, UnicodeEncodeError):
        path = place.backups / rel
        if path != place.backups and place.users.stem not in path.name.partition("_backup_")[0]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dice.choice([HOSTILE, GOOD, b"", dice.randbytes(50)]))
    return f"{rel!r:.80}"


def deep(place: Place, dice: random.Random) -> str:
    path = place.backups
    for _ in range(dice.choice([90, 120])):
        path /= "d"
    path.mkdir(parents=True, exist_ok=True)
    (path / f"users_backup_{OLD}.json").write_bytes(HOSTILE)
    return "a deep folder"


def odd_value(dice: random.Random, place: Place) -> object:
    return dice.choice(
        [None, True, -1, 10**30, 1 << 63, -(1 << 63) - 1, 1.5, float("nan"), "", "good", "x", "\ud800", "\udcff", "\0", [], {},
         [1], ["object", 1 << 70], ["object", "x"], ["\ud800", 3], "../../outside/secret.json", "users.json", "/etc/passwd",
         "a/../b", str(place.outside), "9" * 5000, "d" * 5000, "users_backup", OLD]
    )  # fmt: skip


def journal(place: Place, dice: random.Random) -> str:
    """Lines that no journal of ours holds, told of copies that are there or are not; the catalog is lost as well."""
    if dice.random() < 0.7:
        for path in place.state.glob("catalog.sqlite3*"):
            replaced(path)
    cut = f"{'u' * 150}~01234567_backup_{OLD}.json"
    copies = [cut, f"users_backup_{OLD}.json", f"_suspect/users_suspect_{OLD}.json", f"other_backup_{OLD}.json"]
    for copy in copies:
        with contextlib.suppress(OSError):  # something else that was planted stands there
            (place.backups / copy).parent.mkdir(parents=True, exist_ok=True)
            (place.backups / copy).write_bytes(HOSTILE)
    lines = []
    for _ in range(dice.randrange(1, 60)):
        record = {
            "op": dice.choice(["publish", "publish", "accept", "pin", "unpin", "swap", "x", 1]), "rel": "users.json",
            "name": dice.choice(copies), "was": dice.choice(copies), "digest": "0" * 64, "size": len(HOSTILE),
            "grade": dice.choice(["good", "suspect", "x"]), "reason": "change", "shape": ["object", 14],
            "folder": str(dice.choice([place.outside / "folder", place.root / "data/temp", place.outside])),
            "staged": "backup-agent-0123456789abcdef.tmp",
        }  # fmt: skip
        for key in dice.sample(list(record), dice.randrange(4)):
            record[key] = odd_value(dice, place)
        if dice.random() < 0.2:
            del record[dice.choice(list(record))]
        lines.append(json.dumps(record).encode())
    lines += dice.sample(
        [b"[" * 100_000, b"\0" * 1000, b"9" * 10_000, b"{}", b"[]", b"null", b'{"op":"publish"}', b"\xff\xfe",
         b'{"op":' * 50_000, b"[" * 400_000_000], 3
    )  # fmt: skip
    dice.shuffle(lines)
    with contextlib.suppress(OSError):
        (place.root / "data/temp/backup-agent-0123456789abcdef.tmp").write_bytes(HOSTILE)
    with contextlib.suppress(OSError), (place.state / "journal.jsonl").open("ab") as stream:
        stream.write(b"\n".join(lines) + dice.choice([b"\n", b""]))
    return "a journal of " + b" | ".join(line[:300] for line in lines[:4]).decode("latin1")


PLANTS: list[Plant] = [link, odd_file, future, packed, odd_time, odd_name, deep, journal]


def plant(place: Place, dice: random.Random, *, every: bool) -> str:
    """Plant a few things, or one of each kind; return what, in words."""
    chosen = PLANTS if every else dice.choices(PLANTS, k=dice.randrange(1, 4))
    return "; ".join(work(place, dice) for work in chosen)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
HOSTILE_SQL = [
    f"DROP TABLE snapshots; CREATE VIEW snapshots AS {ENDLESS} SELECT x AS rel, x AS taken, x AS name, x AS digest, "
    "x AS size, x AS stored, x AS grade, x AS reason, x AS root, x AS records, 0 AS pinned, 0 AS doomed FROM n",
    f"DROP TABLE meta; CREATE VIEW meta AS {ENDLESS} SELECT x AS key, x AS value FROM n",
    f"CREATE TRIGGER t AFTER INSERT ON files BEGIN INSERT INTO meta {ENDLESS} SELECT x, x FROM n; END",
    "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM snapshots; END",
    "CREATE TRIGGER t AFTER INSERT ON snapshots BEGIN UPDATE snapshots SET name = '../../outside/secret.json'; END",
    "PRAGMA user_version=99",
    "DROP TABLE files", "DROP TABLE files; CREATE TABLE files(rel)", "DELETE FROM snapshots", "DELETE FROM meta",
    "UPDATE snapshots SET digest = zeroblob(200000000)", "UPDATE files SET digest = hex(zeroblob(200000000))",
    "UPDATE snapshots SET rel = CAST('../users.json' AS BLOB)", "UPDATE files SET rel = CAST('../../x' AS BLOB)",
    "UPDATE snapshots SET name = CAST('../../outside/secret.json' AS BLOB) || hex(name)",
    "UPDATE snapshots SET name = CAST('_suspect/' AS BLOB) || name", "UPDATE snapshots SET doomed = 1",
    "UPDATE snapshots SET taken = 253402300799999", "UPDATE snapshots SET taken = -9000000000000000000 + size",
    "UPDATE snapshots SET grade = 'x'", "UPDATE snapshots SET size = -1, stored = -1", "UPDATE snapshots SET size = 'x'",
    "UPDATE snapshots SET digest = 0x31", "UPDATE snapshots SET stored = 9223372036854775807", "UPDATE snapshots SET pinned = 'a'",
    "UPDATE files SET since = 9223372036854775807", "UPDATE files SET grade = 'good', digest = '', heals = 1 << 62",
    "UPDATE files SET gave_up = 1, healed_grade = 'corrupt', healed = since, heals = 99",
    "UPDATE files SET inode = 1.5, size = 'x'", "UPDATE files SET shape_size = 1, root = 'null', records = -5",
    "INSERT INTO files SELECT CAST(printf('f%d.json', value) AS BLOB), 'good', 0, NULL, NULL, NULL, NULL, '', NULL, NULL, "
    "NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, 0, 0 FROM generate_series(1, 20000)",
    "UPDATE meta SET value = 'no' WHERE key = 'clean'", "UPDATE meta SET value = zeroblob(100000000)",
]  # fmt: skip


def plant_catalog(state: Path, dice: random.Random, turn: int) -> str:
    """Make the catalog a hostile one; return how, in words."""
    path = state / "catalog.sqlite3"
    if turn < len(HOSTILE_SQL) or dice.random() < 0.3:
        statements = HOSTILE_SQL[turn] if turn < len(HOSTILE_SQL) else ";".join(dice.sample(HOSTILE_SQL, 2))
        db = sqlite3.connect(path)
        with contextlib.suppress(sqlite3.Error), contextlib.closing(db):
            db.executescript(statements)
        return statements
    data = bytearray(path.read_bytes())
    how = dice.choice(["flipped", "cut", "garbage", "shuffled"])
    if how == "flipped":
        for _ in range(dice.randrange(1, 200)):
            data[dice.randrange(len(data))] = dice.randrange(256)
    elif how == "cut":
        del data[dice.randrange(len(data)) :]
    elif how == "garbage":
        data[dice.choice([0, 16, 100]) :] = dice.randbytes(9000)
    else:
        pages = [data[at : at + 4096] for at in range(0, len(data), 4096)]
        data = bytearray(b"".join([pages[0], *dice.sample(pages[1:], len(pages) - 1)]))
    for ending in ("-wal", "-shm"):
        (state / f"catalog.sqlite3{ending}").unlink(missing_ok=True)
    path.write_bytes(data)
    return f"{how} catalog"
