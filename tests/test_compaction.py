"""The journal of a running daemon: it stays short, and whatever is needed to make the catalog anew stays in it."""

from datetime import timedelta
from pathlib import Path

import pytest
from bench import USERS, Bench, document

import agent.compaction as compaction_module
from agent.compaction import Compaction, shorten_journal
from agent.core.model import Grade, Shape
from agent.disk.rewrite import rewrite
from agent.recover import recover


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A journal of five lines is a long one; two snapshots of each file stay."""
    monkeypatch.setattr(compaction_module, "_SPARE_BYTES", 400)
    monkeypatch.setattr(compaction_module, "_BYTES_PER_SNAPSHOT", 200)
    keep = "{keep_last: 2, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}"
    bench = Bench(tmp_path, f"backup: {{min_free: none, retention: {keep}}}")
    recover(bench.ws)
    return bench


def compaction_of(bench: Bench) -> Compaction:
    def tell(error: Exception) -> None:
        raise error

    return Compaction(bench.ws, tell)


def size(bench: Bench) -> int:
    return bench.ws.journal.size_bytes()


def told(bench: Bench) -> list[str]:
    return [str(record["name"]) for record in bench.ws.journal.read("publish")]


def publish(bench: Bench, count: int, rel: str = USERS) -> None:
    for number in range(count):
        bench.protect(document(number % 7), rel)


def turn(compaction: Compaction, bench: Bench) -> bool:
    work = compaction.due(bench.clock.monotonic())
    if work is not None:
        work()
    bench.clock.advance(60)
    return work is not None


def shorten(compaction: Compaction, bench: Bench) -> None:
    """Enough turns that it happens, just once."""
    assert [turn(compaction, bench) for _ in range(5)].count(True) == 1


def lose_catalog(bench: Bench) -> None:
    bench.ws.close()
    for path in (bench.backups / ".agent").glob("catalog.sqlite3*"):
        path.unlink()
    bench.open()
    recover(bench.ws)


def test_journal_of_a_running_daemon_stays_short(bench: Bench) -> None:
    compaction, sizes = compaction_of(bench), []
    for _ in range(24):
        publish(bench, 2)
        turn(compaction, bench)
        sizes.append(size(bench))

    assert max(sizes[12:]) <= max(sizes[:12])


def test_short_journal_is_left_alone(bench: Bench) -> None:
    publish(bench, 3)

    assert not any(turn(compaction_of(bench), bench) for _ in range(5))
    assert len(told(bench)) == 3


def test_journal_is_shortened_again_only_when_as_much_has_come_again(bench: Bench) -> None:
    for number in range(3):
        publish(bench, 1, f"{number}.json")
    compaction = compaction_of(bench)
    publish(bench, 8)
    turns = [turn(compaction, bench) for _ in range(12)]

    assert turns.count(True) == 1


def test_what_was_written_in_the_last_minutes_is_kept_as_it_is(bench: Bench) -> None:
    """A snapshot told of may not have its row yet."""
    publish(bench, 8)
    compaction = compaction_of(bench)
    turn(compaction, bench)
    bench.ws.journal.append_durably({"op": "publish", "rel": USERS, "name": "on its way"})
    shorten(compaction, bench)

    assert told(bench)[-1] == "on its way"
    assert len(told(bench)) == 3


def test_time_alone_does_not_make_it_due(bench: Bench) -> None:
    """A machine that was suspended in the midst of a publish has a clock that went on."""
    publish(bench, 8)
    compaction = compaction_of(bench)
    turn(compaction, bench)
    bench.clock.advance(100_000)

    assert not turn(compaction, bench)


@pytest.mark.parametrize("when", ["running", "at a start"])
def test_catalog_made_anew_from_a_short_journal_is_the_same(bench: Bench, when: str) -> None:
    publish(bench, 8)
    bench.write(b"{}")
    bench.look()
    suspect = bench.ws.catalog.newest(USERS, Grade.SUSPECT)
    pinned = bench.ws.catalog.newest(USERS, Grade.GOOD)
    assert suspect is not None
    assert pinned is not None
    bench.ws.store.pin(pinned.name, pinned=True)
    bench.ws.catalog.pin(pinned.name, pinned=True)
    if when == "running":
        compaction = compaction_of(bench)
        shorten(compaction, bench)
    else:
        bench.clock.advance(7200)
        shorten_journal(bench.ws)
    before = bench.ws.catalog.snapshots(USERS)

    lose_catalog(bench)

    assert len(told(bench)) == len(before)
    assert bench.ws.catalog.snapshots(USERS) == before


def test_accept_after_the_mark_keeps_what_the_journal_tells_of_it(bench: Bench) -> None:
    """Its first record is gone by then, and what stands for it bears the new name."""
    publish(bench, 8)
    bench.write(b"{}")
    bench.look()
    suspect = bench.ws.catalog.newest(USERS, Grade.SUSPECT)
    assert suspect is not None
    compaction = compaction_of(bench)
    turn(compaction, bench)
    accepted = bench.ws.store.accept(suspect)
    bench.ws.catalog.remove_snapshots([suspect])
    bench.ws.catalog.add_snapshots([accepted])
    shorten(compaction, bench)

    lose_catalog(bench)

    assert bench.ws.catalog.snapshot_named(accepted.name) == accepted


def test_swap_is_remembered_where_the_disk_does_not_tell_of_its_staged_file(bench: Bench) -> None:
    (bench.data / "loop").symlink_to("loop")
    bench.ws.journal.append_durably({"op": "swap", "rel": USERS, "folder": str(bench.data / "loop"), "staged": "a.tmp"})
    publish(bench, 8)
    shorten(compaction_of(bench), bench)

    assert [record["rel"] for record in bench.ws.journal.read("swap")] == [USERS]


@pytest.mark.parametrize("is_left", [True, False])
def test_swap_is_remembered_for_as_long_as_its_staged_file_is_there(bench: Bench, is_left: bool) -> None:
    """A command was killed in a swap: the next start has to know whose bytes those are."""
    staged = bench.data / "temp/backup-agent-0011223344556677.tmp"
    staged.parent.mkdir(exist_ok=True)
    staged.write_bytes(document(9))
    bench.ws.journal.append_durably({"op": "swap", "rel": USERS, "folder": str(staged.parent), "staged": staged.name})
    publish(bench, 8)
    if not is_left:
        staged.unlink()
    compaction = compaction_of(bench)
    shorten(compaction, bench)

    assert [record["rel"] for record in bench.ws.journal.read("swap")] == [USERS] * is_left


def test_start_keeps_what_commands_may_have_on_its_way(bench: Bench) -> None:
    publish(bench, 8)
    bench.clock.advance(timedelta(hours=2).total_seconds())
    bench.protect(document(8))
    bench.ws.journal.append_durably({"op": "publish", "rel": USERS, "name": "on its way"})

    shorten_journal(bench.ws)

    assert len(told(bench)) == 4
    assert told(bench)[-1] == "on its way"


def test_accept_that_was_cut_short_is_remembered(bench: Bench) -> None:
    publish(bench, 8)
    bench.write(b"{}")
    bench.look()
    suspect = bench.ws.catalog.newest(USERS, Grade.SUSPECT)
    assert suspect is not None
    accepted = bench.ws.store.accept(suspect)  # and killed before the catalog knew
    shorten(compaction_of(bench), bench)

    lose_catalog(bench)

    assert bench.ws.catalog.snapshot_named(accepted.name) == accepted


@pytest.mark.parametrize(("known", "lines"), [(False, 1), (True, 0)])
def test_erasure_is_remembered_until_the_catalog_knows_of_it(bench: Bench, known: bool, lines: int) -> None:
    publish(bench, 8)
    snapshot = bench.ws.catalog.snapshots(USERS)[0]
    text, shape = document(7), Shape(len(document(7)), "object", 8)
    after = rewrite(bench.ws.store, bench.ws.journal, snapshot, text, grade=Grade.GOOD, shape=shape)
    if known:
        bench.ws.catalog.add_snapshots([after])
    shorten(compaction_of(bench), bench)

    assert len(list(bench.ws.journal.read("erase"))) == lines
    lose_catalog(bench)
    assert bench.ws.catalog.snapshot_named(snapshot.name) == after


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_journal_that_cannot_be_shortened_is_as_it_was_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    publish(bench, 8)
    before = told(bench)
    failures: list[Exception] = []
    compaction = Compaction(bench.ws, failures.append)

    with monkeypatch.context() as broken:
        broken.setattr(f"os.{step}", fail)
        shorten(compaction, bench)
    kept = told(bench)
    shorten(compaction, bench)

    assert kept == before
    assert [str(failure) for failure in failures] == ["[Errno 28] No space left on device"]
    assert len(told(bench)) == 2
