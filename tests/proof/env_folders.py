"""The data folder goes and comes back."""

import os
import shutil
import sqlite3
import time

from rig import digest_of, wait_until
from scene import QUICK_RECOVERY, REQUIRED, SOON_S, Scene, absent, case, document, mount, small_image, still, unmount


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
        for number in range(2, 6):  # gone for longer than the grace altogether
            users.unlink()
            time.sleep(0.6)
            scene.write("users.json", document(number))
            time.sleep(0.4)
        scene.protected(document(5))
        assert scene.lines("source_restored") == []
