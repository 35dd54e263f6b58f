"""Commands beside a daemon that still makes its catalog agree with the snapshots."""

import threading
import time
from collections.abc import Iterator

import pytest
from place import LATER, Place

from agent.commands import session as session_module
from agent.disk.lock import DaemonLock


@pytest.fixture
def lock(place: Place) -> Iterator[DaemonLock]:
    """The catalog is lost, and a daemon that began to rebuild it has come to nothing yet."""
    place.write("users.json", LATER)
    place.run("snapshot")
    state_dir = place.backups / ".agent"
    for path in state_dir.glob("catalog.sqlite3*"):
        path.unlink()
    lock = DaemonLock(str(state_dir))
    lock.take()
    yield lock
    lock.release()


@pytest.mark.parametrize("words", [("snapshot",), ("check",), ("check", "--heal"), ("restore", "users.json")])
def test_command_that_would_judge_is_refused_while_it_takes_long(
    place: Place, lock: DaemonLock, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """A collapsed file was published as good: the catalog did not know any better state."""
    place.write("users.json", {})
    before = sorted(path.name for path in place.backups.glob("users*"))
    monkeypatch.setattr(session_module, "_RECOVERY_WAIT_S", 0.3)

    code, _, said = place.run(*words)

    assert code == 1
    assert "still compares its catalog" in said
    assert "try again" in said
    assert sorted(path.name for path in place.backups.glob("users*")) == before
    assert place.read("users.json") == {}


def test_command_that_finds_the_catalog_gone_beside_a_daemon_in_order_is_refused(
    place: Place, lock: DaemonLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon notices at its next rescan; until then the new catalog knows nothing."""
    lock.end_recovery()
    place.write("users.json", {})
    monkeypatch.setattr(session_module, "_RECOVERY_WAIT_S", 0.3)

    assert place.run("check")[0] == 1
    assert len(list(place.backups.glob("users*"))) == 1


def test_command_waits_for_the_recovery_to_end(place: Place, lock: DaemonLock) -> None:
    place.write("users.json", {})

    def end() -> None:
        time.sleep(0.5)
        lock.release()

    ender = threading.Thread(target=end)
    ender.start()
    code, out, _ = place.run("check")
    ender.join()

    assert code == 3
    assert "suspect" in out


@pytest.mark.parametrize("verb", ["status", "list", "show"])
def test_command_that_only_reads_goes_on_and_says_so(place: Place, lock: DaemonLock, verb: str) -> None:
    _, _, said = place.run(verb, *(["users.json"] if verb == "show" else []))

    assert "still compares its catalog" in said
    assert "what is told here may lack some" in said  # one that waits in vain ends with `nothing was done`


def test_command_beside_a_daemon_in_order_does_not_wait(place: Place, lock: DaemonLock) -> None:
    lock.release()
    place.run("status")
    again = DaemonLock(str(place.backups / ".agent"))
    again.take()
    again.end_recovery()

    _, _, said = place.run("check")
    again.release()

    assert "still compares" not in said
