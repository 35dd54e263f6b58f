"""What is no data file, every name, and very many files."""

import json
import os
import subprocess
import time
from pathlib import Path

from rig import agent_command, digest_of, wait_until
from scene import (
    DAMAGE,
    Scene,
    case,
    document,
)


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
        judged = subprocess.run(
            ["promtool", "check", "metrics"], input=page, text=True, capture_output=True, check=False
        )
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
