"""Bad input from every side: names, configs, texts to repair, journals, catalogs, and whole backup folders.

Each part runs in a child with limited memory and time.  Promised: no crash, no hang, nothing good that `JSON.parse`
refuses, nothing written outside of the agent's folders, and nothing planted is ever restored.  That the check and the
runtimes agree is shown by tests/checks/test_json_runtimes.py (`-m torture`: a million texts).

    python tests/torture/bad_input.py --count 5000 --seed 1
    python tests/torture/bad_input.py --part folder --count 300 --seed 7 --user 1234
"""

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "checks"))  # its texts and its judge are those of this torture too
sys.path.insert(0, str(Path(__file__).parent))

import plant_texts
import plants
from test_json_runtimes import NODE, document, mutated, read_by_node, read_by_python, texts

from agent.checks import check
from agent.checks.schema_errors import schema_errors
from agent.config import InvalidConfigError, load_config
from agent.core.copies import parse_foreign
from agent.core.errors import AgentError
from agent.core.json_text import Document, read_document
from agent.core.model import CheckSpec, Grade, Parser
from agent.core.naming import Kind, belongs_to, display, parse_name, snapshot_name
from agent.core.reading import sole_reading
from agent.core.repair import SchemaError, repair_fields

HERE = Path(__file__).parent
MEMORY_BYTES = 1536 * 1024**2  # of address space: the interpreter and its libraries take a third
LIMIT_S = 20.0  # for one case
WHOLE = 1000  # from this count on the heavy cases are part of it
PARTS: dict[str, Callable[[random.Random, int], None]] = {}


def part(work: Callable[[random.Random, int], None]) -> Callable[[random.Random, int], None]:
    PARTS[work.__name__] = work
    return work


def timed(cases: Iterator[object]) -> None:
    """Take one case after the other; none may take very long, in processor time: the machine may be busy."""
    while True:
        began = time.process_time()
        case = next(cases, None)
        took_s = time.process_time() - began
        assert took_s < LIMIT_S, f"{took_s:.0f} s for {case!r:.200}"
        if case is None:
            return


@part
def names(dice: random.Random, count: int) -> None:
    """Whatever a name says, the data file it stands for lies below the folder, and the way back is exact."""
    for _ in range(count):
        name = plant_texts.name(dice)
        parsed, foreign = parse_name(name), parse_foreign(name)
        for rel in (parsed.rel if parsed else None, foreign[0] if foreign else None):
            assert rel is None or is_below(rel), (name, rel)
        if parsed and parsed.rel is not None:
            again = snapshot_name(parsed.rel, parsed.taken_at, parsed.kind, parsed.compression_suffix)
            assert again == name
            assert belongs_to(name, parsed.rel)
        try:
            made = snapshot_name(name, datetime(2026, 1, 1, tzinfo=UTC), dice.choice(list(Kind)))
        except ValueError:
            made = "x"
        assert is_below(made), (name, made)
        assert display(name).isprintable() or any(joiner in name for joiner in "\u200c\u200d")


def is_below(rel: str) -> bool:
    return not rel.startswith("/") and all(p not in ("", ".", "..") for p in rel.split("/")) and "\0" not in rel


@part
def config(dice: random.Random, count: int) -> None:
    """A config is used or refused with its places, whatever it holds."""
    example = (HERE.parents[1] / "config.example.yaml").read_bytes()
    bombs = plant_texts.yaml_bombs()

    def cases() -> Iterator[bytes]:
        for turn in range(count // 20 + len(bombs)):
            text = bombs[turn] if turn < len(bombs) else plant_texts.yaml_text(dice, example)
            path = Path("config.yaml")
            path.write_bytes(text)
            try:
                load_config(str(path), None, {"HOME": "/nowhere"})
            except InvalidConfigError as error:
                assert error.problems  # noqa: PT017  # other errors are to come through
            yield text

    timed(cases())


@part
def reading(dice: random.Random, count: int) -> None:
    """What a repair makes of corrupt bytes is read by every judge; what a parser reads is not repaired."""
    mended: dict[Parser, list[bytes]] = {parser: [] for parser in Parser}

    def cases() -> Iterator[bytes]:
        heavy = plant_texts.heavy_texts() if count >= WHOLE else []
        samples = [*heavy, *texts(count, seed=dice.randrange(1 << 30))]
        for sample in samples:
            whole = json.dumps(document(dice)).encode("utf-8", "surrogatepass")
            variants = [sample, whole + sample, whole + mutated(dice, whole), sample.decode("latin1").encode("utf-16")]
            for text in variants[: 1 if len(sample) > 100_000 else None]:
                for parser in Parser:
                    found = sole_reading(text, parser=parser)
                    if found is not None:
                        assert check(text, CheckSpec(parser=parser)).grade is not Grade.GOOD, text
                        assert check(found.data, CheckSpec(parser=parser)).grade is Grade.GOOD, text
                        mended[parser].append(found.data)
            yield sample

    timed(cases())
    assert all(map(read_by_python, mended[Parser.PYTHON] + mended[Parser.STRICT]))
    judged_by_node(mended[Parser.NODE] + mended[Parser.STRICT])


def judged_by_node(samples: list[bytes]) -> None:
    if NODE is None:
        return
    refused = [s for s, verdict in zip(samples, read_by_node(samples), strict=True) if not verdict] if samples else []
    assert refused == [], f"{len(refused)} of {len(samples)} results that Node refuses, such as {refused[0]!r:.300}"


@part
def repair(dice: random.Random, count: int) -> None:
    """A repaired document keeps its schema and is read by Node; odd schemas and odd texts end without a result."""
    mended: list[bytes] = []

    def cases() -> Iterator[bytes]:
        for _ in range(count // 4):
            schema = plant_texts.schema(dice)
            data = json.dumps(document(dice, 5)).encode("utf-8", "surrogatepass")
            data = mutated(dice, data) if dice.random() < 0.3 else data
            older = json.dumps(document(dice, 5)).encode("utf-8", "surrogatepass") if dice.random() < 0.7 else None
            errors = partial(errors_of, schema)
            try:
                found = repair_fields(data, schema, older, find_errors=errors)
            except RecursionError:
                raise AssertionError(f"recursion without end: {data!r} {schema!r}") from None
            if found is not None:
                assert errors(found.data) == [], (data, schema)
                json.loads(found.patch)
                mended.append(found.data)
            yield data

    timed(cases())
    whole = [data for data in mended if isinstance(read_document(data, constants=False), Document)]
    judged_by_node(whole)


def errors_of(schema: Mapping[str, object], text: bytes) -> Sequence[SchemaError]:
    return schema_errors(text, schema)


@part
def folder(dice: random.Random, count: int) -> None:
    """A hostile backup folder: the agent starts or refuses, heals with its own copies only, and writes nowhere else."""

    def cases() -> Iterator[str]:
        for turn in range(max(4, count // 40)):
            with tempfile.TemporaryDirectory(prefix="hostile-", dir=".") as made:
                place = plants.Place(Path(made).resolve())
                place.protect()
                planted = plants.plant(place, dice, every=turn == 0)
                outside = place.outside_now()
                place.damage()
                said = start_and_heal(place)
                assert place.outside_now() == outside, f"written outside: {planted}"
                live = place.users.read_bytes()
                assert live in (plants.GOOD, plants.NEWER, plants.DAMAGED), f"{live!r:.100} was restored: {planted}"
                assert said or live == plants.NEWER, f"not healed, and nothing said: {planted}"
                genuine = [path for path in place.backups.glob("users_backup_*.json") if path.name in place.genuine]
                assert len(genuine) == len(place.genuine), f"a good snapshot went: {planted}"
                yield planted

    timed(cases())


@part
def huge(dice: random.Random, count: int) -> None:
    """A data file of nothing but opening brackets, a gigabyte of them: told of, and left or healed."""
    size = 1 << 30 if count >= WHOLE else 8 << 20
    with tempfile.TemporaryDirectory(prefix="huge-", dir=".") as made:
        place = plants.Place(Path(made).resolve())
        place.protect()
        (place.root / "agent.yaml").write_text("data_dir: data\nwatch: {debounce: 0}\nmetrics: {listen: off}\n")
        for opening in (b"[", b'{"a":'):
            with place.users.open("wb") as stream:
                for _ in range(size >> 20):
                    stream.write(opening * ((1 << 20) // len(opening)))
            said = start_and_heal(place)
            healed = place.users.read_bytes()[:100] == plants.NEWER[:100]
            assert said or healed, "not healed, and nothing said"
            place.users.write_bytes(plants.NEWER)


def start_and_heal(place: "plants.Place") -> str:
    """Return what the agent said when it could not start or not heal; '' when it healed."""
    try:
        return place.heal()
    except (AgentError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    except sqlite3.OperationalError as error:
        return str(error)


@part
def catalog(dice: random.Random, count: int) -> None:
    """A catalog of any content is used, or set aside and made anew; what it says of a good state is checked again."""

    def cases() -> Iterator[str]:
        for turn in range(max(4, count // 40)):
            with tempfile.TemporaryDirectory(prefix="catalog-", dir=".") as made:
                place = plants.Place(Path(made).resolve())
                place.protect()
                planted = plants.plant_catalog(place.state, dice, turn)
                place.damage()
                said = start_and_heal(place)
                if not said:
                    said = start_and_heal(place)
                live = place.users.read_bytes()
                assert live in (plants.GOOD, plants.NEWER, plants.DAMAGED), f"{live!r:.100} was restored: {planted}"
                assert said or live in (plants.GOOD, plants.NEWER), f"not healed, and nothing said: {planted}"
                yield planted

    timed(cases())


def run_child(name: str, given: argparse.Namespace) -> str:
    """Run one part with its limits; return '' or what went wrong."""
    scratch = tempfile.mkdtemp(prefix=f"bad-{name}-", dir=given.folder)
    command = [sys.executable, str(Path(__file__).resolve()), "--child", name]
    command += ["--count", str(given.count), "--seed", str(given.seed)]
    if given.user is not None:
        os.chown(scratch, given.user, given.user)
    who = {"user": given.user, "group": given.user, "extra_groups": []} if given.user is not None else {}
    environ = {**os.environ, "HOME": scratch, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=given.limit, preexec_fn=bounded, check=False,
            env=environ, **who,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"hung for {given.limit:g} s"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode == 0:
        return ""
    return f"ended with {done.returncode}: {done.stderr.strip()[-1500:]}"


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--count", type=int, default=5000, help="texts; the slower parts take a share of it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--user", type=int, help="run as this user id")
    parser.add_argument("--limit", type=float, default=1200, help="seconds for each part")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", choices=list(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    given = parse()
    if given.child:
        PARTS[given.child](random.Random(given.seed), given.count)
        return 0
    broken = 0
    for name in PARTS if given.part == "all" else [given.part]:
        began = time.monotonic()
        wrong = run_child(name, given)
        broken += bool(wrong)
        who = f" as user {given.user}" if given.user is not None else ""
        print(f"{name}{who}: {wrong or 'kept'}; seed {given.seed}, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{broken} parts broken")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
