import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.disk import journal as journal_module
from agent.disk.journal import JOURNAL_NAME, Journal, Place


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> object:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def records(state: Path) -> list[object]:
    return [record["n"] for record in Journal(str(state)).read()]


def append(state: Path, *numbers: int) -> None:
    Journal(str(state)).append_durably(*({"n": n} for n in numbers))


def test_records_come_back_in_order(state: Path) -> None:
    append(state, 1, 2)
    append(state, 3)

    assert records(state) == [1, 2, 3]


def test_journal_that_does_not_exist_is_empty(state: Path) -> None:
    assert records(state) == []
    assert Journal(str(state)).size_bytes() == 0


def test_names_that_are_not_utf8_come_back(state: Path) -> None:
    Journal(str(state)).append_durably({"rel": "caf\udce9.json"})

    assert list(Journal(str(state)).read()) == [{"rel": "caf\udce9.json"}]


def test_journal_is_private(state: Path) -> None:
    append(state, 1)

    assert (state / JOURNAL_NAME).stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("cut", range(1, len('{"n":3}\n') + 1))
def test_line_cut_short_is_passed_over_and_the_next_stands_alone(state: Path, cut: int) -> None:
    append(state, 1, 2, 3)
    with (state / JOURNAL_NAME).open("r+b") as stream:
        stream.truncate((state / JOURNAL_NAME).stat().st_size - cut)
    append(state, 4)

    assert records(state) == ([1, 2, 3, 4] if cut == 1 else [1, 2, 4])


@pytest.mark.parametrize(
    "junk", [b"\x00" * 100, b"\xff\xfe{}", b"[1,2]", b"null", b"[" * 100_000, b'{"n":' + b"9" * 5000 + b"}"]
)
def test_line_that_is_none_of_ours_is_passed_over(state: Path, junk: bytes) -> None:
    append(state, 1)
    with (state / JOURNAL_NAME).open("ab") as stream:
        stream.write(junk + b"\n")
    append(state, 2)

    assert records(state) == [1, 2]


def test_link_in_the_place_of_the_journal_is_not_followed(state: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b'{"n":9}\n')
    state.mkdir()
    (state / JOURNAL_NAME).symlink_to(victim)

    with pytest.raises(OSError, match="symbolic"):
        append(state, 1)
    with pytest.raises(OSError, match="symbolic"):
        records(state)

    assert victim.read_bytes() == b'{"n":9}\n'


def test_pipe_in_the_place_of_the_journal_is_not_waited_for(state: Path) -> None:
    state.mkdir()
    os.mkfifo(state / JOURNAL_NAME)

    assert records(state) == []


@pytest.mark.parametrize("left", [0, 1, 5, 8])
def test_append_that_fails_leaves_what_was_there(state: Path, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    append(state, 1)
    before = (state / JOURNAL_NAME).read_bytes()
    write = os.write
    room = left

    def full(fd: int, view: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "full")
        done = write(fd, bytes(view)[:room])
        room -= done
        return done

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        with pytest.raises(OSError, match="full"):
            append(state, 2, 3)

    assert (state / JOURNAL_NAME).read_bytes() == before


@pytest.mark.parametrize("call", ["fstat", "stat", "close", "pread"])
def test_append_that_fails_at_any_call_leaves_no_lock_behind(
    state: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Every later append of the process once waited for it, for ever."""
    append(state, 1)
    real = getattr(os, call)
    for nth in range(6):
        left = nth

        def fails_once(*values: object, **named: object) -> object:
            nonlocal left
            left -= 1
            done = real(*values, **named)  # called within this turn only; a close that fails has closed
            if left == -1:
                raise OSError(errno.EINTR, "interrupted")
            return done

        with monkeypatch.context() as broken, contextlib.suppress(OSError):
            broken.setattr(os, call, fails_once)
            append(state, 2)

        with (state / JOURNAL_NAME).open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_flush_that_fails_is_an_error(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="no answer"):
            append(state, 1)


def test_new_journal_outlives_a_power_cut_with_its_name(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    with monkeypatch.context() as watch:
        watch.setattr(os, "fsync", watched)
        append(state, 1)

    assert flushed == [str(state), str(state / JOURNAL_NAME)]


def rewrite(state: Path, *numbers: int, keep_from: Place | None = None) -> bool:
    """What was in the journal is replaced by these numbers, and what comes after `keep_from` stays."""
    keep_from = keep_from or Journal(str(state)).end()
    assert keep_from is not None
    return Journal(str(state)).rewrite([{"n": n} for n in numbers], keep_from=keep_from)


def test_replaced_journal_holds_the_new_records_and_what_came_since(state: Path) -> None:
    append(state, 1, 2, 3)
    end = Journal(str(state)).end()
    append(state, 4)

    assert rewrite(state, 7, keep_from=end)
    assert records(state) == [7, 4]
    assert os.listdir(state) == [JOURNAL_NAME]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_replacement_that_fails_leaves_the_old_one_and_no_other_file(
    state: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    append(state, 1, 2)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as broken:
        broken.setattr(os, step, fails)
        with pytest.raises(OSError, match="full"):
            rewrite(state, 7)

    assert records(state) == [1, 2]
    assert os.listdir(state) == [JOURNAL_NAME]


def test_appender_that_waited_for_a_replacement_writes_to_the_new_file(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(state, 1)
    rename = journal_module.rename_over
    waiting = threading.Thread(target=append, args=(state, 2))

    def rename_while_another_waits(*names: object) -> None:
        waiting.start()
        waiting.join(0.2)  # it comes as far as the lock
        assert waiting.is_alive()
        rename(*names)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(journal_module, "rename_over", rename_while_another_waits)

    rewrite(state, 7)
    waiting.join(30)

    assert records(state) == [7, 2]


def test_journal_that_was_replaced_meanwhile_is_left(state: Path) -> None:
    append(state, 1)
    end = Journal(str(state)).end()
    (state / JOURNAL_NAME).rename(state / "old")
    append(state, 2)

    assert not rewrite(state, 7, keep_from=end)
    assert records(state) == [2]
    assert sorted(os.listdir(state)) == [JOURNAL_NAME, "old"]


def test_place_is_not_told_while_somebody_writes(state: Path) -> None:
    fd = Journal(str(state)).append([{"n": 1}])
    while_writing = Journal(str(state)).end()
    os.close(fd)

    assert while_writing is None
    assert Journal(str(state)).end() == (os.stat(state / JOURNAL_NAME).st_ino, os.stat(state / JOURNAL_NAME).st_size)


def test_records_of_one_kind_are_read_with_their_places(state: Path) -> None:
    journal = Journal(str(state))
    journal.append_durably({"op": "swap", "n": 1}, {"op": "publish", "n": 2}, {"op": "swap", "n": 3})
    text = (state / JOURNAL_NAME).read_bytes()

    found = [(place.offset, record["n"]) for place, record in journal.read_with_places("swap")]

    assert found == [(0, 1), (text.rindex(b'{"op":"swap"'), 3)]


APPENDER = """
import sys
from agent.disk.journal import Journal
for n in range(int(sys.argv[2]), int(sys.argv[2]) + 50):
    Journal(sys.argv[1]).append_durably({"n": n})
"""


def test_two_processes_and_replacements_lose_no_record(state: Path) -> None:
    state.mkdir()
    commands = [[sys.executable, "-c", APPENDER, str(state), str(start)] for start in (1000, 2000)]
    appenders = [subprocess.Popen(command) for command in commands]
    told: set[object] = set()
    while any(process.poll() is None for process in appenders):
        told.update(records(state))
        end = Journal(str(state)).end()
        if end is not None:  # whoever is mid-append writes before or after, never into a lost file
            Journal(str(state)).rewrite([], keep_from=end)
    told.update(records(state))

    assert all(process.returncode == 0 for process in appenders)
    for line in (state / JOURNAL_NAME).read_bytes().splitlines():
        json.loads(line)
    assert told <= {*range(1000, 1050), *range(2000, 2050)}


@pytest.mark.parametrize("chunk", [1, 30, 100, 1000])
def test_place_of_a_record_is_where_its_line_begins_however_the_journal_is_read(
    state: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(journal_module, "_CHUNK_BYTES", chunk)
    journal = Journal(str(state))
    for number in range(20):
        journal.append_durably({"op": "swap" if number % 7 == 0 else "publish", "n": number, "at": "\r" * number})
    whole = (state / JOURNAL_NAME).read_bytes()

    told = list(journal.read_with_places("swap"))

    assert [record["n"] for _, record in told] == [0, 7, 14]
    assert [json.loads(whole[place.offset :].split(b"\n")[0]) for place, _ in told] == [record for _, record in told]
