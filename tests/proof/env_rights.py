"""Rights, descriptors and space that are not there."""

import os
import subprocess
import time
from pathlib import Path

from rig import agent_command, digest_of, wait_until
from scene import SOON_S, Scene, case, document, trouble_count


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
