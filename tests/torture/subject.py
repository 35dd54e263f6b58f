"""What is struck: a folder to begin with, an operation on it, and what may be seen afterwards."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invariants import ABSENT, Expected, digest_of

from agent.checks import check
from agent.cli import build_parser, main
from agent.core.model import CheckSpec

USERS, SETTINGS, GUILD = "users.json", "settings.json", "guilds/42.json"
MODES = {USERS: 0o640, SETTINGS: 0o600, GUILD: 0o644}
# A forked child finds every module loaded, also when its source was changed meanwhile, and every pattern made.
build_parser()
for text in (b'{"a": {"b": [[1', b'[[{"a": [1'):
    check(text, CheckSpec())
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
        self.flush(staged)
        staged.rename(path)
        self.flush(path.parent)
        return digest_of(data)

    def flush(self, path: Path) -> None:
        """Nothing: a kill takes nothing from the page cache."""

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
    asked: Callable[[Place], bool] | None = None  # what exit code 0 stands for; `done` if None
    from_mark: bool = False
    is_service: bool = False
    restarts: frozenset[int] = frozenset({0})
    ends: frozenset[int] = frozenset({0})  # exit codes of the operation when nothing is in its way
    deletes: bool = False  # whether good copies may go
    caught_up: Callable[[Place], bool] | None = None  # what holds when it is done again after an error; `done` if None


def crowd() -> float:
    """How many wait for each processor, 1 at least: everything takes that much longer, and is waited for that long."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def digests(*states: bytes) -> list[str]:
    return [digest_of(state) for state in states]


def expect(place: Place, live: dict[str, tuple[str, ...]], good: dict[str, list[str]], *kept: bytes) -> Expected:
    rels = [rel for rel in live if ABSENT not in live[rel] or len(live[rel]) > 1]
    return Expected(
        {rel: frozenset(shown) for rel, shown in live.items()}, good, frozenset(digests(*kept)), place.dress(rels)
    )


def all_kept(place: Place, *rels: str) -> bool:
    """Whether the newest good copy of each file is what it shows."""
    return all(
        place.copies(rel) and place.copies(rel)[-1].read_bytes() == (place.data / rel).read_bytes() for rel in rels
    )


# a folder at rest, and one with changes nobody has seen


def protected(place: Place, **sections: Any) -> None:
    """Three files with a good snapshot each, the agent at rest."""
    place.configure(**sections)
    for rel in (USERS, SETTINGS, GUILD):
        place.write(rel, document(1))
    assert place.agent("snapshot") == 0


def changed(place: Place, **sections: Any) -> None:
    protected(place, **sections)
    for rel in (USERS, SETTINGS, GUILD):
        place.write(rel, document(2))


def from_one_to_two(place: Place, *, mended: bool) -> Expected:
    one, two = digests(document(1), document(2))
    good = [two] if mended else [one, two]
    return expect(place, dict.fromkeys((USERS, SETTINGS, GUILD), (two,)), dict.fromkeys((USERS, SETTINGS, GUILD), good))
