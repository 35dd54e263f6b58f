from pathlib import Path

import pytest
from bench import USERS, Bench, document
from prometheus_client.parser import text_string_to_metric_families

from agent.core.model import Grade
from agent.metrics import Metrics
from agent.scrape import Scrape


class Page:
    def __init__(self, bench: Bench) -> None:
        self.metrics, self.pending = Metrics("1"), set[str]()
        self.scrape = Scrape(bench.ws, self.metrics, lambda: (len(self.pending), 7.0), self.pending.__contains__)

    def value(self, name: str, **labels: str) -> float | None:
        families = text_string_to_metric_families(self.metrics.expose()[1].decode())
        samples = (s for family in families for s in family.samples)
        found = (s.value for s in samples if s.name == f"backup_agent_{name}" and labels.items() <= s.labels.items())
        return next(found, None)

    def last_good(self) -> float | None:
        return self.value("file_last_good_timestamp_seconds", file=USERS)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    return bench


def test_good_file_that_a_rescan_found_unchanged_was_good_then(bench: Bench) -> None:
    page = Page(bench)
    bench.clock.advance(3600)
    page.scrape.walked_at = bench.clock.utc()

    assert page.last_good() == pytest.approx(bench.clock.utc().timestamp(), abs=0.01)


@pytest.mark.parametrize("why", ["pending", "hidden", "hidden root", "not good"])
def test_time_of_a_file_that_was_not_seen_good_stands_still(bench: Bench, why: str) -> None:
    page = Page(bench)
    before = page.last_good()
    bench.clock.advance(3600)
    page.scrape.walked_at = bench.clock.utc()
    if why == "pending":
        page.pending.add(USERS)
    elif why == "not good":
        bench.change_state(grade=Grade.SUSPECT)
    else:
        page.scrape.hidden = (f"{USERS}/",) if why == "hidden" else ("",)

    assert page.last_good() == before


def test_counts_are_those_of_the_catalog(bench: Bench) -> None:
    page = Page(bench)
    page.pending.update({"a", "b"})
    bench.write(b"{}")
    bench.look()
    page.scrape.overflow_count = 3

    assert page.value("snapshots", grade="good") == 1
    assert page.value("snapshots", grade="suspect") == 1
    assert page.value("files", grade="suspect") == 1
    assert page.value("pending_files") == 2
    assert page.value("watch_overflows_total") == 3
    assert page.value("watch_overflows_total") == 3
    assert (page.value("disk_free_bytes", dir="backup") or 0) > 0


def test_since_when_the_first_change_waits_is_told_as_a_time(bench: Bench) -> None:
    page = Page(bench)
    assert page.value("oldest_pending_timestamp_seconds") == 0

    page.pending.add(USERS)

    assert page.value("oldest_pending_timestamp_seconds") == pytest.approx(bench.clock.utc().timestamp() - 7, abs=0.01)
