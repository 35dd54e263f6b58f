"""The operations of the running service, in a forked child; a thread in it plays the bot and the operator."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from invariants import Expected
from subject import (
    DAMAGE,
    GUILD,
    SETTINGS,
    USERS,
    Operation,
    Place,
    all_kept,
    crowd,
    digests,
    document,
    expect,
    from_one_to_two,
    protected,
)
from syscalls import mark, stand_aside

from agent.config import load_config
from agent.core.errors import AgentError
from agent.logs import configure_logs
from agent.metrics import Metrics
from agent.service import Service
from agent.workspace import SystemClock

_PATIENCE_S = 2.5  # waited for in full only where the blow keeps it from coming
_READY_S = 6.0  # a back-off or two after an error that passes; what does not pass is waited for in vain


def serve(place: Place, during: Callable[[Metrics], None], config_name: str = "agent.yaml") -> int:
    """As `_serve`; what ends it is told as the command line tells it."""
    try:
        return _serve(place, during, config_name)
    except AgentError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _serve(place: Place, during: Callable[[Metrics], None], config_name: str) -> int:
    """Run the service until it is ready and `during` is over, then ask it to stop; its metrics are left in `side`."""
    metrics, path = Metrics("torture"), str(place.root / config_name)

    def apply(_config: object) -> None:
        configure_logs("json", "info", sys.stderr, on_drop=metrics.log_lines_dropped.inc)

    def load() -> Any:
        return load_config(path, None, os.environ)

    config = load()
    apply(config)
    service = Service(config, metrics, SystemClock(), reload=load, apply=apply)

    def play() -> None:
        stand_aside()
        try:
            if _holds(lambda: service.readiness() is None):
                during(metrics)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=play, daemon=True).start()
    try:
        return service.run()
    finally:
        (place.side / "metrics").write_bytes(metrics.expose()[1])


def _holds(fact: Callable[[], bool], limit_s: float = _READY_S) -> bool:
    """Whether it came true in time; asks memory only, so that asking is no system call on files."""
    deadline = time.monotonic() + limit_s * crowd()
    while time.monotonic() < deadline:
        if fact():
            return True
        time.sleep(0.002)
    return False


def _value(metrics: Metrics, name: str) -> float:
    """The sum of all samples of one metric."""
    lines = metrics.expose()[1].decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


# first start


def _three_files(place: Place) -> None:
    place.configure()
    for number, rel in enumerate((USERS, SETTINGS, GUILD), 1):
        place.write(rel, document(number))


def _three(place: Place, *, protected: bool) -> Expected:
    shown = dict(zip((USERS, SETTINGS, GUILD), digests(document(1), document(2), document(3)), strict=True))
    good = {rel: [digest] for rel, digest in shown.items()} if protected else {}
    return expect(place, {rel: (digest,) for rel, digest in shown.items()}, good)


FIRST_START = Operation(
    "first start",
    _three_files,
    lambda place: serve(place, lambda _: None),
    lambda place: _three(place, protected=False),
    lambda place: _three(place, protected=True),
    lambda place: all_kept(place, USERS, SETTINGS, GUILD),
    is_service=True,
)


# the running service


def _leave_pending(place: Place) -> int:
    def during(metrics: Metrics) -> None:
        for rel in (USERS, SETTINGS, GUILD):
            place.write(rel, document(2))
        _holds(lambda: _value(metrics, "backup_agent_watch_events_total") >= 3, limit_s=_PATIENCE_S)
        mark()

    return serve(place, during, "slow.yaml")


def _slow(place: Place) -> None:
    """A service that takes its time: what the bot writes is pending when it is told to stop."""
    protected(place)
    place.configure("slow.yaml", watch={"debounce": "30s", "rescan": "1h"})
    place.know(document(2))


def _busy(place: Place) -> None:
    protected(place)
    place.know(document(2), DAMAGE)


FLUSH = Operation(
    "shutdown flush",
    _slow,
    _leave_pending,
    lambda place: from_one_to_two(place, mended=False),
    lambda place: from_one_to_two(place, mended=True),
    lambda place: all_kept(place, USERS, SETTINGS, GUILD),
    from_mark=True,
    is_service=True,
)


def _reload_and_change(place: Place) -> int:
    """SIGHUP with another config, then a change and a damage in the running service."""

    def during(metrics: Metrics) -> None:
        before = _value(metrics, "backup_agent_config_last_reload_success_timestamp_seconds")
        place.configure(watch={"debounce": "10ms", "rescan": "1h"}, shutdown_timeout="9s")
        mark()
        os.kill(os.getpid(), signal.SIGHUP)
        reloaded = "backup_agent_config_last_reload_success"
        _holds(
            lambda: _value(metrics, f"{reloaded}_timestamp_seconds") != before or not _value(metrics, f"{reloaded}ful"),
            limit_s=_PATIENCE_S,
        )
        for rel in (USERS, SETTINGS, GUILD):
            place.write(rel, document(2))
        _holds(lambda: metrics_created(metrics) >= 3, limit_s=_PATIENCE_S)
        place.write(SETTINGS, DAMAGE)
        _holds(lambda: _value(metrics, "backup_agent_heals_total") >= 1, limit_s=_PATIENCE_S)

    return serve(place, during)


def metrics_created(metrics: Metrics) -> float:
    return _value(metrics, "backup_agent_snapshots_created_total")


def _reloaded(place: Place, *, mended: bool) -> Expected:
    one, two, bad = digests(document(1), document(2), DAMAGE)
    rels = (USERS, SETTINGS, GUILD)
    if mended:
        return expect(place, dict.fromkeys(rels, (one, two)), {rel: [one, two] for rel in rels})
    return expect(place, dict.fromkeys(rels, (one, two, bad)), {rel: [one, two] for rel in rels})


RELOAD = Operation(
    "reload, change, heal",
    _busy,
    _reload_and_change,
    lambda place: _reloaded(place, mended=False),
    lambda place: _reloaded(place, mended=True),
    lambda place: all_kept(place, USERS, SETTINGS, GUILD) and (place.data / SETTINGS).read_bytes() == document(2),
    from_mark=True,
    is_service=True,
)

SERVICES = (FIRST_START, FLUSH, RELOAD)
