"""A share of the bad input in every run, and what it once broke; the whole of it with `-m torture`."""

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import bad_input
import plant_texts
import plants

PARTS = list(bad_input.PARTS)


def others_may_run(program: str) -> bool:
    path = Path(program).resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def outcome(part: str, tmp_path: Path, *, count: int, seed: int, user: int | None = None) -> str:
    options = ["--count", str(count), "--seed", str(seed), "--folder", str(tmp_path)]
    if user is not None:
        options += ["--user", str(user)]
        os.chmod(tmp_path, 0o755)
        for parent in tmp_path.parents[:3]:
            if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                os.chmod(parent, 0o755)
    return bad_input.run_child(part, bad_input.parse(options))


@pytest.fixture
def place(tmp_path: Path) -> plants.Place:
    made = plants.Place(tmp_path)
    made.protect()
    return made


@pytest.mark.parametrize("part", ["names", "reading", "repair"])
def test_bad_text_neither_breaks_nor_becomes_good(part: str, tmp_path: Path) -> None:
    assert outcome(part, tmp_path, count=20, seed=1) == ""


def test_hostile_folder_restores_nothing_planted_and_writes_nowhere_else(tmp_path: Path) -> None:
    assert outcome("folder", tmp_path, count=40, seed=1) == ""


def test_hostile_catalog_is_set_aside(tmp_path: Path) -> None:
    assert outcome("catalog", tmp_path, count=40, seed=1) == ""


@pytest.mark.parametrize(
    "record",
    [
        {"rel": "../../outside/secret.json"},
        {"rel": "\ud800"},
        {"rel": 7},
        {"digest": "\ud800"},
        {"size": 1 << 70},
        {"size": -1},
        {"shape": ["\ud800", 1]},
        {"shape": ["object", 1 << 70]},
    ],
)
def test_journal_that_lies_about_a_copy_is_not_believed(place: plants.Place, record: dict[str, object]) -> None:
    cut = f"{'u' * 150}~01234567_backup_{plant_texts.OLD}.json.gz"
    told = {"op": "publish", "rel": "users.json", "digest": "0" * 64, "size": 9, "grade": "good", "reason": "change"}
    with (place.state / "journal.jsonl").open("a") as journal:
        for name in (cut, f"users_backup_{plant_texts.OLD}.json.gz"):
            (place.backups / name).write_bytes(b"no gzip")
            journal.write(json.dumps({**told, "name": name, **record}) + "\n")
    (place.state / "catalog.sqlite3").unlink()
    place.damage()

    assert place.heal() == ""
    assert place.users.read_bytes() == plants.NEWER


@pytest.mark.parametrize("seconds", [1e15, 1.3e10, -1e15])
def test_file_of_an_impossible_time_is_kept(place: plants.Place, seconds: float) -> None:
    old = place.backups / "users_backup_old.json"
    old.write_bytes(plants.GOOD)
    for path in (place.users, old):
        os.utime(path, (seconds, seconds))
    (place.state / "catalog.sqlite3").unlink()

    assert place.agent("snapshot") == ""
    assert place.agent("check", "--heal") == ""


@pytest.mark.torture
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("part", PARTS)
def test_bad_input_of_every_kind_is_survived(part: str, seed: int, tmp_path: Path) -> None:
    assert outcome(part, tmp_path, count=4000, seed=seed) == ""


@pytest.mark.torture
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(not others_may_run(sys.executable), reason="nobody else may run this interpreter")
@pytest.mark.parametrize("part", PARTS)
def test_bad_input_is_survived_by_a_plain_user(part: str, tmp_path: Path) -> None:
    assert outcome(part, tmp_path, count=1000, seed=4, user=1234) == ""
