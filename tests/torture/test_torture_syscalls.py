"""A small share of every walk in each run, all of it with `-m torture`; and the proof that the proofs can fail."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from calls import Blow, Strike  # noqa: E402
from invariants import Expected, digest_of, violations  # noqa: E402  # as the programs of this folder import
from syscalls import can_trace, mark, run_traced  # noqa: E402

from agent.cli import main  # noqa: E402

needs_ptrace = pytest.mark.skipif(not can_trace(), reason="no ptrace of x86-64 here")
GOOD = b'{"a": 1}'


def walk(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(HERE / program), *options], capture_output=True, text=True, check=False)


# the walks


@needs_ptrace
@pytest.mark.parametrize("program", ["kill_everywhere.py", "errors_everywhere.py"])
def test_share_of_the_strikes_breaks_no_promise(program: str) -> None:
    done = walk(program, "--share", "4", "--jobs", "1")

    assert done.returncode == 0, done.stdout + done.stderr


@needs_ptrace
@pytest.mark.torture
@pytest.mark.parametrize("program", ["kill_everywhere.py", "errors_everywhere.py"])
def test_no_strike_breaks_a_promise(program: str) -> None:
    done = walk(program, "--minutes", "240")

    assert done.returncode == 0, done.stdout + done.stderr


# the tracer


def write_four(folder: Path) -> Callable[[], int]:
    def write(number: int) -> None:
        (folder / str(number)).write_bytes(b"1234")

    def act() -> int:
        write(0)
        mark()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(write, (1, 2, 3)))
        return 7

    return act


@needs_ptrace
def test_calls_of_all_threads_count_from_the_mark(tmp_path: Path) -> None:
    ended = run_traced(write_four(tmp_path), below=str(tmp_path), from_mark=True)

    assert ended.code == 7
    assert sorted(call.path for call in ended.calls if call.name == "write") == ["1", "2", "3"]


@needs_ptrace
def test_kill_comes_before_its_call(tmp_path: Path) -> None:
    calls = run_traced(write_four(tmp_path), below=str(tmp_path)).calls
    first_write = [call.name for call in calls].index("write") + 1
    (tmp_path / "0").unlink()

    ended = run_traced(write_four(tmp_path), below=str(tmp_path), blow=Blow(Strike.KILL, first_write))

    assert (ended.code, str(ended.struck)) == (-9, "write 0")
    assert (tmp_path / "0").read_bytes() == b""


@needs_ptrace
@pytest.mark.parametrize(("strike", "failures"), [(Strike.FAIL, 1), (Strike.KEEP_FAILING, 2)])
def test_error_strikes_once_or_from_then_on(tmp_path: Path, strike: Strike, failures: int) -> None:
    def act() -> int:
        failed = 0
        for number in range(3):
            try:
                os.close(os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY))
            except OSError as error:
                failed += error.errno == errno.ENOSPC
        return failed

    ended = run_traced(act, below=str(tmp_path), blow=Blow(strike, 3, errno.ENOSPC))

    assert ended.code == failures


@needs_ptrace
def test_short_write_writes_half(tmp_path: Path) -> None:
    def act() -> int:
        return os.write(os.open(tmp_path / "a", os.O_CREAT | os.O_WRONLY), b"1234")

    assert run_traced(act, below=str(tmp_path), blow=Blow(Strike.SHORT, 2)).code == 2


# the invariants


def protected(root: Path) -> tuple[Path, Path, dict[str, bytes], Expected]:
    """A data folder with one file, which has a good snapshot."""
    data = root / "data"
    data.mkdir()
    (data / "users.json").write_bytes(GOOD)
    (data / "users.json").chmod(0o640)
    (root / "agent.yaml").write_text(f"data_dir: {data}\nwatch: {{debounce: 0}}\n")
    assert main(["snapshot", "--config", str(root / "agent.yaml")]) == 0
    digest, dress = digest_of(GOOD), {"users.json": (os.geteuid(), os.getegid(), 0o640)}
    expected = Expected({"users.json": frozenset({digest})}, {"users.json": [digest]}, frozenset({digest}), dress)
    return data, data / "backups", {digest: GOOD}, expected


def snapshot_in(backups: Path) -> Path:
    return next(backups.glob("users_backup_*"))


def tear(data: Path, backups: Path) -> None:
    snapshot_in(backups).write_bytes(GOOD[:4])


def take_away(data: Path, backups: Path) -> None:
    snapshot_in(backups).unlink()


def lose_live(data: Path, backups: Path) -> None:
    (data / "users.json").unlink()


def tear_live(data: Path, backups: Path) -> None:
    (data / "users.json").write_bytes(GOOD[:4])


def widen(data: Path, backups: Path) -> None:
    snapshot_in(backups).chmod(0o666)


def undress(data: Path, backups: Path) -> None:
    (data / "users.json").chmod(0o600)


def leave_behind(data: Path, backups: Path) -> None:
    (backups / ".agent/staging/backup-agent-1.part.tmp").touch()


def add_unknown(data: Path, backups: Path) -> None:
    (backups / "users_backup_2020-01-01T00-00-00-000Z.json").write_bytes(GOOD)


def lose_catalog(data: Path, backups: Path) -> None:
    (backups / ".agent/catalog.sqlite3").unlink()


def forget_format(data: Path, backups: Path) -> None:
    (backups / ".agent/format").write_bytes(b"")


PLANTED = {
    tear: "holds bytes that no file ever held whole",
    take_away: "users.json has no good copy left",
    lose_live: "users.json is absent",
    tear_live: "neither old nor new",
    widen: "wider than 640 of its source",
    undress: "not",
    leave_behind: "leftover: ",
    add_unknown: "catalog: does not know",
    lose_catalog: "catalog: there is none",
    forget_format: "format: ",
}


def test_folder_at_rest_breaks_no_promise(tmp_path: Path) -> None:
    assert violations(*protected(tmp_path)) == []


@pytest.mark.parametrize("plant", PLANTED)
def test_planted_fault_is_found(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    data, backups, states, expected = protected(tmp_path)

    plant(data, backups)

    assert any(PLANTED[plant] in line for line in violations(data, backups, states, expected))
