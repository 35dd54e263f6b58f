from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

import pytest
from bench import USERS, Bench, document

from agent import verifying
from agent.config import load_config
from agent.core.settle import Due
from agent.lanes import Lanes
from agent.metrics import Metrics
from agent.outcome import Outcome
from agent.scrape import Scrape
from agent.verify_report import Report, last_results
from agent.verifying import Verifying

DAY_S = 86400.0


class OneThread(Lanes):
    """Runs every job at once, on the thread that asks for it."""

    def __init__(self) -> None:
        self.count = 0

    def fly(
        self,
        dues: Sequence[Due],
        work: Callable[[], list[Outcome]],
        *,
        now: float,
        quick: bool = False,
        heal: bool = False,
        calm: bool = False,
    ) -> None:
        self.count += 1
        work()


class Guard:
    """A folder with one snapshot, and its verification as the loop would drive it."""

    def __init__(self, tmp_path: Path, settings: str = "") -> None:
        self.bench = Bench(tmp_path, settings)
        self.bench.protect(document(1))
        self.told: list[Report] = []
        self.lanes = OneThread()
        self.start()

    def start(self) -> None:
        """What a start of the agent begins with."""
        self.verifying = Verifying(self.bench.ws, self.lanes, lambda report, _: self.told.append(report))
        self.verifying.turn(self.bench.clock.monotonic())

    def wait_s(self) -> float:
        return self.verifying.next_at - self.bench.clock.monotonic()

    def next_report(self) -> Report:
        count = len(self.told)
        for _ in range(20):
            self.bench.clock.advance(max(0.0, self.wait_s()))
            self.verifying.turn(self.bench.clock.monotonic())
            if len(self.told) > count:
                return self.told[-1]
        raise AssertionError("it never ended")

    def metric(self, name: str) -> float:
        metrics = Metrics("0")
        Scrape(self.bench.ws, metrics, lambda: (0, 0.0), lambda _: False)
        lines = metrics.expose()[1].decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_everything_is_read_back_and_drilled_once_a_day(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    assert DAY_S - 61 < guard.wait_s() <= DAY_S

    report = guard.next_report()

    assert (report.file_count, report.snapshot_count, report.drilled_count, report.failures) == (1, 1, 1, [])
    assert DAY_S - 1 < guard.wait_s() <= DAY_S
    now = guard.bench.clock.utc().timestamp()
    assert guard.metric("backup_agent_verify_last_success_timestamp_seconds") == pytest.approx(now)
    assert guard.metric("backup_agent_drill_last_success_timestamp_seconds") == pytest.approx(now)
    assert guard.metric("backup_agent_verify_failures") == 0


def test_rot_is_told_and_does_not_count_as_a_success(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    guard.next_report()
    before = last_results(guard.bench.ws.catalog)
    (snapshot,) = guard.bench.ws.catalog.snapshots(USERS)
    (guard.bench.backups / snapshot.name).write_bytes(b"rotten")

    report = guard.next_report()

    assert sorted(finding.kind for finding in report.failures) == ["no_restore_point", "rotten"]
    assert guard.metric("backup_agent_verify_failures") == 2
    assert guard.metric("backup_agent_verify_last_success_timestamp_seconds") == pytest.approx(before.verified_at)
    assert guard.bench.ws.catalog.snapshots(USERS) == [snapshot]


def test_starts_do_not_put_it_off(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    guard.bench.clock.advance(DAY_S - 100)

    guard.start()

    assert guard.wait_s() <= 100
    guard.bench.clock.advance(DAY_S)
    guard.start()
    assert guard.wait_s() == 60  # what was missed is made up for, once the start is over


def test_a_clock_that_was_set_back_puts_it_off_for_one_interval_at_most(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    guard.next_report()
    guard.bench.clock.jump(-100 * DAY_S)

    guard.start()

    assert guard.wait_s() == DAY_S


def test_it_goes_on_in_slices_with_pauses_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(tmp_path)
    monkeypatch.setattr(verifying, "_SLICE_S", 0.0)

    guard.next_report()

    assert guard.lanes.count == 4  # the live file, its drill, its snapshot, the end


def test_it_ends_in_the_middle_of_a_file_when_the_agent_stops(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    guard.bench.clock.advance(guard.wait_s())
    guard.bench.write(document(2))
    guard.bench.look()

    guard.verifying.stop()
    guard.verifying.turn(guard.bench.clock.monotonic())

    assert (guard.told, guard.lanes.count) == ([], 0)
    guard.verifying._slice()  # one that was under way
    assert guard.told == []
    assert last_results(guard.bench.ws.catalog).ended_at == 0


def test_it_may_be_switched_off_and_on_while_running(tmp_path: Path) -> None:
    guard = Guard(tmp_path, "verify: {every: off}")
    assert guard.wait_s() == inf

    guard.bench.config.write_text(guard.bench.config.read_text().replace("every: off", "every: 2h, drill: false"))
    guard.bench.ws.adopt_config(load_config(str(guard.bench.config), None, {}))
    guard.verifying.adopt_config()

    assert 0 < guard.wait_s() <= 7200
    assert guard.next_report().drilled_count == 0


def test_a_data_folder_that_is_gone_is_tried_again_later(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    guard.bench.data.rename(tmp_path / "elsewhere")
    guard.bench.clock.advance(guard.wait_s())

    guard.verifying.turn(guard.bench.clock.monotonic())

    assert guard.told == []
    assert guard.wait_s() == 600
