"""The rounds of the daemon with a clock that is told and a watcher that sees nothing: rescans find every change."""

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench, document

import agent.compaction as compaction_module
from agent.announce import Announcer
from agent.config import load_config
from agent.core.decide import LeftWhy
from agent.core.model import FileState, Grade
from agent.disk.catalog import Catalog
from agent.disk.hints import Hints
from agent.logs import configure_logs
from agent.metrics import Metrics
from agent.outcome import Ending
from agent.record import Recorder
from agent.recover import recover
from agent.rounds import Rounds

POLLING = "watch: {mode: polling}"


class Days:
    """The rounds of one bench; `pass_s` lets time go by as the loop would see it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        recover(bench.ws)
        metrics = Metrics("1")
        recorder = Recorder(metrics)
        announce = Announcer(metrics, recorder, str(bench.data))
        self.reopened = 0
        self.rounds = Rounds(
            bench.ws, metrics, announce, recorder, wake=lambda: None, reopen=self._reopen, progress=lambda: None
        )

    def _reopen(self) -> None:
        self.reopened += 1
        self.bench.ws.reopen_catalog()
        recover(self.bench.ws)

    def pass_s(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(int(seconds / step_s)):
            self.bench.clock.advance(step_s)
            self.rounds.once()
            self.rounds.land(list(self.rounds.lanes.finish()))

    def close(self) -> None:
        self.rounds.lanes.close()


@pytest.fixture
def days(tmp_path: Path) -> Iterator[Days]:
    days = Days(Bench(tmp_path, POLLING + "\nfiles: [{path: users.json, required: true}]"))
    yield days
    days.close()


def test_change_is_found_and_protected(days: Days) -> None:
    days.bench.write(document(1))

    days.pass_s(60)

    assert days.bench.stored() == [document(1)]


def test_damage_is_healed(days: Days) -> None:
    days.bench.write(document(1))
    days.pass_s(60)
    days.bench.write(DAMAGE)

    days.pass_s(60)

    assert (days.bench.data / USERS).read_bytes() == document(1)


def test_lone_damage_is_healed_once_and_by_the_look_that_found_it(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    days.bench.write(document(1))
    days.pass_s(60)
    monkeypatch.setattr(days.rounds.healer, "heal", lambda *_, **__: pytest.fail("healed by a job of its own"))
    days.bench.write(DAMAGE)

    days.pass_s(60)

    assert (days.bench.data / USERS).read_bytes() == document(1)
    assert days.bench.stored(grade=Grade.CORRUPT) == [DAMAGE]


def test_debounce_counts_from_the_change_and_not_from_the_word_of_it(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    days.bench.write(document(1))
    hints = Hints(frozenset({USERS}), frozenset(), frozenset(), {}, age_s=days.bench.ws.config.watch.debounce_s)
    monkeypatch.setattr(days.rounds.watcher, "drain", lambda: hints)
    monkeypatch.setattr(days.rounds.patrol, "turn", lambda _: None)  # it would find the change now

    days.rounds.once()
    days.rounds.land(list(days.rounds.lanes.finish()))

    assert days.bench.stored() == [document(1)]


def test_required_file_is_back_after_its_grace(days: Days) -> None:
    days.bench.write(document(1))
    days.pass_s(60)
    (days.bench.data / USERS).unlink()

    days.pass_s(60)

    assert (days.bench.data / USERS).read_bytes() == document(1)


def test_folder_that_went_and_came_back_is_guarded_again(days: Days) -> None:
    bench = days.bench
    bench.write(document(1))
    days.pass_s(60)
    os.rename(bench.data, bench.base / "away")
    days.pass_s(60)
    assert not bench.data.exists()

    os.rename(bench.base / "away", bench.data)
    bench.write(document(2))
    days.pass_s(60)

    assert bench.stored() == [document(2), document(1)]


def test_file_that_was_pending_when_the_config_left_it_out_is_missed_when_it_counts_again(days: Days) -> None:
    bench, rounds = days.bench, days.rounds
    for rel in ("a.json", "b.json"):
        bench.write(document(1), rel)
    days.pass_s(60)
    before, text = bench.ws.config, bench.config.read_text()
    bench.config.write_text(text.replace("{mode: polling}", "{mode: polling, exclude: [a.json]}"))
    bench.write(document(2), "a.json")
    rounds.settler.note("a.json", bench.clock.monotonic())
    bench.ws.adopt_config(load_config(str(bench.config), None, {}))
    rounds.adopt_config(before)
    days.pass_s(60)
    (bench.data / "a.json").unlink()

    left_out = bench.ws.config
    bench.ws.adopt_config(before)
    rounds.adopt_config(left_out)
    days.pass_s(60)

    state = bench.ws.catalog.file("a.json")
    assert state is not None
    assert state.grade is Grade.MISSING


def test_reload_while_the_catalog_cannot_be_read_is_carried_out_once_it_can(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, before = days.bench, days.bench.ws.config
    bench.write(document(1))
    bench.write(document(1), "a.json")
    days.pass_s(60)

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    schema = "{path: a.json, on_invalid: alert, schema: {type: array}}"
    bench.config.write_text(bench.config.read_text().replace("files: [", f"verify: {{every: 1d}}\nfiles: [{schema}, "))
    bench.ws.adopt_config(load_config(str(bench.config), None, {}))
    with monkeypatch.context() as broken:
        broken.setattr(bench.ws.catalog, "_read", refuse)
        days.rounds.adopt_config(before)
    days.pass_s(120)

    state = bench.ws.catalog.file("a.json")
    assert state is not None
    assert state.grade is Grade.INVALID


def test_portion_that_is_safe_is_told_of_although_the_catalog_fails_in_a_later_one(
    days: Days, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promise 7: what was published has its log line, whatever becomes of the rest of its batch."""
    configure_logs("json", "info", sys.stderr)
    monkeypatch.setattr("agent.portion.PORTION_FILES", 2)
    catalog, saved = days.bench.ws.catalog, 0
    save = catalog.save_files

    def fail_once(states: Iterable[FileState]) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise sqlite3.OperationalError("disk I/O error")
        save(states)

    rels = [f"{n}.json" for n in range(5)]
    for rel in rels:
        days.bench.write(document(1), rel)
    monkeypatch.setattr(catalog, "save_files", fail_once)
    days.pass_s(60)

    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert sorted(e["file"] for e in events if e["event"] == "snapshot_published") == rels
    assert [e["event"] for e in events if e["level"] == "error"] == ["catalog_failed"]


def test_refused_snapshot_is_tried_again_with_growing_pauses(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, tries = days.bench, 0

    def full(fd: int) -> None:
        nonlocal tries
        tries += 1
        raise OSError(28, "No space left on device")

    bench.write(document(1))
    monkeypatch.setattr(os, "fsync", full)
    days.pass_s(300)
    monkeypatch.undo()
    assert 5 <= tries <= 60

    days.pass_s(90)
    assert bench.stored() == [document(1)]


def test_backup_folder_that_was_deleted_is_made_and_filled_again(days: Days) -> None:
    bench = days.bench
    bench.write(document(1))
    days.pass_s(60)
    shutil.rmtree(bench.backups)

    days.pass_s(120)

    assert days.reopened == 1
    assert bench.stored() == [document(1)]


def test_backup_folder_that_cannot_be_opened_does_not_end_the_rounds(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = days.bench
    bench.write(document(1))
    days.pass_s(60)
    shutil.rmtree(bench.backups)
    bench.backups.write_bytes(b"no folder")
    days.pass_s(60)

    bench.backups.unlink()
    days.pass_s(180)

    assert bench.stored() == [document(1)]


def test_bot_that_does_not_start_is_started_later(tmp_path: Path) -> None:
    well = tmp_path / "well"
    start = f"[sh, -c, 'echo start >> {tmp_path}/calls; test -e {well}']"
    days = Days(Bench(tmp_path, f"{POLLING}\nbot: {{stop: ['true'], start: {start}}}"))
    days.bench.write(document(1))
    days.pass_s(60)
    days.bench.write(DAMAGE)
    days.pass_s(60)
    failed = len((tmp_path / "calls").read_text().split())
    assert 2 <= failed < 10

    well.touch()
    days.pass_s(300)
    days.close()

    assert len((tmp_path / "calls").read_text().split()) == failed + 1


def test_last_snapshots_take_what_is_pending_and_what_no_event_told(days: Days) -> None:
    bench = days.bench
    bench.write(document(1))
    bench.write(document(2), "bank.json")

    days.rounds.last_snapshots()

    assert bench.stored() == [document(1)]
    assert bench.stored("bank.json") == [document(2)]


def test_catalog_that_a_walk_finds_damaged_is_made_anew_and_everything_looked_at(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    days.bench.protect(document(1))
    real, failures = Catalog.known_folders, [sqlite3.DatabaseError("database disk image is malformed")]

    def fail(catalog: Catalog) -> object:
        if failures:
            raise failures.pop()
        return real(catalog)

    monkeypatch.setattr(Catalog, "known_folders", fail)
    days.bench.write(document(2))
    days.pass_s(60)

    assert days.reopened == 1
    assert days.bench.stored() == [document(2), document(1)]


def test_change_during_a_long_walk_does_not_wait_for_its_end(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.slices._SLICE_S", 0.0)
    monkeypatch.setattr("agent.disk.walk.BATCH_ENTRIES", 1)
    for rel in ("a.json", "b.json", "c.json"):
        days.bench.write(document(1), rel)
    days.bench.write(document(2))
    days.rounds.once()
    assert days.rounds.idle_s() == 0, "the walk goes on"

    days.rounds.settler.note(USERS, days.bench.clock.monotonic() - 60)
    days.rounds.once()

    assert days.rounds.lanes.files() == {USERS}
    assert 0 < days.rounds.idle_s() < 0.1, "and is not at its end, but leaves the change its turn"
    days.pass_s(60)
    assert days.bench.stored("c.json") == [document(1)]


def test_journal_is_kept_short_however_far_apart_the_walks_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks of a busy machine were twenty minutes apart, and the journal grew as long."""
    monkeypatch.setattr(compaction_module, "_SPARE_BYTES", 1000)
    days = Days(Bench(tmp_path, "watch: {mode: polling, rescan: 24h}"))
    try:
        gone = {"op": "publish", "name": "gone", "rel": "gone.json", "digest": "0" * 64, "size": 1}
        days.bench.ws.journal.append_durably(*[gone] * 100)

        days.pass_s(300, step_s=5)

        assert days.bench.ws.journal.size_bytes() == 0
    finally:
        days.close()


def test_file_that_is_being_written_at_the_end_is_told(days: Days, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no snapshot of its last change, and only the next start would find out."""
    configure_logs("json", "info", sys.stderr)
    days.bench.write(document(1))
    with (days.bench.data / USERS).open("r+b"):
        days.rounds.last_snapshots()

    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["files"] for event in events if event["event"] == "changes_left_pending"] == [[USERS]]


@pytest.mark.parametrize("rule", ["{path: users.json, required: true}", "{path: '*.json', required: true}"])
def test_empty_mount_point_is_not_believed_after_a_week_and_gets_no_file(tmp_path: Path, rule: str) -> None:
    """It has no more than one file to miss, so that most files at once says nothing."""
    bench = Bench(tmp_path, f"{POLLING}\nfiles: [{rule}]")
    days = Days(bench)
    bench.write(document(1))
    days.pass_s(120, step_s=10)
    assert len(bench.stored()) == 1
    bench.data.rename(tmp_path / "unmounted")
    bench.data.mkdir()
    days.pass_s(9 * 86400, step_s=7200)
    days.close()

    bench.open()
    outcome = bench.look(at_gate=True, waited_s=60)[0]

    assert (outcome.ending, outcome.left_why) == (Ending.LEFT, LeftWhy.MASS)
    assert os.listdir(bench.data) == []
