import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.announce import Announcer
from agent.core.decide import LeftWhy
from agent.core.errors import SpaceBudgetError
from agent.core.model import CaptureMode, FileState, Grade, HealAction, Reason, Snapshot
from agent.disk.walk import Skipped, SkipReason
from agent.logs import configure_logs
from agent.metrics import Metrics
from agent.outcome import Ending, Outcome
from agent.record import Recorder
from agent.recover import Recovered
from agent.rescan import Findings

REL = "users.json"
SNAPSHOT = Snapshot(REL, "users_backup_x.json", datetime(2026, 1, 1, tzinfo=UTC), "d", 1, Grade.GOOD, Reason.CHANGE)
FULL = OSError(28, "No space left on device", "/backups")


class Book:
    """A recorder whose lines and counts can be read."""

    def __init__(self) -> None:
        self.out = StringIO()
        configure_logs("json", "info", self.out)
        self.metrics = Metrics("1")
        self.recorder = Recorder(self.metrics)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    def total(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.metrics.expose()[1].decode())
        samples = (s for family in families for s in family.samples)
        return sum(s.value for s in samples if s.name == f"backup_agent_{name}" and labels.items() <= s.labels.items())


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.mark.parametrize(
    ("outcome", "event", "level", "metric", "labels"),
    [
        (Outcome(REL, Ending.PUBLISHED, grade=Grade.GOOD, snapshot=SNAPSHOT), "snapshot_published", "info", "snapshots_created_total", {"reason": "change"}),
        (Outcome(REL, Ending.UNREADABLE, grade=Grade.UNREADABLE, error=OSError(13, "Permission denied", REL)), "source_unreadable", "error", "captures_total", {"result": "unreadable"}),
        (Outcome(REL, Ending.REFUSED, grade=Grade.GOOD, error=FULL), "snapshot_refused", "error", "snapshots_refused_total", {"reason": "disk_full"}),
        (Outcome(REL, Ending.REFUSED, grade=Grade.GOOD, error=SpaceBudgetError("no room", hint="x")), "snapshot_refused", "error", "snapshots_refused_total", {"reason": "budget"}),
        (Outcome(REL, Ending.HEALED, grade=Grade.CORRUPT, action=HealAction.RESTORE, snapshot=SNAPSHOT), "source_restored", "warning", "heals_total", {"result": "ok"}),
        (Outcome(REL, Ending.HEAL_FAILED, grade=Grade.CORRUPT, error=FULL), "heal_failed", "error", "heals_total", {"result": "failed"}),
        (Outcome(REL, Ending.RACED, grade=Grade.CORRUPT, swap_undone=True), "heal_raced", "info", "swaps_undone_total", {}),
        (Outcome(REL, Ending.SKIPPED, grade=Grade.UNREADABLE, detail="symlink"), "source_skipped", "warning", "files_skipped_total", {"reason": "symlink"}),
        (Outcome(REL, Ending.LEFT, grade=Grade.CORRUPT, left_why=LeftWhy.GAVE_UP), "heal_gave_up", "error", "heals_total", {"result": "gave_up"}),
        (Outcome(REL, Ending.DAMAGED, grade=Grade.CORRUPT, attempt=2), "source_corrupt", "warning", "clobbered_total", {}),
    ],
)  # fmt: skip
def test_each_ending_is_one_line_and_one_count(
    book: Book, outcome: Outcome, event: str, level: str, metric: str, labels: dict[str, str]
) -> None:
    book.recorder.record(outcome)

    told = [line for line in book.lines() if line["event"] != "capture_mode_found"]
    assert [(line["event"], line["level"], line["file"]) for line in told] == [(event, level, REL)]
    assert book.total(metric, **labels) == 1


@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_can_be_told(book: Book, ending: Ending) -> None:
    book.recorder.record(Outcome(REL, ending, grade=Grade.CORRUPT, snapshot=SNAPSHOT, action=HealAction.RESTORE))


@pytest.mark.parametrize("why", list(LeftWhy))
def test_every_reason_to_leave_a_file_says_what_to_do(book: Book, why: LeftWhy) -> None:
    book.recorder.record(Outcome(REL, Ending.LEFT, grade=Grade.CORRUPT, left_why=why))

    assert book.lines()[0]["hint"]


def test_missing_file_is_told_at_the_end_of_its_grace_and_once(book: Book) -> None:
    """It was missing, and so no news, all through the grace: nothing was ever told of it."""
    left = Outcome(REL, Ending.LEFT, grade=Grade.MISSING, was=Grade.MISSING, is_news=False, left_why=LeftWhy.POLICY)

    book.recorder.record(left)
    book.recorder.record(left)
    assert [(line["event"], line["level"]) for line in book.lines()] == [("source_missing", "error")]

    book.recorder.record(Outcome(REL, Ending.UNCHANGED, grade=Grade.GOOD, was=Grade.GOOD))
    book.recorder.record(left)
    assert len(book.lines()) == 2


def test_skipped_file_is_told_once_for_each_reason(book: Book) -> None:
    for detail in ("symlink", "symlink", "not_regular"):
        book.recorder.record(Outcome(REL, Ending.SKIPPED, detail=detail))

    assert [line["reason"] for line in book.lines()] == ["symlink", "not_regular"]


@contextmanager
def announcing(book: Book) -> Iterator[Announcer]:
    yield Announcer(book.metrics, book.recorder, "/data")


def test_folder_that_is_away_is_told_once_and_again_when_it_is_back(book: Book) -> None:
    with announcing(book) as announce:
        for up in (True, False, False, True, True):
            announce.root(up=up)

    assert [line["event"] for line in book.lines()] == ["data_dir_missing", "data_dir_back"]
    assert book.total("data_dir_up") == 1


def test_hindrance_of_the_rescan_is_counted_each_time_and_told_once(book: Book) -> None:
    entry = Skipped("sub", SkipReason.UNREADABLE_FOLDER, PermissionError(13, "Permission denied", "sub"))
    with announcing(book) as announce:
        for found in ([entry], [entry], [], [entry]):
            announce.walk(Findings(skipped=found), took_s=0.1, at=1.0)

    assert [line["event"] for line in book.lines()] == ["rescan_hindered"] * 2
    assert book.lines()[0]["hint"]
    assert book.total("io_errors_total", operation="rescan") == 3


def test_snapshot_that_a_heal_passed_over_because_of_an_error_is_told_and_counted(book: Book) -> None:
    error = OSError(5, "Input/output error")
    outcome = Outcome(
        REL, Ending.HEALED, grade=Grade.CORRUPT, action=HealAction.RESTORE, snapshot=SNAPSHOT, error=error
    )

    book.recorder.record(outcome)

    assert book.lines()[0]["newer_unreadable"] == "EIO (Input/output error)"
    assert book.total("io_errors_total", operation="restore") == 1


def test_vanished_snapshots_are_counted_and_blamed(book: Book) -> None:
    with announcing(book) as announce:
        announce.recovered(Recovered(vanished=[SNAPSHOT]), None)

    assert [line["event"] for line in book.lines()] == ["snapshots_vanished"]
    assert book.total("snapshots_vanished_total") == 1


def test_journal_that_stays_long_is_told_and_counted(book: Book) -> None:
    with announcing(book) as announce:
        announce.journal_left_long(OSError(28, "No space left on device"))

    assert [line["event"] for line in book.lines()] == ["journal_not_shortened"]
    assert book.total("io_errors_total", operation="catalog") == 1


def test_reload_that_failed_is_told_with_its_problems(book: Book) -> None:
    with announcing(book) as announce:
        announce.reloaded(["line 1: unknown key"], at=1.0)

    assert book.lines()[0]["problems"] == ["line 1: unknown key"]
    assert book.total("config_last_reload_successful") == 0


def test_each_folder_counts_under_the_mode_of_its_last_capture_alone(book: Book) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    seen = [
        ("a/x.json", CaptureMode.LEASE), ("b/x.json", CaptureMode.LEASE), ("a/y.json", CaptureMode.LEASE),
        ("a/x.json", CaptureMode.SETTLE), ("c/x.json", CaptureMode.SETTLE), ("c/x.json", CaptureMode.LEASE),
    ]  # fmt: skip

    for rel, mode in seen:
        book.recorder.record(Outcome(rel, Ending.UNCHANGED, state=FileState(rel, Grade.GOOD, now, mode=mode)))

    assert book.total("capture_mode", mode="lease") == 2
    assert book.total("capture_mode", mode="settle") == 1
