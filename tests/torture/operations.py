"""The operations that are killed and starved: for each the folder it begins with, what is run, and what may come of it.

Each runs in a forked child through the same code that the command line and the service use.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invariants import ABSENT, Expected, digest_of
from syscalls import mark, stand_aside

from agent.cli import build_parser, main
from agent.config import load_config
from agent.logs import configure_logs
from agent.metrics import Metrics
from agent.service import Service
from agent.workspace import SystemClock

USERS, SETTINGS, GUILD = "users.json", "settings.json", "guilds/42.json"
MODES = {USERS: 0o640, SETTINGS: 0o600, GUILD: 0o644}
_READY_S = 20.0
build_parser()  # a forked child finds every module loaded, also when its source was changed meanwhile
_CONFIG: dict[str, Any] = {
    "watch": {"debounce": 0, "rescan": "1h"},
    "recovery": {"missing_grace": 0, "swap_grace": 0},
    "backup": {"min_free": "none"},
    "metrics": {"listen": "off"},
    "log": {"format": "json"},
    "files": [{"path": USERS, "required": True}],
}


def document(number: int, records: int = 12) -> bytes:
    """A good state; all have the same shape, so that none looks collapsed beside another."""
    return json.dumps({f"user {i}": {"cartridge": number * 1000 + i} for i in range(records)}, indent=1).encode()


DAMAGE = document(2)[:150]
EMPTIED = b"{}"


@dataclass
class Place:
    """`root` holds the data folder and the config; `side` lies beside it and takes what a run says."""

    root: Path
    side: Path
    states: dict[str, bytes] = field(default_factory=dict)  # all that was ever written to a data file, by digest

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def backups(self) -> Path:
        return self.data / "backups"

    @property
    def said(self) -> str:
        return (self.side / "said").read_text(errors="replace")

    def configure(self, name: str = "agent.yaml", **sections: Any) -> None:
        merged = {**_CONFIG, "data_dir": str(self.data)}
        for key, section in sections.items():
            merged[key] = {**merged.get(key, {}), **section} if isinstance(section, dict) else section
        (self.root / name).write_text(json.dumps(merged))

    def write(self, rel: str, data: bytes) -> str:
        """The data file shows `data`, as a careful bot writes; return its digest."""
        path, staged = self.data / rel, self.data / ".bot"
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(data)
        staged.chmod(MODES.get(rel, 0o640))
        self.states[digest_of(data)] = data
        staged.rename(path)
        return digest_of(data)

    def know(self, *states: bytes) -> None:
        """These states will be written in another process."""
        self.states |= {digest_of(state): state for state in states}

    def agent(self, *words: str) -> int:
        return main([*words, "--config", str(self.root / "agent.yaml")])

    def copies(self, rel: str = USERS, kind: str = "backup") -> list[Path]:
        stem = Path(rel).stem
        return sorted(p for p in self.backups.rglob(f"{stem}_{kind}_*") if p.is_file())

    def dress(self, rels: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        return {rel: (os.geteuid(), os.getegid(), MODES.get(rel, 0o640)) for rel in rels}


@dataclass(frozen=True)
class Operation:
    """`prepare` leaves a folder to begin with, `act` returns an exit code; `fault` and `mended` tell what may be seen.

    `fault` holds right after the operation was cut short, `mended` once a start went to its end.  `done` says whether
    the operation had its effect.  `restarts` are the exit codes of that start.
    """

    name: str
    prepare: Callable[[Place], None]
    act: Callable[[Place], int]
    fault: Callable[[Place], Expected]
    mended: Callable[[Place], Expected]
    done: Callable[[Place], bool]
    from_mark: bool = False
    is_service: bool = False
    restarts: frozenset[int] = frozenset({0})
    ends: frozenset[int] = frozenset({0})  # exit codes of the operation when nothing is in its way
    deletes: bool = False  # whether good copies may go
    caught_up: Callable[[Place], bool] | None = None  # what holds when it is done again after an error; `done` if None


def _digests(*states: bytes) -> list[str]:
    return [digest_of(state) for state in states]


def _expect(place: Place, live: dict[str, tuple[str, ...]], good: dict[str, list[str]], *kept: bytes) -> Expected:
    rels = [rel for rel in live if ABSENT not in live[rel] or len(live[rel]) > 1]
    return Expected(
        {rel: frozenset(shown) for rel, shown in live.items()}, good, frozenset(_digests(*kept)), place.dress(rels)
    )


# the service, in a child of its own: a thread plays the bot and the operator


def serve(place: Place, during: Callable[[Metrics], None], config_name: str = "agent.yaml") -> int:
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
    deadline = time.monotonic() + limit_s
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
    digests = dict(zip((USERS, SETTINGS, GUILD), _digests(document(1), document(2), document(3)), strict=True))
    good = {rel: [digest] for rel, digest in digests.items()} if protected else {}
    return _expect(place, {rel: (digest,) for rel, digest in digests.items()}, good)


def _all_kept(place: Place, *rels: str) -> bool:
    """Whether the newest good copy of each file is what it shows."""
    return all(
        place.copies(rel) and place.copies(rel)[-1].read_bytes() == (place.data / rel).read_bytes() for rel in rels
    )


FIRST_START = Operation(
    "first start",
    _three_files,
    lambda place: serve(place, lambda _: None),
    lambda place: _three(place, protected=False),
    lambda place: _three(place, protected=True),
    lambda place: _all_kept(place, USERS, SETTINGS, GUILD),
    is_service=True,
)


# snapshots


def _protected(place: Place, **sections: Any) -> None:
    """Three files with a good snapshot each, the agent at rest."""
    place.configure(**sections)
    for rel in (USERS, SETTINGS, GUILD):
        place.write(rel, document(1))
    assert place.agent("snapshot") == 0


def _changed(place: Place, **sections: Any) -> None:
    _protected(place, **sections)
    for rel in (USERS, SETTINGS, GUILD):
        place.write(rel, document(2))


def _from_one_to_two(place: Place, *, mended: bool) -> Expected:
    one, two = _digests(document(1), document(2))
    good = [two] if mended else [one, two]
    return _expect(
        place, dict.fromkeys((USERS, SETTINGS, GUILD), (two,)), dict.fromkeys((USERS, SETTINGS, GUILD), good)
    )


SNAPSHOT = Operation(
    "snapshot of changed files",
    _changed,
    lambda place: place.agent("snapshot"),
    lambda place: _from_one_to_two(place, mended=False),
    lambda place: _from_one_to_two(place, mended=True),
    lambda place: _all_kept(place, USERS, SETTINGS, GUILD),
)
COMPRESSED = Operation(
    "snapshot, compressed",
    lambda place: _changed(place, backup={"compression": "gzip", "min_free": "none"}),
    SNAPSHOT.act,
    SNAPSHOT.fault,
    SNAPSHOT.mended,
    lambda place: all(len(place.copies(rel)) == 2 for rel in (USERS, SETTINGS, GUILD)),
)

BATCH = [f"{folder}user{number}.json" for number in range(25) for folder in ("", "rooms/")]


def _batch(place: Place) -> None:
    place.configure(files=[])
    for rel in BATCH[:10]:
        place.write(rel, document(1, records=3))
    assert place.agent("snapshot") == 0
    for rel in BATCH:
        place.write(rel, document(2, records=3))


def _batched(place: Place, *, mended: bool) -> Expected:
    one, two = _digests(document(1, records=3), document(2, records=3))
    good = {key: [two] for key in BATCH} if mended else {key: [one, two] for key in BATCH[:10]}
    return _expect(place, dict.fromkeys(BATCH, (two,)), good)


FIFTY = Operation(
    "batch of 50 files",
    _batch,
    lambda place: place.agent("snapshot"),
    lambda place: _batched(place, mended=False),
    lambda place: _batched(place, mended=True),
    lambda place: _all_kept(place, *BATCH),
)


# rotation


def _full(place: Place) -> None:
    none = {"keep_last": 2, "keep_intervals": 0, "keep_hourly": 0, "keep_daily": 0}
    place.configure(backup={"retention": none, "min_free": "none"})
    for number in (1, 2, 3):
        place.write(USERS, document(number))
        assert place.agent("snapshot") == 0
    place.write(USERS, document(4))


ROTATION = Operation(
    "rotation",
    _full,
    lambda place: place.agent("snapshot"),
    lambda place: _expect(
        place, {USERS: tuple(_digests(document(4)))}, {USERS: _digests(document(3), document(4))}, document(3)
    ),
    lambda place: _expect(place, {USERS: tuple(_digests(document(4)))}, {USERS: _digests(document(4))}, document(3)),
    lambda place: _all_kept(place, USERS) and len(place.copies()) == 2,
    deletes=True,
    caught_up=lambda place: _all_kept(place, USERS),  # a rotation that failed is made up for at the next publish
)


# restore, heal, accept


def _two_kept_and_a_third(place: Place) -> None:
    _protected(place)
    place.write(USERS, document(2))
    assert place.agent("snapshot") == 0
    place.write(USERS, document(3))


def _restored(place: Place, *, mended: bool) -> Expected:
    one, two, three = _digests(document(1), document(2), document(3))
    good = [one, three] if mended else [two, three, one]
    return _expect(place, {USERS: (one, three)}, {USERS: good}, document(3))


def _restore_the_oldest(place: Place) -> int:
    oldest = place.copies()[0].name
    mark()
    return place.agent("restore", str(place.data / USERS), "--snapshot", oldest)


RESTORE = Operation(
    "restore",
    _two_kept_and_a_third,
    _restore_the_oldest,
    lambda place: _restored(place, mended=False),
    lambda place: _restored(place, mended=True),
    lambda place: (place.data / USERS).read_bytes() == document(1) and _all_kept(place, USERS),
    from_mark=True,
)


def _damaged(place: Place) -> None:
    _protected(place, files=[{"path": SETTINGS, "required": True}])
    place.write(USERS, DAMAGE)
    place.write(GUILD, b"\xef\xbb\xbf" + document(2))
    (place.data / SETTINGS).unlink()
    place.know(document(2))


def _healed(place: Place, *, mended: bool) -> Expected:
    one, two = _digests(document(1), document(2))
    live = {USERS: (one,), SETTINGS: (one,), GUILD: (two,)}
    good = {USERS: [one], SETTINGS: [one], GUILD: [one, two]}
    damaged = (DAMAGE, b"\xef\xbb\xbf" + document(2))
    if not mended:
        was = _digests(*damaged)
        live = {USERS: (one, was[0]), SETTINGS: (one, ABSENT), GUILD: (two, was[1])}
    return _expect(place, live, good, *damaged)


def _is_healed(place: Place) -> bool:
    shown = [
        (place.data / rel).read_bytes() if (place.data / rel).exists() else b"" for rel in (USERS, SETTINGS, GUILD)
    ]
    return shown == [document(1), document(1), document(2)] and bool(place.copies(USERS, "quarantined"))


HEAL = Operation(
    "heal at the gate",
    _damaged,
    lambda place: place.agent("check", "--heal"),
    lambda place: _healed(place, mended=False),
    lambda place: _healed(place, mended=True),
    _is_healed,
)


def _suspected(place: Place) -> None:
    _protected(place)
    place.write(USERS, EMPTIED)
    assert place.agent("snapshot") == 3


def _accepted(place: Place) -> Expected:
    one, empty = _digests(document(1), EMPTIED)
    return _expect(place, {USERS: (empty,)}, {USERS: [one, empty]}, EMPTIED, document(1))


ACCEPT = Operation(
    "accept",
    _suspected,
    lambda place: place.agent("accept", str(place.data / USERS)),
    _accepted,
    _accepted,
    lambda place: _all_kept(place, USERS) and not place.copies(USERS, "suspect"),
    restarts=frozenset({0, 3}),
)


# the catalog is lost


def _rich(place: Place) -> None:
    """Good, pinned, suspect and quarantined copies, and a change that nobody has seen."""
    _protected(place)
    assert place.agent("snapshot", "--pin", str(place.data / GUILD)) == 0
    place.write(SETTINGS, DAMAGE)
    assert place.agent("check", "--heal") == 0
    place.write(USERS, EMPTIED)
    assert place.agent("snapshot", str(place.data / USERS)) == 3
    place.write(USERS, document(2))


def _without_catalog(place: Place) -> None:
    _rich(place)
    for path in (place.backups / ".agent").glob("catalog*"):
        path.unlink()


def _with_damaged_catalog(place: Place) -> None:
    _rich(place)
    path = place.backups / ".agent/catalog.sqlite3"
    path.write_bytes(b"no database" * 500)


def _rebuilt(place: Place, *, mended: bool) -> Expected:
    one, two = _digests(document(1), document(2))
    good = {USERS: [two] if mended else [one, two], SETTINGS: [one], GUILD: [one]}
    return _expect(place, {USERS: (two,), SETTINGS: (one,), GUILD: (one,)}, good, DAMAGE, EMPTIED, document(1))


REBUILD = Operation(
    "catalog rebuild",
    _without_catalog,
    lambda place: place.agent("check", "--heal"),
    lambda place: _rebuilt(place, mended=False),
    lambda place: _rebuilt(place, mended=True),
    lambda place: _all_kept(place, USERS, SETTINGS, GUILD),
)
DAMAGED_CATALOG = Operation(
    "damaged catalog",
    _with_damaged_catalog,
    REBUILD.act,
    REBUILD.fault,
    REBUILD.mended,
    REBUILD.done,
)


# the running service


def _leave_pending(place: Place) -> int:
    def during(metrics: Metrics) -> None:
        for rel in (USERS, SETTINGS, GUILD):
            place.write(rel, document(2))
        _holds(lambda: _value(metrics, "backup_agent_watch_events_total") >= 3, limit_s=1)
        mark()

    return serve(place, during, "slow.yaml")


def _slow(place: Place) -> None:
    """A service that takes its time: what the bot writes is pending when it is told to stop."""
    _protected(place)
    place.configure("slow.yaml", watch={"debounce": "30s", "rescan": "1h"})
    place.know(document(2))


def _busy(place: Place) -> None:
    _protected(place)
    place.know(document(2), DAMAGE)


FLUSH = Operation(
    "shutdown flush",
    _slow,
    _leave_pending,
    lambda place: _from_one_to_two(place, mended=False),
    lambda place: _from_one_to_two(place, mended=True),
    lambda place: _all_kept(place, USERS, SETTINGS, GUILD),
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
            limit_s=1,
        )
        for rel in (USERS, SETTINGS, GUILD):
            place.write(rel, document(2))
        _holds(lambda: metrics_created(metrics) >= 3, limit_s=1)
        place.write(SETTINGS, DAMAGE)
        _holds(lambda: _value(metrics, "backup_agent_heals_total") >= 1, limit_s=1)

    return serve(place, during)


def metrics_created(metrics: Metrics) -> float:
    return _value(metrics, "backup_agent_snapshots_created_total")


def _reloaded(place: Place, *, mended: bool) -> Expected:
    one, two, bad = _digests(document(1), document(2), DAMAGE)
    rels = (USERS, SETTINGS, GUILD)
    if mended:
        return _expect(place, dict.fromkeys(rels, (one, two)), {rel: [one, two] for rel in rels})
    return _expect(place, dict.fromkeys(rels, (one, two, bad)), {rel: [one, two] for rel in rels})


RELOAD = Operation(
    "reload, change, heal",
    _busy,
    _reload_and_change,
    lambda place: _reloaded(place, mended=False),
    lambda place: _reloaded(place, mended=True),
    lambda place: _all_kept(place, USERS, SETTINGS, GUILD) and (place.data / SETTINGS).read_bytes() == document(2),
    from_mark=True,
    is_service=True,
)

ALL = (
    FIRST_START, SNAPSHOT, COMPRESSED, ROTATION, RESTORE, HEAL, ACCEPT, REBUILD, DAMAGED_CATALOG, FLUSH, RELOAD, FIFTY,
)  # fmt: skip
