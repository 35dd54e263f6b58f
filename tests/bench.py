"""A workspace on real folders with a clock that is told, for the tests of what stands around the pipeline."""

import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from agent.config import load_config
from agent.core.model import Grade, Reason, Snapshot
from agent.core.settle import Due
from agent.disk import lease
from agent.healing import Healer
from agent.outcome import Ending, Outcome
from agent.pipeline import Pipeline
from agent.workspace import Workspace

USERS = "users.json"
DAMAGE = b'{"users": [1, 2'


def document(number: int, records: int = 8) -> bytes:
    return json.dumps({f"id{i}": {"cartridge": number + i} for i in range(records)}).encode()


class ToldClock:
    """Both clocks move only when told; `jump` moves the clock of the wall alone, also backwards."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.steady_s = 1000.0

    def utc(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.steady_s

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.steady_s += seconds

    def jump(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Bench:
    """`settings` are YAML lines of the config below the folders."""

    def __init__(self, base: Path, settings: str = "") -> None:
        if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
            lease.ignore_break_signal()
        self.base, self.data, self.backups = base, base / "data", base / "backups"
        self.data.mkdir()
        self.config = base / "agent.yaml"
        self.config.write_text(
            f"data_dir: {self.data}\nbackup_dir: {self.backups}\nmetrics: {{listen: off}}\n{settings}\n"
        )
        self.clock = ToldClock()
        self.open()

    def open(self) -> None:
        """What a start of the agent begins with."""
        self.ws = Workspace.open(load_config(str(self.config), None, {}), self.clock)
        self.pipeline = Pipeline(self.ws)
        self.healer = Healer(self.ws, self.pipeline)

    def write(self, data: bytes, rel: str = USERS) -> Path:
        """The file holds `data` and was quiet since."""
        path = self.data / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.clock.advance(60)
        return path

    def look(self, *rels: str, at_gate: bool = False, waited_s: float = 0.0) -> list[Outcome]:
        first_at = self.clock.monotonic() - waited_s
        dues = [Due(rel, quiet=True, first_at=first_at) for rel in rels or (USERS,)]
        return self.pipeline.run(dues, Reason.CHANGE, at_gate=at_gate)

    def protect(self, data: bytes, rel: str = USERS) -> Snapshot:
        """`data` is the newest good snapshot of `rel`."""
        self.write(data, rel)
        outcome = self.look(rel)[0]
        assert outcome.ending is Ending.PUBLISHED, outcome
        assert outcome.snapshot is not None
        return outcome.snapshot

    def damage(self, rel: str = USERS) -> Outcome:
        """The file is damaged, and was looked at."""
        self.write(DAMAGE, rel)
        return self.look(rel)[0]

    def lose(self, *rels: str) -> list[Outcome]:
        """The files are gone, and the grace is over."""
        for rel in rels or (USERS,):
            (self.data / rel).unlink()
        self.look(*rels)
        self.clock.advance(60)
        return self.look(*rels, waited_s=60)

    def stored(self, rel: str = USERS, grade: Grade = Grade.GOOD) -> list[bytes]:
        """The bytes of the snapshots of this grade, newest first."""
        return [(self.backups / s.name).read_bytes() for s in self.ws.catalog.snapshots(rel) if s.grade is grade]

    def change_state(self, rel: str = USERS, **fields: object) -> None:
        state = self.ws.catalog.file(rel)
        assert state is not None
        self.ws.catalog.save_files([replace(state, **fields)])  # type: ignore[arg-type]  # fields of FileState


def python(code: str) -> list[str]:
    """Return the argument list of a command that runs `code`."""
    return [sys.executable, "-c", code]
