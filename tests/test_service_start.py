"""What is seen of a long start from outside."""

import errno
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import Bench, document

from agent.announce import Announcer
from agent.config import Config
from agent.disk.lock import DaemonLock, daemon_pid, is_recovering
from agent.hold import Hold
from agent.logs import configure_logs
from agent.metrics import Metrics
from agent.patience import Patience
from agent.record import Recorder
from agent.recover import Recovered, recover
from agent.service import Service
from agent.workspace import Workspace


def test_start_that_takes_long_says_every_few_seconds_how_far_it_is(tmp_path: Path) -> None:
    bench, log = Bench(tmp_path), io.StringIO()
    patience = Patience(Metrics("1"), bench.clock)
    configure_logs("json", "info", log)
    for _ in range(300):
        bench.clock.advance(0.1)
        patience.ask()

    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {line["event"] for line in told} == {"gate_advanced"}
    assert 4 <= len(told) <= 6
    assert [line["looks"] for line in told] == sorted({line["looks"] for line in told})


@pytest.mark.parametrize(("files", "warned"), [(0, True), (1, False)])
def test_agent_that_has_nothing_to_guard_says_so(tmp_path: Path, files: int, warned: bool) -> None:
    log, metrics = io.StringIO(), Metrics("1")
    configure_logs("json", "info", log)

    Announcer(metrics, Recorder(metrics), str(tmp_path)).started(files, at=0.0)

    events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert ("service_without_files" in events) is warned


def test_full_disk_at_the_start_costs_what_commands_may_know_and_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    bench = Bench(tmp_path)
    metrics, config = Metrics("1"), bench.ws.config
    announce = Announcer(metrics, Recorder(metrics), config.data_dir)
    hold = Hold(config, bench.clock, Patience(metrics, bench.clock), announce, dict)
    monkeypatch.setattr(DaemonLock, "tell", full)

    assert hold.take()

    assert daemon_pid(config.state_dir) == os.getpid()
    hold.give_up()


def test_commands_wait_until_the_catalog_is_in_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    metrics, config = Metrics("1"), bench.ws.config
    patience = Patience(metrics, bench.clock)
    hold = Hold(config, bench.clock, patience, Announcer(metrics, Recorder(metrics), config.data_dir), dict)

    assert hold.take()
    at_first = is_recovering(config.state_dir)
    hold.recover()
    in_order = not is_recovering(config.state_dir)
    patience.stop(signal.SIGTERM)
    hold.take_anew()  # told to stop: it is cut short
    in_the_end = is_recovering(config.state_dir)
    hold.give_up()

    assert (at_first, in_order, in_the_end) == (True, True, True)
    assert not is_recovering(config.state_dir)


def test_reload_that_cannot_read_anything_leaves_the_agent_running(tmp_path: Path) -> None:
    """The folder it was started in was replaced by a deploy: getcwd() failed, and SIGHUP ended the agent."""

    def reload() -> Config:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    bench, log = Bench(tmp_path), io.StringIO()
    service = Service(bench.ws.config, Metrics("1"), bench.clock, reload=reload, apply=lambda _: None)
    service._rounds = SimpleNamespace(patrol=SimpleNamespace(rescan=()))  # type: ignore[assignment]  # all it asks for
    configure_logs("json", "info", log)

    service._reload_config()

    assert "config_reload_failed" in log.getvalue()


@pytest.mark.parametrize("comes_first", [True, False])
def test_stop_before_the_catalog_agrees_with_the_folder_takes_no_snapshot_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_first: bool
) -> None:
    """A collapsed file was published as good, because none of its good snapshots was known yet."""
    bench = Bench(tmp_path, "watch: {mode: polling}")
    bench.protect(document(1))
    bench.ws.close()
    for path in bench.backups.glob(".agent/catalog*"):
        path.unlink()
    bench.write(b"{}")
    service = Service(bench.ws.config, Metrics("1"), bench.clock, reload=lambda: bench.ws.config, apply=lambda _: None)

    def stopped(ws: Workspace, go_on: Callable[[], bool]) -> Recovered:
        service._patience.stop_asked = True
        return recover(ws, go_on)

    monkeypatch.setattr("agent.recover.recover", stopped)
    assert service._hold.take()
    service._ws = service._hold.ws
    service._patience.stop_asked = comes_first
    assert service._prepare()
    service._start()
    service._shut_down()
    service._hold.give_up()

    bench.open()
    recover(bench.ws)
    assert bench.stored() == [document(1)]
