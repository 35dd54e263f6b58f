import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.labels import Folder, HealResult, Skip
from agent.core.model import CaptureMode, Grade, HealAction, Reason
from agent.core.problem import ProblemKind
from agent.metrics import Metrics
from agent.metrics.client import Metric

# What dashboards and alerts are built on: each family with the label values that are there from the start.
SERIES = {
    "build_info": {"version"},
    "files": {"grade"},
    "snapshots": {"grade"},
    "snapshot_bytes": set(),
    "snapshots_created_total": {"reason"},
    "snapshots_vanished_total": set(),
    "snapshots_refused_total": {"reason"},
    "snapshots_deleted_total": {"reason"},
    "captures_total": {"result"},
    "check_failures_total": {"kind"},
    "heals_total": {"action", "result"},
    "quarantined_total": set(),
    "oldest_pending_timestamp_seconds": set(),
    "pending_files": set(),
    "watcher_up": set(),
    "watch_events_total": {"kind"},
    "watch_overflows_total": set(),
    "rescan_last_success_timestamp_seconds": set(),
    "rescan_duration_seconds": set(),
    "capture_mode": {"mode"},
    "disk_free_bytes": {"dir"},
    "config_last_reload_successful": set(),
    "config_last_reload_success_timestamp_seconds": set(),
    "protect_duration_seconds_count": set(),
    "heal_duration_seconds_count": set(),
    "io_errors_total": {"operation"},
    "files_skipped_total": {"reason"},
    "files_given_up": set(),
    "data_dir_up": set(),
    "leases_broken_total": set(),
    "swaps_undone_total": set(),
    "rollbacks_seen_total": set(),
    "clobbered_total": set(),
    "ready": set(),
    "file_labels_dropped": set(),
    "log_lines_dropped_total": set(),
    "refresh_failures_total": set(),
    "http_failures_total": {"reason"},
}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a scrape of the plain format says, by name (without the prefix) and labels."""
    from prometheus_client.parser import text_string_to_metric_families

    families: Callable[[str], Iterable[Metric]] = text_string_to_metric_families
    text = metrics.expose()[1].decode()
    return {
        (sample.name.removeprefix("backup_agent_"), frozenset(sample.labels.items())): sample.value
        for family in families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_every_series_is_there_from_the_start() -> None:
    found: dict[str, set[str]] = {}
    for name, labels in samples(Metrics("1.2.3")):
        found.setdefault(name, set()).update(label for label, _ in labels)

    missing = {name: labels for name, labels in SERIES.items() if found.get(name) != labels}

    assert not missing
    assert not [name for name in found if name.endswith("_created")]
    assert "process_resident_memory_bytes" in found


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("files", "grade", Grade),
        ("snapshots_created_total", "reason", Reason),
        ("capture_mode", "mode", CaptureMode),
        ("check_failures_total", "kind", [*ProblemKind, "other"]),
        ("files_skipped_total", "reason", Skip),
    ],
)
def test_every_label_value_is_exported_as_zero_at_start(name: str, label: str, values: list[str]) -> None:
    metrics = Metrics("1")

    assert {str(v): value(metrics, name, **{label: str(v)}) for v in values} == {str(v): 0.0 for v in values}


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    metrics = Metrics("1")
    metrics.set_file_times('users "\\\n\udce9.json', 1.0, None)

    verdict = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.expose()[1], capture_output=True, check=False
    )

    assert (verdict.returncode, verdict.stdout, verdict.stderr) == (0, b"", b"")


def test_plain_format_is_the_one_the_library_writes() -> None:
    from prometheus_client.exposition import generate_latest

    metrics = Metrics("1")
    metrics.snapshots_created.inc(Reason.CHANGE, 3)
    metrics.protect_duration.observe(0.02)
    metrics.set_file_times('a"b\\c\nd', 1.5, 2.5)

    written, expected = metrics.expose()[1], generate_latest(metrics._registry)

    assert ours(written) == ours(expected)


def ours(text: bytes) -> bytes:
    """Leave out the process metrics, which move between two looks."""
    return b"".join(line for line in text.splitlines(keepends=True) if b"process_" not in line)


def test_openmetrics_format_is_read_by_its_own_parser() -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    families: Callable[[str], Iterable[Metric]] = text_string_to_metric_families
    content_type, text = Metrics("1").expose(openmetrics=True)

    assert content_type.startswith("application/openmetrics-text")
    assert "backup_agent_heals" in {family.name for family in families(text.decode())}


def test_two_instances_share_nothing() -> None:
    first, second = Metrics("1"), Metrics("2")

    first.quarantined.inc()
    first.disk_free_bytes.set(Folder.DATA, 5)

    assert value(first, "quarantined_total") == 1
    assert value(second, "quarantined_total") == 0
    assert value(second, "disk_free_bytes", dir="data") == 0


def test_heal_is_counted_by_action_and_result() -> None:
    metrics = Metrics("1")

    metrics.count_heal(HealAction.REPAIR, HealResult.RACED)

    assert value(metrics, "heals_total", action="repair", result="raced") == 1


def test_problem_of_an_unknown_kind_counts_as_other() -> None:
    metrics = Metrics("1")

    metrics.count_check_failure("users.json is broken")
    metrics.count_check_failure(ProblemKind.TRUNCATED)

    assert value(metrics, "check_failures_total", kind="other") == 1
    assert value(metrics, "check_failures_total", kind="truncated") == 1


def test_grade_that_is_no_longer_there_goes_back_to_zero() -> None:
    metrics = Metrics("1")

    metrics.set_snapshots({Grade.GOOD: 3, Grade.SUSPECT: 1}, stored_bytes=4096)
    metrics.set_snapshots({Grade.GOOD: 2}, stored_bytes=2048)

    assert value(metrics, "snapshots", grade="good") == 2
    assert value(metrics, "snapshots", grade="suspect") == 0
    assert value(metrics, "snapshot_bytes") == 2048


def test_file_that_was_never_good_shows_the_beginning_of_time() -> None:
    metrics = Metrics("1")

    metrics.set_file_times("users.json", None, 12.5)

    assert value(metrics, "file_last_good_timestamp_seconds", file="users.json") == 0
    assert value(metrics, "file_last_snapshot_timestamp_seconds", file="users.json") == 12.5


def test_forgotten_file_has_no_series_and_makes_room() -> None:
    metrics = Metrics("1")
    metrics.limit_file_labels(named=[], others_max=1)
    metrics.set_file_times("a.json", 1, 1)

    metrics.forget_file("a.json")
    metrics.forget_file("never.json")
    metrics.set_file_times("b.json", 2, 2)

    assert value(metrics, "file_last_good_timestamp_seconds", file="a.json") is None
    assert value(metrics, "file_last_good_timestamp_seconds", file="b.json") == 2


def test_forgotten_file_that_the_config_names_makes_no_room_for_others() -> None:
    metrics = Metrics("1")
    metrics.limit_file_labels(named=["users.json"], others_max=1)
    metrics.set_file_times("users.json", 1, 1)
    metrics.set_file_times("a.json", 1, 1)

    metrics.forget_file("users.json")
    metrics.set_file_times("b.json", 1, 1)

    assert value(metrics, "file_last_good_timestamp_seconds", file="b.json") is None


def test_files_beyond_the_cap_are_left_out_and_told() -> None:
    metrics = Metrics("1")
    metrics.limit_file_labels(named=["users.json"], others_max=2)
    metrics.set_files({Grade.GOOD: 4, Grade.CORRUPT: 1})

    for rel in ("a.json", "b.json", "c.json", "d.json", "users.json"):
        metrics.set_file_times(rel, 1, 1)

    shown = {dict(labels)["file"] for name, labels in samples(metrics) if name == "file_last_good_timestamp_seconds"}
    assert shown == {"a.json", "b.json", "users.json"}
    assert value(metrics, "file_labels_dropped") == 2


def test_file_that_the_config_no_longer_names_counts_among_the_others() -> None:
    metrics = Metrics("1")
    metrics.limit_file_labels(named=["users.json"], others_max=1)
    metrics.set_file_times("users.json", 1, 1)

    metrics.limit_file_labels(named=[], others_max=1)
    metrics.set_file_times("b.json", 1, 1)

    assert value(metrics, "file_last_good_timestamp_seconds", file="users.json") == 1
    assert value(metrics, "file_last_good_timestamp_seconds", file="b.json") is None


names = st.text(min_size=1, max_size=12) | st.binary(min_size=1, max_size=12).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@given(st.dictionaries(names, st.integers(1, 1000), max_size=8))
def test_any_file_name_keeps_its_own_series(times: dict[str, int]) -> None:
    metrics = Metrics("1")
    for rel, moment in times.items():
        metrics.set_file_times(rel, moment, moment)

    found = [number for (name, _), number in samples(metrics).items() if name == "file_last_good_timestamp_seconds"]

    assert sorted(found) == sorted(times.values())


def test_values_are_refreshed_right_before_each_scrape() -> None:
    metrics = Metrics("1")
    metrics.on_scrape(metrics.pending_files.inc)

    metrics.expose()

    assert value(metrics, "pending_files") == 2


def fail() -> None:
    raise LookupError


def test_refresh_that_raises_costs_neither_the_scrape_nor_the_next_refresh() -> None:
    metrics = Metrics("1")
    metrics.on_scrape(fail)
    metrics.on_scrape(lambda: metrics.pending_files.set(7))

    assert value(metrics, "pending_files") == 7
    assert value(metrics, "refresh_failures_total") == 2


def test_refresh_that_hangs_holds_up_no_other_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.metrics._REFRESH_WAIT_S", 0.01)
    metrics = Metrics("1")
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        release.wait(30)

    metrics.on_scrape(hang)
    hanging = threading.Thread(target=metrics.expose)
    hanging.start()
    entered.wait(30)

    text = metrics.expose()[1]
    release.set()
    hanging.join()

    assert b"backup_agent_refresh_failures_total 1.0" in text


def test_what_the_daemon_never_uses_is_not_loaded() -> None:
    script = (
        "import sys, agent.logs, agent.metrics, agent.web, agent.notify\n"
        "print(*{'asyncio', 'rich', 'ssl', 'http.server', 'urllib.request', 'email', 'wsgiref'} & sys.modules.keys())\n"
        "import asyncio, prometheus_client, prometheus_client.exposition\n"
        "assert asyncio.run and prometheus_client.Counter and prometheus_client.generate_latest\n"
    )

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "", "")
