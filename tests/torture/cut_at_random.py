"""The power goes while the agent runs and a bot writes: the half of `power_cut.py` that knows nothing of flushes.

The bot writes as bots do: by rename or in place, with a flush or without, sometimes damaged.  A file that it damaged it
leaves alone from then on, so that an announced restore has to hold.
"""

import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cut_disk import CutDisk
from invariants import Expected, copies_in, digest_of, violations
from rig import agent_command, free_port, wait_until
from subject import DAMAGE, GUILD, SETTINGS, USERS, Place, document

from agent.core.naming import Kind

FILES = (USERS, SETTINGS, GUILD)
RETENTION = {"keep_last": 10_000}
Look = Callable[[Place, str], list[str]]


class RandomCuts:
    """A protected folder on a disk; `cut` runs agent and bot from there for a while and cuts."""

    def __init__(self, disk: CutDisk, side: Path, seed: str) -> None:
        self.disk = disk
        self.place = Place(disk.at / "root", side)
        self.place.root.mkdir()
        self._chance = random.Random(seed)
        self._version = 1
        self._good: frozenset[str] = frozenset()
        self.port = free_port()

    def prepare(self) -> None:
        self.place.configure(
            watch={"debounce": "20ms", "rescan": "1s"},
            backup={"retention": RETENTION, "min_free": "none"},
            metrics={"listen": f"127.0.0.1:{self.port}"},
        )
        for rel in FILES:
            self.place.write(rel, document(1))
        self.place.know(DAMAGE)
        self._agent("snapshot")
        self.disk.keep_as_base()

    def cut(self, look: Look) -> list[str]:
        """Return what is broken, as the cut left it and after the next start; `look` is the first look."""
        self.disk.reset()
        before = len(self._good_copies())
        with (self.place.side / "said").open("wb") as out:
            command = agent_command("run", "--config", str(self.place.root / "agent.yaml"))
            agent = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            if not wait_until(lambda: '"service_started"' in self.place.said, limit_s=30):
                return [f"the agent did not start: {self.place.said[-400:]}"]
            self._play(self._chance.uniform(0.1, 2.5))
            created = self._created()
            time.sleep(self._chance.uniform(0, 0.05))
            self.disk.cut()
        finally:
            agent.kill()
            agent.wait()
        said = self.place.said
        self.disk.power_on()
        found = look(self.place, said)
        self._good = frozenset(self.place.states) - {digest_of(DAMAGE)}
        self.place.know(
            *(path.read_bytes() for path in self._live())
        )  # what the cut left of writes that were not flushed
        if len(self._good_copies()) - before < created:
            found.append(
                f"announced: {created:.0f} snapshots by the metric, {len(self._good_copies()) - before} are there"
            )
        return [*found, *self._after_a_start()]

    def _play(self, for_s: float) -> None:
        end = time.monotonic() + for_s
        damaged: set[str] = set()
        while time.monotonic() < end and len(damaged) < len(FILES):
            rel = self._chance.choice([rel for rel in FILES if rel not in damaged])
            self._version += 1
            data = document(self._version)
            self.place.know(data)
            if self._chance.random() < 0.05:
                data = DAMAGE
                damaged.add(rel)
            self._write(self.place.data / rel, data)
            time.sleep(self._chance.uniform(0, 0.06))

    def _write(self, path: Path, data: bytes) -> None:
        is_renamed, is_flushed = self._chance.random() < 0.5, self._chance.random() < 0.5
        target = path.with_name(".bot") if is_renamed else path
        with target.open("wb") as stream:
            stream.write(data)
            if is_flushed:
                stream.flush()
                os.fsync(stream.fileno())
        if is_renamed:
            target.chmod(path.stat().st_mode & 0o777)
            target.rename(path)

    def _created(self) -> float:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
            return sum(float(x.split()[-1]) for x in lines if x.startswith("backup_agent_snapshots_created_total{"))
        return 0.0

    def _after_a_start(self) -> list[str]:
        code = self._agent("check", "--heal")
        found = [f"the next start ended with {code}: {self.place.said[-300:]}"] if code else []
        expected = Expected(dict.fromkeys(FILES, self._good), {rel: list(self._good) for rel in FILES})
        found += violations(self.place.data, self.place.backups, self.place.states, expected)
        return [f"after a start: {line}" for line in found]

    def _live(self) -> list[Path]:
        """The data files, and what a heal had under a staged name just then."""
        live = [path for rel in FILES if (path := self.place.data / rel).exists()]
        return [*live, *self.place.data.glob("temp/*.tmp")]

    def _good_copies(self) -> list[str]:
        return [copy.name for copy in copies_in(self.place.backups) if copy.kind is Kind.BACKUP]

    def _agent(self, *words: str) -> int:
        with (self.place.side / "said").open("wb") as out:
            command = [sys.executable, "-m", "agent.cli", *words, "--config", str(self.place.root / "agent.yaml")]
            return subprocess.run(command, stdout=out, stderr=out, check=False).returncode
