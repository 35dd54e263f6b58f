import os
from pathlib import Path
from typing import Any

import pytest
from place import USERS, Place

from agent import look as look_module

FEW = "backup: {retention: {keep_last: 1, keep_intervals: 0, keep_hourly: 0, keep_daily: 0}}"


def version(number: int) -> dict[str, Any]:
    return {**USERS, "version": {"number": number}}


def take(place: Place, count: int, rel: str = "users.json") -> None:
    for number in range(count):
        place.write(rel, version(number))
        place.run("snapshot", rel)


def copies(place: Place) -> list[Path]:
    return sorted(place.backups.glob("*_backup_*"))


def test_plan_tells_the_reasons_and_deletes_nothing(place: Place) -> None:
    take(place, 3)
    place.configure(FEW)

    code, out, _ = place.run("prune")

    assert code == 0
    assert "newest good, last 1" in out
    assert out.count("no rule keeps it") == 2
    assert "nothing was deleted: `backup-agent prune --yes` does it" in out
    assert len(copies(place)) == 3


def test_yes_carries_out_what_the_plan_said(place: Place) -> None:
    take(place, 3)
    place.configure(FEW)
    planned = place.json("prune")[1]["files"][0]["delete"]

    code, told = place.json("prune", "--yes")

    assert (code, told["deleted"], told["carried_out"]) == (0, 2, True)
    assert told["files"][0]["delete"] == planned
    assert [path.name for path in copies(place)] == [place.snapshots()[0]["name"]]


def test_pinned_snapshot_stays(place: Place) -> None:
    take(place, 2)
    oldest = place.snapshots()[-1]["name"]
    place.run("pin", oldest)
    take(place, 2)
    place.configure(FEW)

    place.run("prune", "--yes")

    assert [s["name"] for s in place.snapshots()][-1] == oldest
    assert len(copies(place)) == 2


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b'{"1": {'), lambda p: p.write_text("{}"), os.unlink])
def test_file_that_went_bad_unseen_holds_all_its_good_snapshots(place: Place, spoil: Any) -> None:
    take(place, 3)
    place.configure(FEW)
    spoil(place.data / "users.json")

    _, told = place.json("prune", "--yes")

    assert told["deleted"] == 0
    assert len(copies(place)) == 3


@pytest.mark.parametrize("named", [["--file", "data/shop.json"], ["data/shop.json"]])
def test_only_the_named_file_is_pruned(place: Place, named: list[str]) -> None:
    take(place, 2)
    take(place, 2, "shop.json")
    place.configure(FEW)

    assert "a running agent does it by itself" in place.run("prune", *named)[1]
    code, told = place.json("prune", *named, "--yes")

    assert (code, [f["file"] for f in told["files"]]) == (0, ["shop.json"])
    assert [path.name.split("_")[0] for path in copies(place)] == ["shop", "users", "users"]


def test_damaged_states_beyond_their_number_go(place: Place) -> None:
    place.configure("recovery: {on_corrupt: alert}")
    take(place, 1)
    for number in range(4):
        place.write("users.json", b'{"1": %d' % number)
        place.run("check", "--heal")
    place.run("restore", "users.json")
    kept = place.backups / "_quarantine"
    before = len(list(kept.iterdir()))
    place.configure("backup: {keep_quarantined: 2}")

    _, told = place.json("prune", "--yes")

    assert before > 2
    assert told["deleted"] == before - 2
    assert len(list(kept.iterdir())) == 2


def test_pruning_again_finds_nothing(place: Place) -> None:
    take(place, 3)
    place.configure(FEW)
    place.run("prune", "--yes")

    assert place.json("prune")[1]["to_delete"] == 0


def test_an_agent_that_runs_takes_no_pruned_snapshot_for_a_loss(place: Place) -> None:
    take(place, 3)
    place.configure(FEW)
    with place.daemon():
        place.run("prune", "--yes")

    assert len(place.snapshots()) == 1


def test_file_that_cannot_be_looked_at_is_told_and_its_snapshots_are_held(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(place, 3)
    place.configure(FEW)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(look_module, "capture", refuse)
    code, out, _ = place.run("prune", "--yes")

    assert code == 3
    assert "users.json: cannot be looked at, so its good snapshots are held: [Errno 5] Input/output error" in out
    assert len(copies(place)) == 3


def test_file_that_is_gone_is_not_told_as_being_written(place: Place) -> None:
    take(place, 3)
    place.configure(FEW)
    os.unlink(place.data / "users.json")

    code, out, _ = place.run("prune", "users.json", "--yes")

    assert code == 0
    assert "being written" not in out
    assert "held" in out
