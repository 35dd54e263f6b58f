import os
import sqlite3

import pytest
from place import LATER, Place

from agent.commands.session import Session
from agent.disk.lock import FileLocks, LockSession


@pytest.mark.parametrize("shorten", [str, os.path.basename, lambda name: f"data/backups/{name}"])
def test_a_snapshot_is_pinned_by_any_of_its_names(place: Place, shorten) -> None:  # type: ignore[no-untyped-def]
    place.write("sub/shop.json", [1])
    place.run("snapshot")
    name = place.snapshots("sub/shop.json")[0]["name"]

    code, told = place.json("pin", shorten(name))

    assert (code, told[0]["name"], told[0]["pinned"]) == (0, name, True)
    assert place.snapshots("sub/shop.json")[0]["pinned"]


def test_unpin_takes_a_pin_back(place: Place) -> None:
    place.run("snapshot", "--pin")
    name = place.snapshots()[0]["name"]

    code, out, _ = place.run("unpin", name)

    assert (code, out) == (0, f"{name}: not pinned\n")
    assert not place.snapshots()[0]["pinned"]


def test_pinning_twice_is_told(place: Place) -> None:
    place.run("snapshot", "--pin")

    code, out, _ = place.run("pin", place.snapshots()[0]["name"])

    assert code == 0
    assert "pinned already" in out


def test_a_pin_outlives_the_catalog(place: Place) -> None:
    place.run("snapshot", "--pin")
    for ending in ("", "-wal", "-shm"):
        (place.backups / f".agent/catalog.sqlite3{ending}").unlink(missing_ok=True)

    assert [s["pinned"] for s in place.snapshots()] == [True]


def test_an_unknown_name_pins_nothing_at_all(place: Place) -> None:
    place.run("snapshot")

    code, _, err = place.run("pin", place.snapshots()[0]["name"], "users_backup_nothing.json")

    assert code == 2
    assert "there is no snapshot called users_backup_nothing.json" in err
    assert not place.snapshots()[0]["pinned"]


def test_a_bare_name_that_two_snapshots_have_is_refused(place: Place) -> None:
    """Two folders, two files of one name, one batch: one stamp."""
    place.write("a/shop.json", LATER)
    place.write("b/shop.json", LATER)
    place.run("snapshot")
    names = {place.snapshots(f"{folder}/shop.json")[0]["name"] for folder in "ab"}
    bare = {os.path.basename(name) for name in names}
    if len(bare) == 2:
        pytest.skip("the clock ticked in between")

    code, _, err = place.run("pin", bare.pop())

    assert code == 2
    assert "is the name of 2 snapshots" in err


def test_a_pin_waits_for_whoever_works_on_the_file_and_is_not_told_of_a_copy_that_went(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotation had the snapshot in its hands: `pinned` was said of a copy that was gone a moment later."""
    place.run("snapshot")
    name = place.snapshots()[0]["name"]
    locks = FileLocks(str(place.backups / ".agent"))
    with locks.session() as rotation:
        assert rotation.take("users.json")

        def delete_it(_session: Session, _endings: object) -> None:
            with sqlite3.connect(place.backups / ".agent/catalog.sqlite3") as catalog:
                catalog.execute("UPDATE snapshots SET doomed=1")
            os.unlink(place.backups / name)
            monkeypatch.setattr(LockSession, "take", lambda *_: True)

        monkeypatch.setattr(Session, "settle", delete_it)
        code, out, err = place.run("pin", name)

    assert (code, out) == (2, "")
    assert "is not there any more" in err
