import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.core.errors import FormatVersionError
from agent.core.model import CaptureMode, FileState, Grade, Ownership, Reason, Shape, Signature, Snapshot
from agent.disk.catalog import Catalog
from agent.disk.database import CATALOG_NAME, set_aside

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
REL = "sub/caf\udce9.json"


def snap(n: int = 0, *, rel: str = REL, grade: Grade = Grade.GOOD, **changes: Any) -> Snapshot:
    given: dict[str, Any] = {
        "name": f"{rel}_backup_{n:04}", "taken_at": NOON + timedelta(milliseconds=n), "digest": f"{n:064x}",
        "size_bytes": 10, "reason": Reason.CHANGE, "shape": Shape(10, "object", 3), "stored_bytes": 7, **changes,
    }  # fmt: skip
    return Snapshot(rel=rel, grade=grade, **given)


def full_state(rel: str = REL) -> FileState:
    return FileState(
        rel, Grade.SUSPECT, NOON, Signature(2**64 - 1, 2**40, -5, 2**62), "ab" * 32, Shape(9, "array", None),
        Ownership(2**32 - 2, 7, 0o640), CaptureMode.LEASE, NOON, NOON + timedelta(milliseconds=1), 3, NOON,
        healed_grade=Grade.CORRUPT, gave_up=True,
    )  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(str(tmp_path))
    yield catalog
    catalog.close()


def test_state_comes_back_whole(catalog: Catalog) -> None:
    bare = FileState("bare.json", Grade.MISSING, NOON)

    catalog.save_files([full_state(), bare])

    assert catalog.file(REL) == full_state()
    assert catalog.file("bare.json") == bare
    signatures = [("bare.json", Grade.MISSING, None), (REL, Grade.SUSPECT, full_state().signature)]
    assert list(catalog.signatures(page=1)) == signatures
    assert catalog.not_good() == ["bare.json", REL]
    assert catalog.files() == [bare, full_state()]
    assert catalog.count_files() == {Grade.SUSPECT: 1, Grade.MISSING: 1}
    assert catalog.count_given_up() == 1


def test_snapshots_come_back_newest_first(catalog: Catalog) -> None:
    first, second, bare = snap(1), snap(2, pinned=True), snap(3, shape=None, grade=Grade.SUSPECT)

    catalog.add_snapshots([second, bare, first])

    assert catalog.snapshots(REL) == [bare, second, first]
    assert (catalog.newest(REL), catalog.newest(REL, Grade.GOOD)) == (bare, second)
    assert catalog.snapshot_named(first.name) == first
    assert catalog.count_snapshots() == ({Grade.GOOD: 2, Grade.SUSPECT: 1}, 21)


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_pages_join_without_gap_or_overlap(catalog: Catalog, page: int) -> None:
    snapshots = [snap(n, rel=rel, name=f"{rel}{n}") for rel in ("a", "b") for n in range(3)]
    catalog.add_snapshots(snapshots)

    assert list(catalog.all_snapshots(page)) == snapshots
    assert list(catalog.oldest_first(page)) == sorted(snapshots, key=lambda s: (s.taken_at, s.name))


def test_doomed_snapshots_are_out_of_sight_until_removed(catalog: Catalog) -> None:
    catalog.add_snapshots([snap(1), snap(2)])

    catalog.doom([snap(1)])

    assert catalog.snapshots(REL) == [snap(2)]
    assert catalog.snapshot_named(snap(1).name) is None
    assert catalog.doomed() == [snap(1)]
    catalog.remove_snapshots([snap(1)])
    assert catalog.doomed() == []


def test_failed_block_leaves_nothing_and_the_next_one_counts(catalog: Catalog, tmp_path: Path) -> None:
    def break_off() -> None:
        with catalog.transaction():
            catalog.add_snapshots([snap(1)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    catalog.add_snapshots([snap(2)])

    with closing(Catalog(str(tmp_path))) as other:
        assert other.snapshots(REL) == [snap(2)]


class FailingCommit:
    """A connection whose first commit finds the disk full."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real, self._failed = real, False

    def execute(self, sql: str, *values: object) -> object:
        if sql == "COMMIT" and not self._failed:
            self._failed = True
            raise sqlite3.OperationalError("database or disk is full")
        return self._real.execute(sql, *values)  # type: ignore[arg-type]  # passed through

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_commit_that_fails_is_not_taken_for_an_open_transaction(catalog: Catalog, tmp_path: Path) -> None:
    """Otherwise every later change would be a part of it, and none would ever be committed."""
    catalog._db = FailingCommit(catalog._db)  # type: ignore[assignment]  # a fake around the real one

    with pytest.raises(sqlite3.OperationalError, match="full"):
        catalog.add_snapshots([snap(1)])
    catalog.add_snapshots([snap(2)])

    with closing(Catalog(str(tmp_path))) as other:
        assert other.snapshots(REL) == [snap(2)]


def test_reader_sees_the_old_state_while_a_writer_is_at_work(catalog: Catalog, tmp_path: Path) -> None:
    catalog.add_snapshots([snap(1)])
    with closing(Catalog(str(tmp_path))) as reader:
        with catalog.transaction():
            catalog.add_snapshots([snap(2)])
            during = reader.snapshots(REL)
        after = reader.snapshots(REL)

    assert (during, after) == ([snap(1)], [snap(2), snap(1)])


OPEN_AND_ADD = """
import sys
from datetime import UTC, datetime, timedelta
from agent.core.model import FileState, Grade
from agent.disk.catalog import Catalog
catalog = Catalog(sys.argv[1])
for n in range(50):
    catalog.save_files([FileState(f"{sys.argv[2]}-{n}", Grade.GOOD, datetime.now(UTC))])
"""


def test_processes_that_begin_at_once_share_one_catalog(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", OPEN_AND_ADD, str(tmp_path), str(n)] for n in range(4)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert errors == [""] * 4
    with closing(Catalog(str(tmp_path))) as catalog:
        assert len(catalog.files()) == 200
        assert catalog.is_whole()


def test_threads_share_one_catalog(catalog: Catalog) -> None:
    def work(who: int) -> None:
        for n in range(20):
            catalog.save_files([FileState(f"{who}-{n}", Grade.GOOD, NOON)])

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(catalog.files()) == 80


def test_catalog_of_before_there_were_folders_knows_those_of_its_files(tmp_path: Path) -> None:
    old = Catalog(str(tmp_path))
    old.save_files([full_state(), full_state("top.json")])
    old.close()
    with closing(sqlite3.connect(tmp_path / CATALOG_NAME)) as database:
        database.execute("DROP TABLE folders")

    catalog = Catalog(str(tmp_path))

    assert list(catalog.known_folders(page=1)) == [{"": (0, None)}, {"sub": (0, None)}]
    catalog.close()


# damaged or hostile


@pytest.mark.parametrize("content", [b"not a database" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_random_bytes_are_a_damaged_catalog_that_can_be_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CATALOG_NAME).write_bytes(content)
    before = set(os.listdir("/proc/self/fd"))

    with pytest.raises(sqlite3.DatabaseError) as caught:
        Catalog(str(tmp_path))
    kept = set_aside(str(tmp_path), "now")

    assert not isinstance(caught.value, sqlite3.OperationalError)
    assert Path(kept).read_bytes() == content
    assert set(os.listdir("/proc/self/fd")) <= before
    with closing(Catalog(str(tmp_path))) as fresh:
        assert fresh.files() == []


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE files(x)",
        "CREATE TABLE snapshots(rel, taken)",
        "CREATE VIEW files AS SELECT 1 AS rel",
        "CREATE TABLE meta(x)",
    ],
)
def test_wrong_schema_is_a_damaged_catalog(tmp_path: Path, schema: str) -> None:
    with closing(sqlite3.connect(tmp_path / CATALOG_NAME)) as db:
        db.execute(schema)

    with pytest.raises(sqlite3.DatabaseError) as caught:
        Catalog(str(tmp_path))

    assert not isinstance(caught.value, sqlite3.OperationalError)


def test_newer_format_is_refused_and_unchanged(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / CATALOG_NAME)) as db:
        db.execute("PRAGMA user_version=99")
    before = (tmp_path / CATALOG_NAME).read_bytes()

    with pytest.raises(FormatVersionError, match="99"):
        Catalog(str(tmp_path))

    assert (tmp_path / CATALOG_NAME).read_bytes() == before


@pytest.mark.parametrize("where", ["", "-wal", "-shm"])
def test_link_in_the_place_of_the_catalog_is_not_written_through(tmp_path: Path, where: str) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir()
    victim.write_bytes(b"")
    (state / f"{CATALOG_NAME}{where}").symlink_to(victim)

    try:
        with closing(Catalog(str(state))) as catalog:
            catalog.add_snapshots([snap(1)])
    except (OSError, sqlite3.Error):
        pass

    assert victim.read_bytes() == b""


@pytest.mark.parametrize("value", ["'text'", "9223372036854775807", "-9223372036854775808", "1.5", "x'00'"])
@pytest.mark.parametrize(
    "column", ["taken", "size", "stored", "records", "pinned", "digest", "grade", "reason", "root"]
)
def test_value_of_the_wrong_kind_in_a_snapshot_is_a_damaged_catalog_or_harmless(
    catalog: Catalog, column: str, value: str
) -> None:
    catalog.add_snapshots([snap(1)])
    catalog._db.execute(f"UPDATE snapshots SET {column}={value}")

    for ask in (
        lambda: catalog.snapshots(REL),
        lambda: list(catalog.all_snapshots()),
        lambda: list(catalog.oldest_first()),
        catalog.count_snapshots,
    ):
        found = told_or_damaged(ask)
        assert not isinstance(found, sqlite3.OperationalError)
        assert_typed(found)


def told_or_damaged(ask: Callable[[], object]) -> object:
    """What the catalog tells, or the error that says that it is damaged."""
    try:
        return ask()
    except sqlite3.DatabaseError as error:
        return error


def assert_typed(found: object) -> None:
    for s in found if isinstance(found, list) else []:
        assert isinstance(s.digest, str)
        assert all(isinstance(n, int) for n in (s.size_bytes, s.stored_bytes))
        assert s.shape is None or isinstance(s.shape.records, int | None)


@pytest.mark.parametrize("column", ["name", "rel"])
@pytest.mark.parametrize(
    "value", [b"../../etc/passwd", b"/etc/passwd", b"", b"a//b", b"./x", b"a\x00b", "users.json", 5], ids=repr
)
def test_path_that_leads_out_of_its_folder_is_a_damaged_catalog(catalog: Catalog, column: str, value: object) -> None:
    catalog.add_snapshots([snap(1)])
    catalog._db.execute(f"UPDATE snapshots SET {column}=?", (value,))

    for tell in (catalog.all_snapshots, catalog.oldest_first):
        if tell == catalog.all_snapshots and not isinstance(value, bytes) and column == "rel":
            continue  # such a row sorts before all paths and is never told of
        with pytest.raises(sqlite3.DatabaseError, match="none of ours"):
            list(tell())


@pytest.mark.parametrize("value", ["'text'", "9223372036854775807", "1.5", "x'00'", "NULL"])
@pytest.mark.parametrize(
    "column",
    ["since", "inode", "size", "digest", "shape_size", "root", "records", "uid", "gid", "perm", "capture_mode",
     "last_good", "last_snapshot", "heals", "healed", "healed_grade", "gave_up", "grade"],
)  # fmt: skip
def test_value_of_the_wrong_kind_in_a_state_is_a_damaged_catalog_or_harmless(
    catalog: Catalog, column: str, value: str
) -> None:
    catalog.save_files([full_state()])
    try:
        catalog._db.execute(f"UPDATE files SET {column}={value}")
    except sqlite3.IntegrityError:
        return  # the schema forbids it

    for ask in (
        lambda: catalog.file(REL),
        catalog.files,
        lambda: list(catalog.signatures()),
        catalog.count_files,
        lambda: list(catalog.signatures_in("sub")),
    ):
        assert not isinstance(told_or_damaged(ask), sqlite3.OperationalError)


def test_catalog_that_was_replaced_is_told(catalog: Catalog, tmp_path: Path) -> None:
    before = catalog.is_in_place()
    (tmp_path / CATALOG_NAME).unlink()

    assert (before, catalog.is_in_place()) == (True, False)


def test_notes_and_pins_are_kept(catalog: Catalog) -> None:
    catalog.add_snapshots([snap(1)])

    catalog.set_note("clean", "yes")
    catalog.pin(snap(1).name, pinned=True)

    assert (catalog.note("clean"), catalog.note("other")) == ("yes", None)
    assert catalog.snapshots(REL)[0].pinned


def test_pin_is_flushed_before_it_is_told(catalog: Catalog) -> None:
    """What is only in the page cache goes with a power cut; the journal is not asked about copies that are known."""
    catalog.add_snapshots([snap()])
    statements: list[str] = []
    catalog._db.set_trace_callback(statements.append)

    catalog.pin(snap().name, pinned=True)

    order = [s for s in statements if "synchronous" in s or s == "COMMIT"]
    assert order == ["PRAGMA synchronous=FULL", "COMMIT", "PRAGMA synchronous=NORMAL"]


@pytest.mark.parametrize(
    "planted",
    [
        "DROP TABLE snapshots; CREATE VIEW snapshots AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
        "SELECT x AS rel, x AS taken, x AS name, x AS digest, x AS size, x AS stored, x AS grade, x AS reason, x AS root, "
        "x AS records, 0 AS pinned, 0 AS doomed FROM n",
        "CREATE TRIGGER planted AFTER INSERT ON files BEGIN DELETE FROM snapshots; END",
    ],
)
def test_view_or_trigger_says_that_the_catalog_is_none_of_ours(tmp_path: Path, planted: str) -> None:
    Catalog(str(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / CATALOG_NAME)) as db:
        db.executescript(planted)

    with pytest.raises(sqlite3.DatabaseError, match="none of ours"):
        Catalog(str(tmp_path))


def test_value_of_many_megabytes_is_damage_and_not_memory(tmp_path: Path) -> None:
    catalog = Catalog(str(tmp_path))
    catalog.set_note("clean", "yes")
    with closing(sqlite3.connect(tmp_path / CATALOG_NAME)) as db:
        db.execute("UPDATE meta SET value = zeroblob(5000000)")
        db.commit()

    with pytest.raises(sqlite3.DatabaseError):
        catalog.note("clean")
    catalog.close()


@pytest.mark.parametrize(
    "ask",
    [
        Catalog.count_files,
        Catalog.count_given_up,
        Catalog.count_snapshots,
        Catalog.doomed,
        lambda catalog: catalog.count_missing(since=NOON),
    ],
)
def test_what_each_scrape_and_start_asks_reads_no_table_as_a_whole(
    catalog: Catalog, ask: Callable[[Catalog], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over 100,000 files such a question took most of a second."""
    asked: list[tuple[str, Sequence[object]]] = []
    monkeypatch.setattr(catalog, "_read", lambda sql, values=(): asked.append((sql, values)) or [(0, 0, 0)])
    with contextlib.suppress(sqlite3.DatabaseError):  # that is no row
        ask(catalog)
    monkeypatch.undo()

    plan = [row[3] for sql, values in asked for row in catalog._read(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert asked
    # There are few references, one for many snapshots.
    assert all("INDEX" in step for step in plan if step != "SCAN packs"), plan
