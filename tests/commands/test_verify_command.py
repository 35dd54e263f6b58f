import gzip
import hashlib
import json
from pathlib import Path

import pytest
from place import LATER, USERS, Place

from agent.config import load_config
from agent.verify_report import last_results
from agent.workspace import SystemClock, Workspace


@pytest.fixture
def kept(place: Place) -> Place:
    """Two good snapshots."""
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    return place


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def state_of(place: Place) -> dict[str, bytes]:
    files = (path for path in place.root.rglob("*.json") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def test_a_whole_folder_is_well(kept: Place) -> None:
    code, out, _ = kept.run("verify", "--drill")

    assert code == 0
    assert out.startswith("1 file and 2 snapshots read (")
    assert out.endswith("1 file restored aside and compared: all is well\n")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_flipped_bit_is_found_and_named_and_nothing_is_deleted(place: Place, compression: str) -> None:
    place.configure(f"backup: {{compression: {compression}}}")
    place.run("snapshot")
    place.write("users.json", LATER)
    place.run("snapshot")
    name = place.snapshots()[0]["name"]
    flip_a_bit(place.backups / name)
    before = state_of(place)

    code, told = place.json("verify", "--drill")

    assert code == 3
    assert [(f["kind"], f["snapshot"]) for f in told["findings"]] == [("rotten", name)]
    assert told["drilled"] == 1  # from the older one
    assert state_of(place) == before
    assert [s["restore_point"] for s in place.snapshots()] == [False, True]


def test_a_file_without_any_whole_snapshot_fails_its_drill(kept: Place) -> None:
    for snapshot in kept.snapshots():
        flip_a_bit(kept.backups / snapshot["name"])

    code, told = kept.json("verify", "--drill")

    assert code == 3
    assert sorted(f["kind"] for f in told["findings"]) == ["no_restore_point", "rotten", "rotten"]


def test_a_snapshot_that_somebody_deleted_is_named(kept: Place) -> None:
    (kept.backups / kept.snapshots()[0]["name"]).unlink()

    code, told = kept.json("verify")

    assert (code, [f["kind"] for f in told["findings"]]) == (3, ["gone"])


@pytest.mark.parametrize("content", [b"{", b"[]", None])
def test_a_live_file_that_is_not_good_is_a_failure_and_is_left(kept: Place, content: bytes | None) -> None:
    path = kept.data / "users.json"
    path.write_bytes(content) if content is not None else path.unlink()

    code, told = kept.json("verify")

    assert (code, [f["kind"] for f in told["findings"]]) == (3, ["not_good"])
    assert (path.read_bytes() if content is not None else None) == content


def test_a_snapshot_that_a_newer_schema_refuses_is_a_note_only(place: Place) -> None:
    place.write("users.json", {"1": "old style"})
    place.run("snapshot")
    place.write("users.json", {"1": 1})
    place.run("snapshot")
    place.configure("files: [{path: users.json, schema: {additionalProperties: {type: number}}}]")

    code, told = place.json("verify", "--drill")

    assert (code, [f["kind"] for f in told["findings"]]) == (0, ["unfit"])


def test_a_drill_leaves_what_it_restored_where_it_is_asked_to(kept: Place) -> None:
    kept.write("sub/shop.json", [1])
    kept.run("snapshot")

    code, _, _ = kept.run("verify", "--drill", "--into", "restored")

    assert code == 0
    assert json.loads((kept.root / "restored/users.json").read_bytes()) == LATER
    assert json.loads((kept.root / "restored/sub/shop.json").read_bytes()) == [1]
    assert list((kept.backups / ".agent/staging").iterdir()) == []


@pytest.mark.parametrize("words", [["--into", "x"], ["--drill", "--into", "data/x"], ["--drill", "--into", "."], ["y"]])
def test_a_scratch_folder_that_would_mix_with_the_data_is_wrong_usage(kept: Place, words: list[str]) -> None:
    before = state_of(kept)

    assert kept.run("verify", *words)[0] == 2
    assert state_of(kept) == before


def test_one_file_is_verified_alone(kept: Place) -> None:
    kept.write("other.json", b"{")
    kept.run("snapshot")

    assert kept.run("verify", "users.json")[0] == 0
    assert kept.run("verify")[0] == 3


def test_it_works_beside_a_daemon(place: Place) -> None:
    with place.daemon():
        place.wait(lambda: len(place.snapshots()) == 1)

        assert place.run("verify", "--drill")[0] == 0
        assert place.read("users.json") == USERS


def test_the_daemon_finds_rot_by_itself(place: Place) -> None:
    place.configure("verify: {every: 1s}")
    with place.daemon():
        place.wait(lambda: len(place.snapshots()) == 1)
        flip_a_bit(place.backups / place.snapshots()[0]["name"])

        ws = Workspace.open(load_config(str(place.root / "agent.yaml"), None, {}), SystemClock())
        place.wait(lambda: last_results(ws.catalog).failure_count == 2)
        assert place.read("users.json") == USERS


def test_a_copy_that_the_catalog_does_not_know_is_told_while_it_cannot_be_read_and_known_once_it_can(
    kept: Place,
) -> None:
    """As packed ones, in a catalog made anew, while what they are packed against is lost."""
    name = "users_backup_2024-01-01T12-00-00-000Z.json.gz"
    (kept.backups / name).write_bytes(b"not compressed at all")
    code, told = kept.json("verify")
    (kept.backups / name).write_bytes(gzip.compress(json.dumps(USERS).encode()))

    assert (code, [finding["snapshot"] for finding in told["findings"]]) == (3, [name])
    assert "the catalog does not know it" in told["findings"][0]["what"]
    assert kept.run("verify")[0] == 0
    assert name in [s["name"] for s in kept.snapshots()]


def test_what_leans_on_a_lost_reference_is_known_again_once_it_is_put_back_and_an_erasure_finds_all(
    place: Place,
) -> None:
    place.configure("backup: {compression: zstd, packing: true}")
    keys = {str(n): {"key": hashlib.sha256(b"%d" % n).hexdigest()} for n in range(300)}
    for number in range(5):
        place.write("users.json", {**keys, "0": number})
        place.run("snapshot")
    place.run("prune", "--yes")
    (reference,) = (path for path in (place.backups / "_reference").iterdir())
    lost = reference.rename(place.root / "lost")
    for path in (place.backups / ".agent").glob("*[a-z]"):
        if path.name.startswith(("catalog", "journal")):
            path.unlink()
    code, told = place.json("verify")
    lost.rename(reference)

    assert (code, len(told["findings"])) == (3, 2)
    assert place.run("verify")[0] == 0
    assert len(place.snapshots()) == 5
    assert place.run("forget-record", "users.json", "7", "--yes")[0] == 0
    assert not reference.exists()
