import contextlib
import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agent.disk.watcher as watcher_module
from agent.disk.hints import Doubt, Hints, PendingHints
from agent.disk.inotify import PROBE_PREFIX, PROBE_SUFFIX, Listening
from agent.disk.mounts import is_remote
from agent.disk.staging import StagingFolder
from agent.disk.watcher import Mode, Probed, Trouble, Watcher

NOBODY = 65534
PATIENCE_S = 10.0


def is_json(rel: str) -> bool:
    return rel.endswith(".json") and not rel.startswith(("backups/", "temp/"))


def is_ours(rel: str) -> bool:
    return rel in {"backups", "temp"}


class Bench:
    """A watcher at work on `root`, and all that it has told so far."""

    def __init__(
        self,
        root: Path,
        *,
        is_data_file: Callable[[str], bool] = is_json,
        skip_folder: Callable[[str], bool] = is_ours,
    ) -> None:
        self.root = root
        self.woken = threading.Event()
        self.wakes = 0
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.doubts: set[Doubt] = set()
        self.watcher = Watcher(str(root), is_data_file=is_data_file, skip_folder=skip_folder, wake=self._wake)

    def _wake(self) -> None:
        self.wakes += 1
        self.woken.set()

    def drain(self) -> Hints:
        hints = self.watcher.drain()
        self.files |= hints.files
        self.folders |= hints.folders
        self.doubts |= hints.doubts
        return hints

    def until(self, settled: Callable[[], bool]) -> None:
        """Drain at every wake until `settled` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not settled():
            assert self.woken.wait(deadline - time.monotonic()), f"{self.files=} {self.folders=} {self.doubts=}"
            self.woken.clear()
            self.drain()

    def heard_up_to_here(self) -> None:
        """Events come in order, so with a file of our own, moved in as one event, all before it have come too."""
        outside = self.root.with_name(f"{self.root.name}.sentinel")
        outside.touch()
        os.replace(outside, self.root / "sentinel.json")
        self.until(lambda: "sentinel.json" in self.files)
        self.files.discard("sentinel.json")

    def forget(self) -> None:
        self.heard_up_to_here()
        for told in (self.files, self.folders, self.doubts):
            told.clear()


def eventually(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, so that permissions count; a person who is not root is that already."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def kernel_watches() -> int:
    """How many inotify watches this process has, as the kernel counts them."""
    count = 0
    for fd in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/fdinfo/{fd}") as info:
            count += sum(line.startswith("inotify wd:") for line in info)
    return count


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def bench(root: Path) -> Iterator[Bench]:
    at_work = Bench(root)
    at_work.watcher.start()
    yield at_work
    at_work.watcher.stop()


def write_in_place(path: Path) -> None:
    path.write_bytes(b"{}")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def replace_from_beside(path: Path) -> None:
    path.with_suffix(".tmp").write_bytes(b"{}")
    os.replace(path.with_suffix(".tmp"), path)


def replace_from_skipped_folder(path: Path) -> None:
    temp = path.parents[1] / "temp"
    (temp / "staged").write_bytes(b"{}")
    os.replace(temp / "staged", path)


def replace_from_outside(path: Path) -> None:
    outside = path.parents[2] / "outside"
    outside.write_bytes(b"{}")
    os.replace(outside, path)


def delete(path: Path) -> None:
    path.unlink()


def move_out(path: Path) -> None:
    path.rename(path.parents[2] / "outside")


@pytest.mark.parametrize(
    "change",
    [
        write_in_place,
        append,
        truncate,
        replace_from_beside,
        replace_from_skipped_folder,
        replace_from_outside,
        delete,
        move_out,
    ],
)
def test_every_way_to_change_a_file_is_hinted_under_its_name(root: Path, change: Callable[[Path], None]) -> None:
    (root / "temp").mkdir()
    path = root / "caf\udce9" / "users.json"
    path.parent.mkdir()
    path.write_bytes(b"{}")
    bench = Bench(root)
    bench.watcher.start()

    change(path)

    bench.until(lambda: bool(bench.files))
    bench.watcher.stop()
    assert bench.files == {"caf\udce9/users.json"}
    assert not bench.doubts


def test_file_that_leaves_the_tree_holds_up_no_later_hint(bench: Bench, tmp_path: Path) -> None:
    """The library waits half a second for where it went; a heal moves a file out each time.

    One quick hint of several is enough: a busy machine makes it late, but only that wait makes it late every time.
    """
    waits: list[float] = []
    for number in range(10):
        leaving = bench.root / "leaving.json"
        leaving.write_bytes(b"{}")
        bench.forget()
        os.rename(leaving, tmp_path / f"gone-{number}.json")
        began = time.monotonic()
        bench.heard_up_to_here()
        waits.append(time.monotonic() - began)

    assert min(waits) < 0.25


def test_renamed_data_file_is_hinted_under_both_names(bench: Bench) -> None:
    (bench.root / "a.json").write_bytes(b"{}")
    bench.forget()

    os.rename(bench.root / "a.json", bench.root / "b.json")

    bench.until(lambda: bench.files == {"a.json", "b.json"})


def test_folder_made_and_filled_at_once_is_hinted_with_its_files(bench: Bench) -> None:
    deep = bench.root / "guilds" / "1" / "2"
    deep.mkdir(parents=True)
    (deep / "users.json").write_bytes(b"{}")

    bench.until(lambda: "guilds/1/2/users.json" in bench.files and "guilds" in bench.folders)


def test_folder_moved_in_is_hinted_and_listened_to_from_then_on(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "outside" / "1").mkdir(parents=True)
    (tmp_path / "outside" / "1" / "users.json").write_bytes(b"{}")

    (tmp_path / "outside").rename(bench.root / "guilds")
    bench.until(lambda: "guilds" in bench.folders and "guilds/1/users.json" in bench.files)
    bench.forget()
    append(bench.root / "guilds" / "1" / "users.json")

    bench.until(lambda: bench.files == {"guilds/1/users.json"})


def test_folder_renamed_is_hinted_under_both_names_and_its_files_under_the_new_one(bench: Bench) -> None:
    (bench.root / "old" / "1").mkdir(parents=True)
    (bench.root / "old" / "1" / "users.json").write_bytes(b"{}")
    bench.until(lambda: "old/1/users.json" in bench.files)
    bench.forget()

    (bench.root / "old").rename(bench.root / "new")
    bench.until(lambda: {"old", "new"} <= bench.folders)
    bench.forget()
    append(bench.root / "new" / "1" / "users.json")

    bench.until(lambda: bench.files == {"new/1/users.json"})


def test_folder_that_left_and_came_back_elsewhere_is_hinted_under_its_new_name(bench: Bench, tmp_path: Path) -> None:
    (bench.root / "old").mkdir()
    bench.until(lambda: "old" in bench.folders)

    (bench.root / "old").rename(tmp_path / "away")
    bench.forget()
    (tmp_path / "away").rename(bench.root / "new")
    bench.until(lambda: "new" in bench.folders)
    bench.forget()
    (bench.root / "new" / "users.json").write_bytes(b"{}")

    bench.until(lambda: bench.files == {"new/users.json"})
    assert bench.watcher.health().alive


def test_folder_removed_is_hinted(bench: Bench) -> None:
    (bench.root / "guilds").mkdir()
    bench.forget()

    shutil.rmtree(bench.root / "guilds")

    bench.until(lambda: bench.folders == {"guilds"})


def test_our_own_reads_are_not_hinted(bench: Bench) -> None:
    (bench.root / "users.json").write_bytes(b"{}")
    bench.forget()

    for _ in range(20):
        (bench.root / "users.json").read_bytes()
        os.listdir(bench.root)

    bench.heard_up_to_here()
    assert not bench.files


def test_what_is_no_data_file_is_not_hinted(bench: Bench) -> None:
    (bench.root / "bot.log").write_bytes(b"started")
    (bench.root / "backup-agent-1.tmp").write_bytes(b"")

    bench.heard_up_to_here()
    assert (bench.files, bench.folders) == (set(), set())


def test_skipped_folders_cost_no_watch_and_give_no_hint(root: Path) -> None:
    (root / "guilds" / "1").mkdir(parents=True)
    (root / "backups" / "guilds" / "1").mkdir(parents=True)
    bench = Bench(root)
    bench.watcher.start()

    (root / "temp" / "deep").mkdir(parents=True)
    (root / "backups" / "guilds" / "2").mkdir()
    (root / "backups" / "guilds" / "1" / "users.json").write_bytes(b"{}")
    (root / "temp" / "deep" / "users.json").write_bytes(b"{}")

    bench.heard_up_to_here()
    health, watches = bench.watcher.health(), kernel_watches()
    bench.watcher.stop()
    assert (bench.files, bench.folders) == (set(), set())
    assert health.watched_folders == watches == len(["root", "guilds", "guilds/1"])
    assert health.alive


def test_skipped_folders_are_not_even_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "guilds" / "1").mkdir(parents=True)
    (root / "backups" / "guilds" / "1").mkdir(parents=True)
    listed, scandir = [], os.scandir

    def list_folder(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        listed.append(os.fsdecode(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", list_folder)
    bench = Bench(root)
    bench.watcher.start()
    bench.watcher.stop()

    assert listed == [str(root), str(root / "guilds")]  # guilds/1 says that no folder is in it


def test_folders_below_are_watched_where_the_file_system_counts_no_links(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "guilds" / "1" / "deep").mkdir(parents=True)
    real = os.stat

    def uncounted(path: object, **options: object) -> os.stat_result:
        status = list(real(path, **options))  # type: ignore[arg-type]  # whatever os.stat takes
        status[3] = 1
        return os.stat_result(status)

    monkeypatch.setattr("agent.disk.inotify.os.stat", uncounted)
    bench = Bench(root)
    bench.watcher.start()
    watches = kernel_watches()
    bench.watcher.stop()

    assert watches == len(["root", "guilds", "guilds/1", "guilds/1/deep"])


def test_burst_of_writes_is_one_wake_and_one_entry(bench: Bench) -> None:
    bench.forget()
    bench.woken.clear()
    before = bench.wakes

    for _ in range(200):
        write_in_place(bench.root / "users.json")
    write_in_place(bench.root / "last.json")
    seen: set[str] = set()
    eventually(lambda: "last.json" in bench.watcher._pending._files)  # without draining
    hints = bench.drain()
    seen |= hints.files

    assert seen == {"users.json", "last.json"}
    assert bench.wakes == before + 1
    assert hints.events["closed"] > 1


def test_hints_beyond_the_bound_become_one_doubt(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr("agent.disk.hints.PENDING_MAX", 10)
    for n in range(30):
        (bench.root / f"{n}.json").touch()
    write_in_place(bench.root / "last.json")

    eventually(lambda: "last.json" in bench.watcher._pending._files)
    hints = bench.watcher.drain()

    assert hints.doubts == {Doubt.TOO_MANY}
    assert len(hints.files) <= 10


def test_failure_in_the_handler_is_a_doubt_and_later_hints_still_come(root: Path) -> None:
    def fails_once(rel: str) -> bool:
        if rel == "bad.json":
            raise RuntimeError(rel)
        return is_json(rel)

    bench = Bench(root, is_data_file=fails_once)
    bench.watcher.start()

    write_in_place(root / "bad.json")
    write_in_place(root / "good.json")

    bench.until(lambda: bench.files == {"good.json"})
    health = bench.watcher.health()
    bench.watcher.stop()
    assert Doubt.HANDLER_FAILED in bench.doubts
    assert health.alive
    assert health.failure_count > 0


def test_failure_in_the_reader_of_events_is_a_doubt_and_calls_for_a_restart(root: Path) -> None:
    def fails_once(rel: str) -> bool:
        if rel == "bad":
            raise RuntimeError(rel)
        return False

    bench = Bench(root, skip_folder=fails_once)
    bench.watcher.start()

    (root / "bad").mkdir()
    bench.until(lambda: Doubt.OVERFLOW in bench.doubts)
    (root / "bad").rmdir()

    assert bench.watcher.health().reason is Trouble.LISTENER_DEAD
    assert bench.watcher.restart_if_needed()
    assert bench.watcher.health().alive
    bench.forget()
    bench.watcher.stop()


def recreate(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def swap(root: Path) -> None:
    root.rename(root.with_name("old"))
    root.mkdir()


def move_away_and_back(root: Path) -> None:
    root.rename(root.with_name("old"))
    root.mkdir()
    root.rename(root.with_name("empty"))
    root.with_name("old").rename(root)


@pytest.mark.parametrize("change", [recreate, swap])
def test_another_folder_in_place_of_the_root_is_seen_and_listened_to(
    bench: Bench, change: Callable[[Path], None]
) -> None:
    change(bench.root)
    if change is recreate:  # the new folder may bear the inode of the old one: only the event tells them apart
        bench.until(lambda: Doubt.ROOT_DELETED in bench.doubts)

    health = bench.watcher.health()
    assert not health.alive
    assert health.reason is Trouble.ROOT_REPLACED
    assert bench.watcher.restart_if_needed()
    assert bench.watcher.health().alive
    assert Doubt.RESTARTED in bench.watcher.drain().doubts
    bench.heard_up_to_here()


def test_root_deleted_is_told_at_once(bench: Bench) -> None:
    bench.root.rmdir()

    bench.until(lambda: Doubt.ROOT_DELETED in bench.doubts)


def test_root_moved_away_and_back_is_listened_to_without_a_restart(bench: Bench) -> None:
    move_away_and_back(bench.root)

    assert bench.watcher.health().alive
    assert not bench.watcher.restart_if_needed()
    bench.heard_up_to_here()


@pytest.mark.parametrize("change", [shutil.rmtree, lambda root: root.rename(root.with_name("away"))])
def test_missing_root_is_waited_for_quietly(bench: Bench, change: Callable[[Path], None]) -> None:
    change(bench.root)

    assert not bench.watcher.restart_if_needed()
    assert Doubt.RESTARTED in bench.watcher.drain().doubts
    assert not bench.watcher.restart_if_needed()
    assert not bench.watcher.drain().doubts  # told once
    assert bench.watcher.health().reason is Trouble.ROOT_MISSING
    assert not bench.watcher.health().alive

    bench.root.mkdir()
    assert bench.watcher.restart_if_needed()
    assert bench.watcher.health().alive
    bench.heard_up_to_here()


@pytest.mark.parametrize("make", [None, Path.touch])
def test_root_that_is_no_folder_at_start_is_missing(tmp_path: Path, make: Callable[[Path], None] | None) -> None:
    bench = Bench(tmp_path / "data")
    if make is not None:
        make(bench.root)

    bench.watcher.start()

    assert bench.watcher.health().reason is Trouble.ROOT_MISSING
    assert str(bench.root) in bench.watcher.health().detail
    assert not bench.watcher.restart_if_needed()


def test_root_that_is_a_link_is_followed_to_where_it_leads_now(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    bench = Bench(tmp_path / "data")
    bench.root.symlink_to("first")
    bench.watcher.start()
    bench.heard_up_to_here()

    bench.root.unlink()
    bench.root.symlink_to("second")

    assert bench.watcher.health().reason is Trouble.ROOT_REPLACED
    assert bench.watcher.restart_if_needed()
    bench.heard_up_to_here()
    bench.watcher.stop()


def test_stopped_watcher_stays_stopped_and_holds_nothing(root: Path) -> None:
    threads, descriptors = set(threading.enumerate()), set(os.listdir("/proc/self/fd"))
    bench = Bench(root)

    bench.watcher.start()
    bench.watcher.start()
    bench.heard_up_to_here()
    bench.watcher.stop()
    bench.watcher.stop()
    root.joinpath("sentinel.json").unlink()
    root.rmdir()

    assert not bench.watcher.restart_if_needed()
    assert bench.watcher.health().reason is Trouble.STOPPED
    assert set(threading.enumerate()) == threads
    assert set(os.listdir("/proc/self/fd")) <= descriptors


def test_kernel_queue_overflow_is_counted_and_doubted_and_prints_nothing(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip("the kernel's queue is too long to be filled in a moment")
    reader_held, go_on = threading.Event(), threading.Event()

    def holds_the_reader(rel: str) -> bool:
        if rel == "hold":
            reader_held.set()
            go_on.wait(PATIENCE_S)
        return False

    bench = Bench(root, skip_folder=holds_the_reader)
    bench.watcher.start()
    try:
        (root / "hold").mkdir()
        assert reader_held.wait(PATIENCE_S)
        with (root / "a.json").open("wb", 0) as a, (root / "b.json").open("wb", 0) as b:
            for _ in range(limit // 2 + 100):  # in turns, because the kernel joins equal neighbours
                a.write(b"1")
                b.write(b"1")
        (root / "made" / "late").mkdir(parents=True)  # its event is lost
        go_on.set()

        bench.until(lambda: Doubt.OVERFLOW in bench.doubts)

        assert bench.watcher.health().overflow_count == 1
        assert bench.watcher.health().alive
        write_in_place(root / "made" / "late" / "users.json")
        bench.until(lambda: "made/late/users.json" in bench.files)
    finally:
        go_on.set()
        bench.watcher.stop()
    assert capfd.readouterr() == ("", "")


def test_folder_that_may_not_be_read_is_told_and_watched_once_it_may(tmp_path: Path) -> None:
    top = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())  # where nobody can go, unlike tmp_path
    top.chmod(0o777)
    closed = top / "closed"
    closed.mkdir(mode=0)
    if os.geteuid() == 0:
        os.chown(closed, NOBODY, NOBODY)
    bench = Bench(top)
    try:
        with unprivileged():
            bench.watcher.start()
            health, restarted = bench.watcher.health(), bench.watcher.restart_if_needed()

            closed.chmod(0o755)

            assert health.alive
            assert health.reason is Trouble.FOLDERS_UNWATCHED
            assert "'closed'" in health.detail
            assert not restarted
            assert bench.watcher.restart_if_needed()
            assert bench.watcher.health().reason is None
            (closed / "users.json").write_bytes(b"{}")
            bench.until(lambda: "closed/users.json" in bench.files)
    finally:
        bench.watcher.stop()
        shutil.rmtree(top)


def test_root_that_may_not_be_read_is_told_and_tried_again(tmp_path: Path) -> None:
    top = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    top.chmod(0)
    if os.geteuid() == 0:
        os.chown(top, NOBODY, NOBODY)
    bench = Bench(top)
    try:
        with unprivileged():
            bench.watcher.start()
            health, restarted = bench.watcher.health(), bench.watcher.restart_if_needed()

            top.chmod(0o755)

            assert (health.alive, health.reason) == (False, Trouble.ROOT_UNREADABLE)
            assert not restarted
            assert bench.watcher.restart_if_needed()
            bench.heard_up_to_here()
    finally:
        bench.watcher.stop()
        shutil.rmtree(top)


IN_A_NAMESPACE = """
import os, pathlib, tempfile, threading
from agent.disk.watcher import Watcher

def limit(name, value):
    pathlib.Path("/proc/sys/user", name).write_text(str(value))

woken = threading.Event()
root = pathlib.Path(tempfile.mkdtemp())
watcher = Watcher(str(root), is_data_file=lambda rel: True, skip_folder=lambda rel: False, wake=woken.set)
for n in range(5):
    (root / str(n)).mkdir()
"""


def in_a_namespace(script: str) -> str:
    """Run `script` where the limits of inotify can be set for itself alone."""
    code = IN_A_NAMESPACE + textwrap.dedent(script)
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    try:
        subprocess.run([*command[:3], "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("user namespaces are not to be had")
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_watch_limit_at_start_falls_back_to_polling_and_names_the_sysctl() -> None:
    told = in_a_namespace("""
        limit("max_inotify_watches", 3)
        watcher.start()
        health = watcher.health()
        print(health.mode, health.alive, health.reason, "fs.inotify.max_user_watches" in health.detail,
              health.watched_folders, threading.active_count())
    """)

    assert told == f"polling True {Trouble.WATCH_LIMIT} True 0 1"


def test_watch_limit_reached_later_falls_back_to_polling_with_a_doubt() -> None:
    told = in_a_namespace("""
        limit("max_inotify_watches", 7)
        watcher.start()
        before = watcher.health()
        (root / "new").mkdir()
        (root / "newer").mkdir()
        (root / "last").touch()
        while "last" not in (hints := watcher.drain()).files:
            woken.wait(10)
            woken.clear()
        broken = watcher.health()
        print(before.alive, before.mode, "|", broken.alive, broken.reason, "|", watcher.restart_if_needed(), end=" ")
        after = watcher.health()
        print(after.alive, after.mode, after.reason, *watcher.drain().doubts)
    """)

    assert told == "True events | False watch_limit | True True polling watch_limit restarted"


def test_instance_limit_falls_back_to_polling_until_started_again() -> None:
    told = in_a_namespace("""
        limit("max_inotify_instances", 0)
        watcher.start()
        health = watcher.health()
        print(health.mode, health.alive, health.reason, "fs.inotify.max_user_instances" in health.detail, end=" | ")
        limit("max_inotify_instances", 10)
        print(watcher.restart_if_needed(), end=" ")
        watcher.start()
        print(watcher.health().mode, watcher.health().reason)
    """)

    assert told == "polling True instance_limit True | False events None"


@pytest.mark.parametrize("folder", ["", "temp", "guilds"])
def test_probe_is_heard_in_any_folder_and_leaves_nothing(root: Path, folder: str) -> None:
    for name in ("temp", "guilds"):
        (root / name).mkdir()
    bench = Bench(root)
    bench.watcher.start()

    probed = bench.watcher.probe(str(root / folder), timeout_s=PATIENCE_S)

    assert probed is Probed.HEARD
    assert not list(root.rglob("backup-agent-*"))
    append(root / "users.json")
    bench.until(lambda: "users.json" in bench.files)  # the watch on the probed folder is what it was
    write_in_place(root / "guilds" / "users.json")
    bench.until(lambda: "guilds/users.json" in bench.files)
    (root / "temp" / "users.json").touch()
    bench.heard_up_to_here()
    health = bench.watcher.health()
    bench.watcher.stop()
    assert bench.files == {"users.json", "guilds/users.json"}
    assert (health.alive, health.watched_folders) == (True, len(["root", "guilds"]))


def test_probe_that_a_kill_left_behind_is_swept(root: Path) -> None:
    (root / f"{PROBE_PREFIX}01234567{PROBE_SUFFIX}").touch()

    with StagingFolder(str(root)) as folder:
        kept = folder.sweep_parts()

    assert (kept, list(root.glob("backup-agent-*"))) == ([], [])


def test_probe_that_cannot_be_written_proves_nothing(bench: Bench) -> None:
    assert bench.watcher.probe(str(bench.root / "gone"), timeout_s=PATIENCE_S) is Probed.UNKNOWN
    assert bench.watcher.probe("/proc/self", timeout_s=PATIENCE_S) is Probed.UNKNOWN
    assert bench.watcher.health().mode is Mode.EVENTS
    assert bench.watcher.health().reason is None
    bench.heard_up_to_here()


def test_probe_that_is_not_heard_falls_back_to_polling(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(Listening, "hears", lambda self, folder, *, timeout_s: False)

    assert bench.watcher.probe(str(bench.root), timeout_s=1.0) is Probed.SILENT

    health = bench.watcher.health()
    assert (health.alive, health.mode, health.reason) == (True, Mode.POLLING, Trouble.NO_EVENTS)
    assert bench.watcher.drain().rescan_wanted
    assert not bench.watcher.restart_if_needed()
    bench.root.rmdir()
    assert (bench.watcher.health().alive, bench.watcher.health().reason) == (False, Trouble.ROOT_MISSING)


def test_remote_file_system_is_polled(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(watcher_module, "is_remote", lambda device: True)
    bench = Bench(root)

    bench.watcher.start()

    health = bench.watcher.health()
    assert (health.alive, health.mode, health.reason) == (True, Mode.POLLING, Trouble.REMOTE_FILE_SYSTEM)


MOUNTS = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:5 / /a\040b rw - nfs4 server:/x rw
23 21 0:6 / /b rw shared:2 master:3 - fuse.sshfs me@host:/ rw
24 21 8:1 / /c rw - fuseblk /dev/sda1 rw
25 21 0:7 / /d rw - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("device", "remote"),
    [((254, 0), False), ((0, 5), True), ((0, 6), True), ((8, 1), False), ((0, 7), False), ((9, 9), False)],
)
def test_network_and_fuse_file_systems_are_remote(tmp_path: Path, device: tuple[int, int], remote: bool) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.lstrip())

    assert is_remote(os.makedev(*device), mount_table=str(table)) is remote


def test_file_system_of_the_tests_is_local(tmp_path: Path) -> None:
    assert not is_remote(tmp_path.stat().st_dev)
    assert not is_remote(tmp_path.stat().st_dev, mount_table=str(tmp_path / "no such table"))


def test_wake_that_raises_stops_no_thread(root: Path) -> None:
    def wake() -> None:
        raise OSError(errno.EBADF, "the service has gone")

    watcher = Watcher(str(root), is_data_file=is_json, skip_folder=is_ours, wake=wake)
    watcher.start()
    write_in_place(root / "users.json")
    eventually(lambda: "users.json" in watcher._pending._files)
    watcher.drain()
    write_in_place(root / "again.json")
    eventually(lambda: "again.json" in watcher._pending._files)

    assert watcher.health().alive
    watcher.stop()


def test_drain_gives_each_hint_once() -> None:
    pending = PendingHints(is_json, is_ours, lambda: None)
    pending.doubt(Doubt.RESTARTED)

    first, second = pending.drain(), pending.drain()

    assert first.rescan_wanted
    assert second == Hints(frozenset(), frozenset(), frozenset(), {})


def test_hints_are_as_old_as_the_read_that_brought_them_and_no_older_than_what_they_tell(bench: Bench) -> None:
    outside = bench.root.with_name("outside.json")
    outside.touch()
    written_at = time.monotonic()
    os.replace(outside, bench.root / "users.json")  # one event
    assert bench.woken.wait(PATIENCE_S)
    woken_at = time.monotonic()
    time.sleep(0.02)

    hints, drained_at = bench.drain(), time.monotonic()

    assert hints.files == {"users.json"}
    assert written_at <= drained_at - hints.age_s <= woken_at + 0.02
    assert hints.age_s >= 0.02
