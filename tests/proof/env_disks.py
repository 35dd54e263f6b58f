"""Full disks, read-only ones, and volumes that go and come back."""

import subprocess
import time
from pathlib import Path

from rig import digest_of, wait_until
from scene import DAMAGE, SOON_S, Scene, case, document, fill, mount, small_image, trouble_count, unmount, volume


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
