"""One hostile scene: a place, the agent in it, what it must hold; and the disks and volumes that scenes need."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig import Agent, Place, digest_of, wait_until

SOON_S = 15.0
QUICK_WATCH = {"debounce": "100ms", "max_delay": "2s", "rescan": "1s"}
QUICK_RECOVERY = {"missing_grace": "1s"}
DAMAGE = b'{"users": [1, 2'


def document(number: int, records: int = 8) -> bytes:
    return json.dumps({f"id{i}": {"cartridge": number + i} for i in range(records)}).encode()


@dataclass
class Scene:
    """One place with an agent to be started; `seen` are the digests of all states that ever were good."""

    place: Place
    seen: set[str]

    def settings(self, **sections: Any) -> int:
        merged = {"watch": QUICK_WATCH, "recovery": QUICK_RECOVERY}
        for key, section in sections.items():
            merged[key] = {**merged.get(key, {}), **section} if isinstance(section, dict) else section
        return self.place.configure(debounce_s=0.1, **merged)

    def write(self, name: str, data: bytes, *, good: bool = True) -> Path:
        """Replace a data file atomically, as careful bots do."""
        path = self.place.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = self.place.data / f".{os.getpid()}.write"
        temp.write_bytes(data)
        os.replace(temp, path)
        if good:
            self.seen.add(digest_of(data))
        return path

    @contextmanager
    def agent(self, port: int, command: list[str] | None = None, *, ready: bool = True) -> Iterator[Agent]:
        with Agent(self.place, port, command) as agent:
            if ready:
                agent.ready()
            yield agent

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        log = self.place.side / "agent.log"
        told = [json.loads(line) for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]
        return [line for line in told if not event or line.get("event") == event]

    def told(self, event: str, *, limit_s: float = SOON_S, times: int = 1) -> dict[str, Any]:
        """Return the newest line of this event once it is there; it has a level that people see, and a hint if bad."""
        assert wait_until(lambda: len(self.lines(event)) >= times, limit_s=limit_s), (
            f"no {event} in the log: {[line['event'] for line in self.lines()][-12:]}"
        )
        return self.lines(event)[-1]

    def protected(self, data: bytes, stem: str = "users", *, limit_s: float = SOON_S) -> None:
        """The newest good snapshot holds these bytes, now or soon."""
        wanted = digest_of(data)
        there = wait_until(lambda: self.place.digests(stem=stem)[-1:] == [wanted], limit_s=limit_s, every_s=0.05)
        assert there, f"{stem}: the newest snapshot is not the newest state; log ends {self.lines()[-4:]}"

    def shows(self, data: bytes, name: str = "users.json", *, limit_s: float = SOON_S) -> None:
        """The live file holds these bytes, now or soon."""
        path = self.place.data / name
        there = wait_until(lambda: path.is_file() and path.read_bytes() == data, limit_s=limit_s, every_s=0.05)
        assert there, f"{name} does not show what it should; log ends {self.lines()[-4:]}"

    def whole(self) -> None:
        """Every good snapshot of every file is complete: its bytes are those of a state that was good."""
        for path in self.place.backups.rglob("*_backup_*.json"):
            if not {"_suspect", "_quarantine", ".agent"} & set(path.relative_to(self.place.backups).parts):
                assert digest_of(path.read_bytes()) in self.seen, f"{path} is none of the states that were good"


CASES: list[tuple[str, Callable[[Scene], None], bool]] = []


def case(*, root: bool = False) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def add(run: Callable[[Scene], None]) -> Callable[[Scene], None]:
        CASES.append((run.__name__, run, root))
        return run

    return add


def still(check: Callable[[], None], *, for_s: float) -> None:
    """`check` holds over and over for this long."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        check()
        time.sleep(0.1)


def absent(path: Path) -> Callable[[], None]:
    def check() -> None:
        assert not path.exists(), f"{path} was restored"

    return check


REQUIRED = {"files": [{"path": "users.json", "required": True}]}


def small_image(path: Path, mib: int) -> Path:
    with path.open("wb") as image:
        image.truncate(mib * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(path)], check=True)
    return path


def mount(what: Path | str, where: Path, *options: str) -> None:
    kind = ["-t", "tmpfs"] if what == "tmpfs" else ["-o", "loop"]
    subprocess.run(["mount", *kind, *options, str(what), str(where)], check=True)


def unmount(where: Path) -> bool:
    return subprocess.run(["umount", str(where)], stderr=subprocess.DEVNULL, check=False).returncode == 0


def fill(folder: Path) -> Path:
    """No byte is left on the file system of `folder`."""
    ballast = folder / "ballast.bin"
    with ballast.open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
    return ballast


@contextmanager
def volume(where: Path, root: Path, kind: str) -> Iterator[None]:
    where.mkdir(parents=True, exist_ok=True)
    if kind == "tmpfs":
        mount("tmpfs", where, "-o", "size=4m")
    else:
        mount(small_image(root / f"{where.name}.img", 8), where)
    try:
        yield
    finally:
        wait_until(lambda: unmount(where), limit_s=5)


def trouble_count(agent: Agent) -> float:
    return agent.total("backup_agent_io_errors_total") + agent.total("backup_agent_snapshots_refused_total")
