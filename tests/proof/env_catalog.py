"""Catalog and journal that are damaged or gone, and the backups of an older system."""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rig import agent_command, digest_of, wait_until
from scene import DAMAGE, SOON_S, Scene, case, document


def states(scene: Scene) -> tuple[Path, Path]:
    folder = scene.place.backups / ".agent"
    return folder / "catalog.sqlite3", folder / "journal.jsonl"


def with_suspect_and_pin(scene: Scene, port: int) -> str:
    """Two good snapshots, the first one pinned, and a suspect; return the name of the pinned one."""
    scene.write("users.json", document(1))
    with scene.agent(port):
        name = scene.place.copies()[0].name
        pinned = subprocess.run(
            agent_command("pin", "--config", str(scene.place.config), name),
            capture_output=True,
            text=True,
            check=False,
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
