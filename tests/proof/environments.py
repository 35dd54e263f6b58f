"""Hostile surroundings, one after the other: `python tests/proof/environments.py [-k WORD]`.

Every case runs the real agent on real folders and prints one line; the exit code is 1 when one of them fails.
Cases that mount or change the owner need root and are told as skipped without it.
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from rig import Agent, Place, agent_command, digest_of, wait_until

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


# the data folder goes and comes back


@case()
def data_dir_deleted_and_recreated(scene: Scene) -> None:
    """Everything goes, backups too: nothing is restored into the new folder, and its files are guarded again."""
    port = scene.settings(**REQUIRED)
    for name in ("users.json", "bank.json", "shop.json", "pets.json"):
        scene.write(name, document(1))
    with scene.agent(port) as agent:
        shutil.rmtree(scene.place.data)
        assert wait_until(lambda: agent.total("backup_agent_data_dir_up") == 0, limit_s=SOON_S)
        scene.told("data_dir_missing")
        scene.place.data.mkdir()
        scene.told("data_dir_back")
        still(absent(scene.place.users), for_s=3)
        scene.write("users.json", document(2))
        scene.protected(document(2))
        scene.write("bank.json", document(3))
        scene.protected(document(3), "bank")
        assert agent.child.poll() is None


@case()
def data_dir_deleted_and_recreated_backups_outside(scene: Scene) -> None:
    """With backups elsewhere nothing is restored while most files are gone, and every snapshot stays."""
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside), **REQUIRED)
    for name in ("users.json", "bank.json", "shop.json", "pets.json"):
        scene.write(name, document(1))
    with scene.agent(port) as agent:
        kept = sorted(p.name for p in outside.glob("*_backup_*"))
        shutil.rmtree(scene.place.data)
        scene.told("data_dir_missing")
        scene.place.data.mkdir()
        scene.told("data_dir_back")
        still(absent(scene.place.users), for_s=4)
        assert [p for p in kept if not (outside / p).exists()] == []
        scene.write("users.json", document(2))
        assert wait_until(
            lambda: digest_of(document(2)) in {digest_of(p.read_bytes()) for p in outside.glob("users_backup_*")},
            limit_s=SOON_S,
        )
        assert agent.child.poll() is None


@case()
def data_dir_moved_away_and_back(scene: Scene) -> None:
    port = scene.settings(**REQUIRED)
    scene.write("users.json", document(1))
    scene.write("bank.json", document(1))
    away = scene.place.root / "away"
    with scene.agent(port) as agent:
        os.rename(scene.place.data, away)
        scene.told("data_dir_missing")
        still(absent(scene.place.data), for_s=3)
        os.rename(away, scene.place.data)
        scene.told("data_dir_back")
        assert wait_until(lambda: agent.total("backup_agent_data_dir_up") == 1, limit_s=SOON_S)
        scene.write("users.json", document(2))
        scene.protected(document(2))
        scene.whole()
        assert scene.lines("source_restored") == []


@case()
def data_dir_not_there_at_start(scene: Scene) -> None:
    port = scene.settings()
    shutil.rmtree(scene.place.data)
    with scene.agent(port, ready=False) as agent:
        scene.told("data_dir_missing")
        scene.place.data.mkdir()
        scene.write("users.json", document(1))
        agent.ready()
        scene.protected(document(1))


@case(root=True)
def data_dir_unmounted_while_running(scene: Scene) -> None:
    """What lies below the mount point is empty: nothing is restored there, not after a restart either."""
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside), **REQUIRED)
    shutil.rmtree(scene.place.data)
    scene.place.data.mkdir()
    image = small_image(scene.place.root / "data.img", 16)
    mount(image, scene.place.data)
    try:
        scene.write("users.json", document(1))
        with scene.agent(port):
            pass
        with scene.agent(port):
            assert wait_until(lambda: unmount(scene.place.data), limit_s=SOON_S), "the agent keeps the volume busy"
            scene.told("source_missing")
            still(absent(scene.place.users), for_s=4)
        with scene.agent(port):
            still(absent(scene.place.users), for_s=4)
        with scene.agent(port):
            still(absent(scene.place.users), for_s=2)
            mount(image, scene.place.data)
            time.sleep(2)
            scene.write("users.json", document(2))
            assert wait_until(lambda: len(list(outside.glob("users_backup_*"))) == 2, limit_s=SOON_S)
    finally:
        unmount(scene.place.data)


@case()
def folder_replaced_by_an_empty_one_while_stopped(scene: Scene) -> None:
    """Another folder at the next start is no loss of one file; twice in a row neither."""
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside), recovery={**QUICK_RECOVERY, "on_missing": "restore"})
    scene.write("users.json", document(1))
    with scene.agent(port):
        pass
    os.rename(scene.place.data, scene.place.root / "old")
    scene.place.data.mkdir()
    for _ in range(3):
        with scene.agent(port):
            still(absent(scene.place.users), for_s=3)
    scene.place.data.rmdir() if not any(scene.place.data.iterdir()) else shutil.rmtree(scene.place.data)
    os.rename(scene.place.root / "old", scene.place.data)
    with scene.agent(port):
        scene.place.users.unlink()
        scene.shows(document(1))


@case()
def mass_deletion_is_left_alone(scene: Scene) -> None:
    port = scene.settings(**REQUIRED)
    for number in range(10):
        scene.write(f"file{number}.json", document(number))
    scene.write("users.json", document(1))
    with scene.agent(port):
        for path in scene.place.data.glob("*.json"):
            path.unlink()
        scene.told("source_missing", times=11)
        still(absent(scene.place.users), for_s=3)
        assert len(scene.place.copies()) == 1


@case()
def thousands_deleted_at_once_are_told_of_soon(scene: Scene) -> None:
    """Whether most files went is asked for each one that went: that must not take the square of their number."""
    port = scene.settings(**REQUIRED)
    scene.write("users.json", document(1))
    for number in range(3000):
        (scene.place.data / f"{number}.json").write_bytes(b'{"n": %d}' % number)
    with scene.agent(port):
        for number in range(3000):
            (scene.place.data / f"{number}.json").unlink()
        scene.place.users.unlink()
        began = time.monotonic()
        scene.told("source_missing", times=3001, limit_s=60)
        print(f"     3,001 missing files told in {time.monotonic() - began:.1f} s", flush=True)
        still(absent(scene.place.users), for_s=2)


@case()
def files_deleted_over_time_are_no_mass_deletion(scene: Scene) -> None:
    """Nine files retired one by one long ago must not keep the required one from coming back."""
    port = scene.settings(recovery={"missing_grace": "500ms"}, **REQUIRED)
    for number in range(5):
        scene.write(f"file{number}.json", document(number))
    scene.write("users.json", document(1))
    with scene.agent(port):
        for number in range(5):
            (scene.place.data / f"file{number}.json").unlink()
            scene.told("source_missing", times=number + 1)
    with sqlite3.connect(scene.place.backups / ".agent" / "catalog.sqlite3") as db:
        db.execute("UPDATE files SET since = since - 86400000 WHERE grade = 'missing'")
    with scene.agent(port):
        scene.place.users.unlink()
        scene.shows(document(1))


@case()
def required_file_is_restored_with_owner_and_mode(scene: Scene) -> None:
    port = scene.settings(**REQUIRED)
    users = scene.write("users.json", document(1))
    users.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(users, 1234, 2345)
    before = users.stat()
    with scene.agent(port) as agent:
        users.unlink()
        scene.shows(document(1))
        after = users.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
        assert wait_until(lambda: agent.total("backup_agent_heals_total", result="ok") == 1, limit_s=SOON_S)


@case()
def slow_replace_within_the_grace_is_no_deletion(scene: Scene) -> None:
    port = scene.settings(recovery={"missing_grace": "2s"}, **REQUIRED)
    users = scene.write("users.json", document(1))
    with scene.agent(port):
        for number in range(2, 8):
            users.unlink()
            time.sleep(0.6)
            scene.write("users.json", document(number))
            time.sleep(0.4)
        scene.protected(document(7))
        assert scene.lines("source_restored") == []


# full disks and read-only ones


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


def full_backup_disk(scene: Scene, kind: str) -> None:
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside))
    with volume(outside, scene.place.root, kind):
        scene.write("users.json", document(1))
        with scene.agent(port) as agent:
            kept = set(outside.glob("users_backup_*"))
            ballast = fill(outside)
            scene.write("users.json", document(2, 5000))
            assert wait_until(lambda: trouble_count(agent) > 0, limit_s=SOON_S)
            line = next(x for x in scene.lines() if x.get("level") == "error")
            assert "ENOSPC" in str(line) or "full" in str(line), line
            assert line.get("hint"), line
            assert kept <= set(outside.glob("users_backup_*")), "a good snapshot went"
            assert scene.place.users.read_bytes() == document(2, 5000)
            scene.write("users.json", DAMAGE, good=False)
            time.sleep(2)
            assert scene.place.users.read_bytes() in (DAMAGE, document(1)), "the live file is neither old nor new"
            scene.write("users.json", document(3, 5000))
            time.sleep(1)
            ballast.unlink()
            wanted = digest_of(document(3, 5000))
            there = wait_until(
                lambda: wanted in {digest_of(p.read_bytes()) for p in outside.glob("users_backup_*")}, limit_s=70
            )
            assert there, f"not healed after the disk had room: {scene.lines()[-4:]}"
            assert agent.child.poll() is None


def trouble_count(agent: Agent) -> float:
    return agent.total("backup_agent_io_errors_total") + agent.total("backup_agent_snapshots_refused_total")


@case(root=True)
def full_tmpfs_for_backups(scene: Scene) -> None:
    full_backup_disk(scene, "tmpfs")


@case(root=True)
def full_ext4_for_backups(scene: Scene) -> None:
    full_backup_disk(scene, "ext4")


@case(root=True)
def full_disk_at_start(scene: Scene) -> None:
    """The agent waits for space, says so, and protects as soon as there is some."""
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside))
    with volume(outside, scene.place.root, "ext4"):
        ballast = fill(outside)
        scene.write("users.json", document(1))
        with scene.agent(port, ready=False) as agent:
            assert wait_until(lambda: any(x.get("level") == "error" for x in scene.lines()), limit_s=SOON_S)
            time.sleep(3)
            ballast.unlink()
            assert wait_until(lambda: len(list(outside.glob("users_backup_*"))) == 1, limit_s=70), scene.lines()[-4:]
            agent.ready()
            assert agent.child.poll() is None


@case(root=True)
def full_data_disk(scene: Scene) -> None:
    """Backups elsewhere: protection goes on; a heal needs space, is tried again and succeeds when there is some."""
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside))
    with volume(scene.place.data, scene.place.root, "ext4"):
        good = document(1, 20_000)
        scene.write("users.json", good)
        with scene.agent(port) as agent:
            damaged = good[:-5]
            scene.place.users.write_bytes(damaged)
            ballast = fill(scene.place.data)
            scene.told("heal_failed")
            assert scene.place.users.read_bytes() == damaged
            assert agent.total("backup_agent_heals_total", result="failed") >= 1
            ballast.unlink()
            scene.shows(good, limit_s=70)
            aside = outside / "_quarantine"
            assert wait_until(lambda: len(list(aside.glob("users_quarantined_*"))) == 1, limit_s=5)


@case(root=True)
def everything_on_one_full_disk(scene: Scene) -> None:
    port = scene.settings()
    with volume(scene.place.data, scene.place.root, "ext4"):
        good = document(1, 20_000)
        scene.write("users.json", good)
        with scene.agent(port) as agent:
            scene.place.users.write_bytes(good[:-5])
            ballast = fill(scene.place.data)
            assert wait_until(lambda: trouble_count(agent) > 0, limit_s=SOON_S)
            assert scene.place.users.read_bytes() == good[:-5]
            scene.whole()
            ballast.unlink()
            scene.shows(good, limit_s=70)
            scene.whole()
            assert agent.child.poll() is None


@case(root=True)
def backup_disk_read_only_for_a_while(scene: Scene) -> None:
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside))
    with volume(outside, scene.place.root, "tmpfs"):
        scene.write("users.json", document(1))
        with scene.agent(port) as agent:
            subprocess.run(["mount", "-o", "remount,ro", str(outside)], check=False)
            read_only = " ro," in next(x for x in Path("/proc/mounts").read_text().splitlines() if str(outside) in x)
            if not read_only:  # a file open for writing forbids it: this is what a failing disk does by itself
                return
            scene.write("users.json", document(2))
            assert wait_until(lambda: trouble_count(agent) > 0, limit_s=SOON_S)
            subprocess.run(["mount", "-o", "remount,rw", str(outside)], check=True)
            assert wait_until(lambda: len(list(outside.glob("users_backup_*"))) == 2, limit_s=70), scene.lines()[-4:]


@case(root=True)
def data_disk_read_only(scene: Scene) -> None:
    """Protection goes on; damage cannot be healed, is told, and is healed when the disk can be written again."""
    outside = scene.place.root / "elsewhere"
    port = scene.settings(backup_dir=str(outside))
    with volume(scene.place.data, scene.place.root, "tmpfs"):
        scene.place.temp.mkdir()
        scene.write("users.json", document(1))
        with scene.agent(port) as agent:
            scene.place.users.write_bytes(DAMAGE)
            subprocess.run(["mount", "-o", "remount,ro", str(scene.place.data)], check=True)
            scene.told("heal_failed")
            assert scene.place.users.read_bytes() == DAMAGE
            subprocess.run(["mount", "-o", "remount,rw", str(scene.place.data)], check=True)
            scene.shows(document(1), limit_s=70)
            assert agent.child.poll() is None


@case(root=True)
def backup_volume_unmounted_and_back(scene: Scene) -> None:
    """Old snapshots are known again when the volume is back, wherever the agent's own state lies."""
    outside, state = scene.place.root / "elsewhere", scene.place.root / "state"
    port = scene.settings(backup_dir=str(outside), state_dir=str(state))
    outside.mkdir()
    image = small_image(scene.place.root / "backups.img", 8)
    mount(image, outside)
    try:
        scene.write("users.json", document(1))
        with scene.agent(port) as agent:
            scene.write("users.json", document(2))
            assert wait_until(lambda: len(list(outside.glob("users_backup_*"))) == 2, limit_s=SOON_S)
            assert wait_until(lambda: unmount(outside), limit_s=SOON_S), "the agent keeps the volume busy"
            scene.write("users.json", document(3))
            assert wait_until(lambda: len(list(outside.glob("users_backup_*"))) >= 1, limit_s=SOON_S)
            time.sleep(35)  # an audit
            mount(image, outside)
            known = wait_until(
                lambda: agent.total("backup_agent_snapshots", grade="good") >= 2, limit_s=45, every_s=0.5
            )
            assert known, f"the snapshots on the volume are forgotten: {scene.lines()[-5:]}"
            assert agent.child.poll() is None
    finally:
        unmount(outside)


# rights and limits


def as_nobody(*arguments: str) -> list[str]:
    return ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", *agent_command(*arguments)]


def give_away(root: Path) -> None:
    root.parent.chmod(0o755)
    for path in (root, *root.rglob("*")):
        os.chown(path, 1234, 1234)


@case(root=True)
def file_without_read_permission(scene: Scene) -> None:
    port = scene.settings()
    users = scene.write("users.json", document(1))
    scene.write("bank.json", document(1))
    give_away(scene.place.root)
    with scene.agent(port, as_nobody("run", "--config", str(scene.place.config))) as agent:
        users.write_bytes(document(2))
        users.chmod(0)
        line = scene.told("source_unreadable")
        assert "EACCES" in line["error"]
        assert line["hint"]
        assert line["file"] == "users.json"
        assert agent.total("backup_agent_captures_total", result="unreadable") >= 1
        time.sleep(3)
        assert users.read_bytes() == document(2)
        assert len(scene.lines("source_unreadable")) == 1, "told more than once"
        users.chmod(0o600)
        scene.seen.add(digest_of(document(2)))
        scene.protected(document(2), limit_s=70)
        scene.whole()


@case(root=True)
def folder_without_permission(scene: Scene) -> None:
    """Files that cannot be seen are not missing."""
    port = scene.settings(files=[{"path": "sub/users.json", "required": True}])
    scene.write("sub/users.json", document(1))
    scene.write("bank.json", document(1))
    give_away(scene.place.root)
    with scene.agent(port, as_nobody("run", "--config", str(scene.place.config))) as agent:
        (scene.place.data / "sub").chmod(0)
        scene.told("rescan_hindered")
        time.sleep(4)
        assert scene.lines("source_missing") == []
        assert scene.lines("source_restored") == []
        assert len(scene.lines("rescan_hindered")) == 1, "told more than once"
        (scene.place.data / "sub").chmod(0o700)
        (scene.place.data / "sub/users.json").write_bytes(document(2))
        want = digest_of(document(2))
        assert wait_until(
            lambda: want in {digest_of(p.read_bytes()) for p in (scene.place.backups / "sub").glob("users_backup_*")},
            limit_s=SOON_S,
        )
        assert agent.child.poll() is None


@case(root=True)
def backup_dir_without_permission(scene: Scene) -> None:
    """Snapshots that cannot be seen have not vanished."""
    outside, state = scene.place.root / "elsewhere", scene.place.root / "state"
    port = scene.settings(backup_dir=str(outside), state_dir=str(state))
    scene.write("users.json", document(1))
    outside.mkdir()
    state.mkdir()
    give_away(scene.place.root)
    with scene.agent(port, as_nobody("run", "--config", str(scene.place.config))) as agent:
        outside.chmod(0)
        scene.write("users.json", document(2))
        assert wait_until(lambda: trouble_count(agent) > 0, limit_s=SOON_S)
        time.sleep(35)
        assert scene.lines("snapshots_vanished") == []
        outside.chmod(0o700)
        wanted = digest_of(document(2))
        assert wait_until(
            lambda: wanted in {digest_of(p.read_bytes()) for p in outside.glob("users_backup_*")}, limit_s=70
        )
        assert agent.total("backup_agent_snapshots", grade="good") == 2


@case()
def no_descriptor_left(scene: Scene) -> None:
    """EMFILE while a file changes: told, counted, nothing lost, and over as soon as there are descriptors again."""
    port = scene.settings()
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        pid = agent.child.pid
        used = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
        for spare in range(8):
            limit(pid, used + spare)
            scene.write("users.json", document(10 + spare))
            time.sleep(1.2)
            assert agent.child.poll() is None, f"ended with {spare} spare descriptors: {scene.lines()[-3:]}"
        limit(pid, 1024)
        scene.protected(document(17), limit_s=70)
        scene.whole()
        assert trouble_count(agent) > 0
        assert scene.lines("source_restored") == []


def limit(pid: int, descriptors: int) -> None:
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={descriptors}:4096"], check=True)


@case()
def space_budget_thins_the_oldest_and_then_refuses(scene: Scene) -> None:
    size = len(document(10, 400))
    port = scene.settings(backup={"max_total_size": f"{size * 4}B"})
    with scene.agent(port) as agent:
        for number in range(10, 18):
            scene.write("users.json", document(number, 400))
            scene.protected(document(number, 400))
        kept = scene.place.digests()
        assert kept == [digest_of(document(n, 400)) for n in range(18 - len(kept), 18)], "not the newest ones are kept"
        assert sum(p.stat().st_size for p in scene.place.copies()) <= size * 4
        assert agent.total("backup_agent_snapshots_deleted_total", reason="budget") >= 3
        scene.write("users.json", document(20, 4000))
        line = scene.told("snapshot_refused")
        assert line["hint"]
        assert line["file"] == "users.json"
        assert agent.total("backup_agent_snapshots_refused_total", reason="budget") >= 1
        assert digest_of(document(17, 400)) in scene.place.digests(), "the newest good one went"
        scene.whole()


@case()
def space_budget_counts_a_whole_batch(scene: Scene) -> None:
    size = len(document(1, 400))
    port = scene.settings(backup={"max_total_size": f"{size * 5}B"})
    for number in range(20):
        scene.write(f"file{number}.json", document(10 + number, 400))
    with scene.agent(port) as agent:
        total = sum(p.stat().st_size for p in scene.place.backups.glob("*_backup_*"))
        assert 0 < total <= size * 5.5, f"{total} bytes of {size * 5}"
        assert agent.total("backup_agent_snapshots_refused_total", reason="budget") >= 10


@case()
def min_free_refuses_loudly(scene: Scene) -> None:
    port = scene.settings(backup={"min_free": "900TB"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        assert scene.told("snapshot_refused")["hint"]
        assert agent.total("backup_agent_snapshots_refused_total", reason="budget") >= 1
        assert scene.place.users.read_bytes() == document(1)


# what is no data file


@case()
def links_pipes_and_devices_are_skipped(scene: Scene) -> None:
    port = scene.settings()
    secret = scene.place.root / "secret"
    secret.write_bytes(b'{"token": "hunter2-hunter2-hunter2"}')
    data = scene.place.data
    os.symlink(secret, data / "link.json")
    os.mkfifo(data / "pipe.json")
    if os.geteuid() == 0:
        os.mknod(data / "zero.json", 0o20666, os.makedev(1, 5))
    (scene.place.root / "folder").mkdir()
    (scene.place.root / "folder/inner.json").write_bytes(secret.read_bytes())
    os.symlink(scene.place.root / "folder", data / "linked")
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.protected(document(1))
        os.symlink(secret, data / "later.json")
        os.mkfifo(data / "later_pipe.json")
        time.sleep(3)
        names = [line["file"] for line in scene.lines("source_skipped")]
        wanted = {"link.json", "pipe.json", "later.json", "later_pipe.json", "linked"}
        wanted |= {"zero.json"} if os.geteuid() == 0 else set()
        assert set(names) == wanted, names
        assert len(names) == len(wanted), f"told more than once: {names}"
        assert agent.total("backup_agent_files_skipped_total") == len(wanted)
        scene.write("users.json", document(2))
        scene.protected(document(2))
        users = scene.place.users  # a data file that turns into a link to the secret
        users.unlink()
        os.symlink(secret, users)
        time.sleep(2.5)
        assert users.is_symlink(), "the link was replaced"
        for path in scene.place.backups.rglob("*"):
            assert not path.is_file() or b"hunter2" not in path.read_bytes(), f"the secret is in {path}"
        told = agent.total("backup_agent_file_last_good_timestamp_seconds", file="users.json")
        assert told < time.time() - 1.5, "the headline time of a file that is now a link keeps moving"


NAMES = [
    b"new\nline.json", b'quo"te\'s.json', "emoji🎮.json".encode(), b"latin\xff\xfe.json", b"x" * 250 + b".json",
    b"_suspect_thing.json", b"_quarantine/inner.json", b"_suspect/inner.json", b".agent/inner.json",
    b"users_backup_2024-01-01T12-00-00-000Z.json", b"-rf.json", b" space .json", b"back\\slash.json", b"%41.json",
    b"tab\there.json", b"semi;colon$(id).json", b"deep/" * 40 + b"down.json", b"bell\x07.json", b"esc\x1b[31m.json",
    b"y" * 255, "ü".encode() * 120 + b".json", b"{}.json", b"a=b.json", b"~.json", b"*.json", b"[a].json", b"#.json",
]  # fmt: skip


@case()
def any_name_is_protected_restored_and_told(scene: Scene) -> None:
    port = scene.settings(watch={"include": ["**/*.json", "y*"]})
    root = os.fsencode(scene.place.data)
    for number, name in enumerate(NAMES):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(document(100 + number))
        scene.seen.add(digest_of(document(100 + number)))
    with scene.agent(port) as agent:
        held = {digest_of(p.read_bytes()) for p in scene.place.backups.rglob("*_backup_*") if p.is_file()}
        lost = [name for number, name in enumerate(NAMES) if digest_of(document(100 + number)) not in held]
        assert lost == [], f"not protected: {lost}"
        page = agent.fetch("/metrics") or ""
        judged = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True)
        assert judged.returncode == 0, judged.stdout + judged.stderr
        for name in NAMES:
            with open(os.path.join(root, name), "wb") as stream:
                stream.write(DAMAGE)

        def healed() -> bool:
            return all(
                open(os.path.join(root, name), "rb").read() == document(100 + number)
                for number, name in enumerate(NAMES)
            )

        assert wait_until(healed, limit_s=30, every_s=0.2), [
            name
            for number, name in enumerate(NAMES)
            if Path(os.fsdecode(os.path.join(root, name))).read_bytes() != document(100 + number)
        ]
        raw = (scene.place.side / "agent.log").read_bytes()
        assert b"\x1b" not in raw
        assert all(line.startswith(b"{") for line in raw.splitlines()), "a name broke a log line"
        listed = subprocess.run(
            agent_command("list", "--config", str(scene.place.config), "--json"), capture_output=True, check=False
        )
        assert listed.returncode == 0, listed.stderr
        json.loads(listed.stdout)


@case()
def ten_thousand_files_at_once(scene: Scene) -> None:
    port = scene.settings(watch={"debounce": "1s", "rescan": "5s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        for number in range(10_000):
            path = scene.place.data / f"f{number % 50}" / f"{number}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b'{"n": %d}' % number)
        began = time.monotonic()
        scene.write("users.json", document(2))
        scene.protected(document(2), limit_s=60)
        change_s = time.monotonic() - began

        def all_there() -> bool:
            return agent.total("backup_agent_snapshots", grade="good") >= 10_002

        assert wait_until(all_there, limit_s=240, every_s=0.5), f"{agent.total('backup_agent_snapshots')} of 10,002"
        total_s = time.monotonic() - began
        peak = agent.peak_bytes() / 2**20
        now = rss(agent.child.pid) / 2**20
        print(
            f"     10,000 protected in {total_s:.1f} s, a change among them in {change_s:.1f} s, "
            f"peak {peak:.1f} MiB, then {now:.1f} MiB",
            flush=True,
        )
        assert now < 40, f"{now:.1f} MiB resident"
        assert wait_until(lambda: agent.total("backup_agent_pending_files") == 0, limit_s=30)
    with scene.agent(port):
        print(f"     shut down and started again: {scene.lines('gate_passed')[-1]['duration_s']} s at the gate")


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# healing has limits


@case()
def damage_written_back_from_memory_ends_in_an_alert(scene: Scene) -> None:
    port = scene.settings(recovery={**QUICK_RECOVERY, "heal_attempts": 3, "clobber_window": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        deadline = time.monotonic() + 40
        while not scene.lines("heal_gave_up") and time.monotonic() < deadline:
            if scene.place.users.read_bytes() != DAMAGE:
                time.sleep(0.3)
                scene.place.users.write_bytes(DAMAGE)
            time.sleep(0.1)
        line = scene.told("heal_gave_up")
        assert "stop the bot" in line["hint"]
        assert agent.total("backup_agent_heals_total", result="ok") == 3
        assert wait_until(lambda: agent.total("backup_agent_files_given_up") == 1, limit_s=5)
        time.sleep(2)
        assert scene.place.users.read_bytes() == DAMAGE
        assert len(scene.lines("heal_gave_up")) == 1
        scene.write("users.json", document(2))
        scene.protected(document(2))
        assert wait_until(lambda: agent.total("backup_agent_files_given_up") == 0, limit_s=5)
        scene.whole()


def bot_commands(scene: Scene, stop: str, start: str) -> dict[str, Any]:
    calls = scene.place.side / "calls"
    return {
        "stop": ["sh", "-c", f"echo stop >> {calls}; cat {scene.place.users} >> {calls}.seen; {stop}"],
        "start": ["sh", "-c", f"echo start >> {calls}; cat {scene.place.users} > {calls}.at_start; {start}"],
        "timeout": "2s",
    }


def calls(scene: Scene) -> list[str]:
    path = scene.place.side / "calls"
    return path.read_text().split() if path.exists() else []


@case()
def bot_is_stopped_before_and_started_after_a_heal(scene: Scene) -> None:
    port = scene.settings(bot=bot_commands(scene, ":", ":"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        scene.place.users.write_bytes(DAMAGE)
        scene.told("source_restored")
        assert calls(scene) == ["stop", "start"]
        assert (scene.place.side / "calls.seen").read_bytes() == DAMAGE
        assert (scene.place.side / "calls.at_start").read_bytes() == document(1)


@case()
def bot_that_cannot_be_stopped_is_not_healed_under(scene: Scene) -> None:
    port = scene.settings(bot=bot_commands(scene, "echo no right; exit 5", ":"))
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.place.users.write_bytes(DAMAGE)
        line = scene.told("heal_failed")
        assert "code 5" in line["error"]
        assert line["hint"]
        assert calls(scene)[:2] == ["stop", "start"]
        assert scene.place.users.read_bytes() == DAMAGE
        assert agent.total("backup_agent_heals_total", result="failed") >= 1


@case()
def bot_stop_that_hangs_is_timed_out(scene: Scene) -> None:
    port = scene.settings(bot=bot_commands(scene, "sleep 60", ":"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        scene.place.users.write_bytes(DAMAGE)
        assert "2 s" in scene.told("heal_failed")["error"]
        assert calls(scene)[:2] == ["stop", "start"]


@case()
def bot_that_does_not_start_is_told_and_started_later(scene: Scene) -> None:
    flag = scene.place.side / "broken"
    flag.touch()
    port = scene.settings(bot=bot_commands(scene, ":", f"test ! -e {flag}"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        scene.place.users.write_bytes(DAMAGE)
        line = scene.told("bot_start_failed")
        assert line["level"] == "error"
        assert line["hint"]
        scene.shows(document(1))
        before = len(calls(scene))
        flag.unlink()
        assert wait_until(lambda: len(calls(scene)) > before, limit_s=70), "bot.start is not tried again"
        after = len(calls(scene))
        time.sleep(3)
        assert len(calls(scene)) == after, "started again and again"


@case()
def bot_start_that_leaves_a_bot_behind_has_ended(scene: Scene) -> None:
    """A script that puts the bot into the background passes its output on to it; that is no time-out."""
    port = scene.settings(bot=bot_commands(scene, ":", "sleep 15 & exit 0"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        began = time.monotonic()
        scene.place.users.write_bytes(DAMAGE)
        scene.told("source_restored")
        assert time.monotonic() - began < 10
        assert scene.lines("bot_start_failed") == []
        assert not (scene.place.backups / ".agent/bot_stopped").exists()


@case()
def agent_killed_between_stop_and_start_starts_the_bot_later(scene: Scene) -> None:
    port = scene.settings(bot={**bot_commands(scene, "sleep 30", ":"), "timeout": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.place.users.write_bytes(DAMAGE)
        assert wait_until(lambda: calls(scene) == ["stop"], limit_s=SOON_S)
        agent.child.kill()
        agent.child.wait()
    with scene.agent(port):
        assert wait_until(lambda: calls(scene) == ["stop", "start"], limit_s=SOON_S), calls(scene)
        assert scene.place.users.read_bytes() == document(1)
        assert not (scene.place.backups / ".agent/bot_stopped").exists()


# signals, ports, two agents


@case()
def reload_with_a_bad_config_keeps_the_old_one(scene: Scene) -> None:
    port = scene.settings()
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        good = scene.place.config.read_text()
        scene.place.config.write_text("nonsense: [")
        agent.child.send_signal(signal.SIGHUP)
        assert scene.told("config_reload_failed")["problems"]
        assert wait_until(lambda: agent.total("backup_agent_config_last_reload_successful") == 0, limit_s=5)
        scene.write("users.json", document(2))
        scene.protected(document(2))
        scene.place.config.write_text(good.replace(str(scene.place.backups), str(scene.place.root / "other")))
        agent.child.send_signal(signal.SIGHUP)
        assert "restart" in str(scene.told("config_reload_failed", times=2)["problems"])
        scene.place.config.unlink()
        agent.child.send_signal(signal.SIGHUP)
        scene.told("config_reload_failed", times=3)
        scene.place.config.write_text(good)
        agent.child.send_signal(signal.SIGHUP)
        scene.told("config_reloaded")
        assert agent.total("backup_agent_config_last_reload_successful") == 1


@case()
def sigterm_takes_the_last_state(scene: Scene) -> None:
    port = scene.settings(watch={"debounce": "20s", "max_delay": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.write("users.json", document(2))
        scene.write("new.json", document(3))
        assert agent.stop() == 0
    scene.protected(document(2), limit_s=0)
    scene.protected(document(3), "new", limit_s=0)
    scene.whole()


@case()
def second_sigterm_ends_at_once(scene: Scene) -> None:
    port = scene.settings(bot={**bot_commands(scene, "sleep 30", ":"), "timeout": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.place.users.write_bytes(DAMAGE)
        assert wait_until(lambda: calls(scene) == ["stop"], limit_s=SOON_S)
        agent.child.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert agent.child.poll() is None
        agent.child.send_signal(signal.SIGTERM)
        assert agent.child.wait(3) == 128 + signal.SIGTERM


@case()
def sigterm_in_the_gate_ends_soon(scene: Scene) -> None:
    port = scene.settings()
    for number in range(3000):
        (scene.place.data / f"{number}.json").write_bytes(b'{"n": %d}' % number)
    with scene.agent(port, ready=False) as agent:
        assert wait_until(lambda: any(scene.place.backups.glob("*_backup_*")), limit_s=SOON_S)
        agent.child.send_signal(signal.SIGTERM)
        assert agent.child.wait(12) in (0, 1)
    with scene.agent(port):
        pass


@case()
def second_agent_on_the_same_folder_is_refused(scene: Scene) -> None:
    port = scene.settings()
    scene.write("users.json", document(1))
    with scene.agent(port):
        second = subprocess.run(
            agent_command("run", "--config", str(scene.place.config)), capture_output=True, text=True, timeout=40
        )
        assert second.returncode == 1, second.stderr
        assert "another backup-agent" in second.stderr
        assert "hint" in second.stderr
        scene.write("users.json", document(2))
        scene.protected(document(2))


@case()
def metrics_port_in_use_is_a_warning(scene: Scene) -> None:
    import socket

    port = scene.settings()
    scene.write("users.json", document(1))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with scene.agent(port, ready=False) as agent:
            assert scene.told("metrics_unavailable")["level"] == "warning"
            scene.protected(document(1))
            assert agent.child.poll() is None


# catalog and journal


def states(scene: Scene) -> tuple[Path, Path]:
    folder = scene.place.backups / ".agent"
    return folder / "catalog.sqlite3", folder / "journal.jsonl"


def with_suspect_and_pin(scene: Scene, port: int) -> str:
    """Two good snapshots, the first one pinned, and a suspect; return the name of the pinned one."""
    scene.write("users.json", document(1))
    with scene.agent(port):
        name = scene.place.copies()[0].name
        pinned = subprocess.run(
            agent_command("pin", "--config", str(scene.place.config), name), capture_output=True, text=True
        )
        assert pinned.returncode == 0, pinned.stderr
        scene.write("users.json", document(2))
        scene.protected(document(2))
        scene.write("users.json", b"{}", good=False)
        scene.told("source_suspect")
        scene.write("users.json", document(3))
        scene.protected(document(3))
    return name


def remembered(scene: Scene) -> dict[str, tuple[str, int]]:
    with sqlite3.connect(f"file:{states(scene)[0]}?mode=ro", uri=True) as db:
        return {os.fsdecode(n): (g, p) for n, g, p in db.execute("SELECT name, grade, pinned FROM snapshots")}


def check_rebuilt(scene: Scene, before: dict[str, tuple[str, int]]) -> None:
    after = remembered(scene)
    assert after == before, f"{before} became {after}"


@case()
def catalog_deleted_while_stopped(scene: Scene) -> None:
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    before = remembered(scene)
    for path in states(scene)[0].parent.glob("catalog.sqlite3*"):
        path.unlink()
    with scene.agent(port):
        pass
    check_rebuilt(scene, before)


@case()
def catalog_garbage_while_stopped(scene: Scene) -> None:
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    before = remembered(scene)
    states(scene)[0].write_bytes(os.urandom(50_000))
    with scene.agent(port):
        assert scene.told("catalog_rebuilt")["set_aside"]
    check_rebuilt(scene, before)


@case()
def catalog_garbage_in_the_middle_while_stopped(scene: Scene) -> None:
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    before = remembered(scene)
    with states(scene)[0].open("r+b") as stream:
        size = stream.seek(0, 2)
        stream.seek(4096)
        stream.write(os.urandom(size - 4096))
    with scene.agent(port):
        scene.write("users.json", document(4))
        scene.protected(document(4))
    after = remembered(scene)
    assert {n: v for n, v in after.items() if n in before} == before


@case()
def catalog_deleted_while_running(scene: Scene) -> None:
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    before = remembered(scene)
    with scene.agent(port) as agent:
        for path in states(scene)[0].parent.glob("catalog.sqlite3*"):
            path.unlink()
        time.sleep(3)
        scene.write("users.json", document(4))
        scene.protected(document(4))
        assert agent.child.poll() is None
        assert wait_until(lambda: agent.total("backup_agent_snapshots", grade="good") == 4, limit_s=SOON_S)
    after = remembered(scene)
    assert {n: v for n, v in after.items() if n in before} == before


@case()
def catalog_garbage_while_running(scene: Scene) -> None:
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    before = remembered(scene)
    with scene.agent(port) as agent:
        states(scene)[0].write_bytes(os.urandom(60_000))
        with suppress_missing():
            Path(f"{states(scene)[0]}-wal").write_bytes(b"")
        for number in range(4, 8):
            scene.write("users.json", document(number))
            time.sleep(1)
        scene.protected(document(7))
        assert agent.child.poll() is None
        scene.place.users.write_bytes(DAMAGE)
        scene.shows(document(7))
    with scene.agent(port):
        pass  # what the running agent had in memory may have hidden the damage from it until now
    after = remembered(scene)
    assert {n: v for n, v in after.items() if n in before} == before, (before, after)


@contextmanager
def suppress_missing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return


@case()
def catalog_and_journal_deleted_while_stopped(scene: Scene) -> None:
    """The files alone are enough for grades; a pin cannot be known without the journal."""
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    before = remembered(scene)
    shutil.rmtree(states(scene)[0].parent)
    with scene.agent(port):
        scene.place.users.write_bytes(DAMAGE)
        scene.shows(document(3))
    after = remembered(scene)
    assert {n: g for n, (g, _) in after.items() if n in before} == {n: g for n, (g, _) in before.items()}


@case()
def state_folder_deleted_while_running(scene: Scene) -> None:
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    with scene.agent(port) as agent:
        shutil.rmtree(states(scene)[0].parent)
        time.sleep(3)
        scene.write("users.json", document(4))
        scene.protected(document(4))
        scene.place.users.write_bytes(DAMAGE)
        scene.shows(document(4))
        assert agent.child.poll() is None


@case()
def backup_folder_deleted_while_running(scene: Scene) -> None:
    port = scene.settings()
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        shutil.rmtree(scene.place.backups)
        scene.told("backup_dir_replaced")
        scene.protected(document(1), limit_s=45)
        scene.write("users.json", document(2))
        scene.protected(document(2))
        assert agent.child.poll() is None


@case()
def journal_with_garbage(scene: Scene) -> None:
    port = scene.settings()
    with_suspect_and_pin(scene, port)
    before = remembered(scene)
    catalog, journal = states(scene)
    with journal.open("ab") as stream:
        stream.write(
            b'\x00\xff{"op": "publish", "name": "../../etc/passwd", "rel": "../x"}\n{"op": "swap", "folder": "/etc"'
        )
    catalog.unlink()
    with scene.agent(port):
        scene.write("users.json", document(5))
        scene.protected(document(5))
    after = remembered(scene)
    assert {n: v for n, v in after.items() if n in before} == before


# adoption


@case()
def backups_of_an_older_system_are_adopted(scene: Scene) -> None:
    port = scene.settings()
    folder = scene.place.backups
    folder.mkdir()
    old = {
        "users_backup_2024-01-01T12-00-00-000Z.json": document(1),
        "users_backup_2024-01-02T12-00-00-000Z.json": document(2),
        "users_backup_1704283200000.json": document(3),
        "users_backup_2024-01-04T12-00-00-000Z.json": b'{"users": [1,',
        "users_backup_2024-01-05T12-00-00-000Z.json": b"{}",
        "users_backup_2024-01-06T12-00-00-000Z.json": b"",
    }
    for name, data in old.items():
        (folder / name).write_bytes(data)
    scene.place.users.write_bytes(DAMAGE)
    with scene.agent(port) as agent:
        scene.shows(document(3))
        line = scene.told("snapshots_adopted")
        assert line["count"] == 6, line
        assert line["grades"] == {"good": 3, "corrupt": 2, "suspect": 1}, line
        for name, data in old.items():
            assert (folder / name).read_bytes() == data
        assert agent.total("backup_agent_heals_total", result="ok") == 1


@case()
def planted_future_backup_does_not_displace_real_ones(scene: Scene) -> None:
    """Someone who can only plant a file must not choose what is restored."""
    port = scene.settings()
    scene.write("users.json", document(1))
    with scene.agent(port):
        scene.write("users.json", document(2))
        scene.protected(document(2))
    (scene.place.backups / "users_backup_2099-01-01T00-00-00-000Z.json").write_bytes(document(666))
    for path in states(scene)[0].parent.glob("catalog.sqlite3*"):
        path.unlink()
    scene.place.users.write_bytes(DAMAGE)
    with scene.agent(port):
        scene.told("source_restored")
        assert scene.place.users.read_bytes() == document(2), "the planted state was restored"
        scene.write("users.json", document(3))
        assert wait_until(lambda: digest_of(document(3)) in scene.place.digests(), limit_s=SOON_S)
        scene.place.users.write_bytes(DAMAGE)
        scene.shows(document(3))


# the command


def run_case(name: str, run: Callable[[Scene], None], parent: Path | None, *, keep: bool) -> str:
    """Return '' when the case holds, else what is wrong."""
    with Place.scratch(parent, keep=keep) as place:
        try:
            run(Scene(place, set()))
        except Exception:
            return traceback.format_exc(limit=-2)
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="WORD", default="", help="only the cases whose name holds WORD")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    args = parser.parse_args(arguments)
    failed = ran = 0
    with tempfile.TemporaryDirectory(prefix="environments-") as parent:
        for name, run, root in CASES:
            if args.k not in name:
                continue
            if root and os.geteuid() != 0:
                print(f"skip {name}: needs root", flush=True)
                continue
            began = time.monotonic()
            wrong = run_case(name, run, None if args.keep else Path(parent), keep=args.keep)
            ran += 1
            failed += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok  '} {name} ({time.monotonic() - began:.1f} s)", flush=True)
            if wrong:
                print(wrong, flush=True)
    print(f"{ran - failed} of {ran} cases hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
