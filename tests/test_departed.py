import errno
from pathlib import Path

import pytest
from bench import USERS, Bench, document

from agent import departed
from agent.departed import Departed, rotate_departed
from agent.disk.presence import is_gone
from agent.lanes import Lanes

DAY_S = 86400.0
SHOP = "shop.json"
KEPT = "keep_deleted: 90d"


def gone(base: Path, settings: str = KEPT, *rels: str, files: str = "") -> Bench:
    """Three snapshots of each of four files, of which one is deleted."""
    bench = Bench(base, f"backup: {{retention: {{{settings}}}}}\n{files}")
    for rel in (USERS, SHOP, "a.json", "b.json"):
        for number in range(3):
            bench.protect(document(number), rel)
    bench.lose(*(rels or (SHOP,)))
    return bench


def test_snapshots_of_a_deleted_file_go_after_their_time_but_for_the_newest(tmp_path: Path) -> None:
    bench = gone(tmp_path)
    bench.clock.advance(89 * DAY_S)
    early = list(rotate_departed(bench.ws))
    bench.clock.advance(2 * DAY_S)

    assert early == []
    assert list(rotate_departed(bench.ws)) == [(SHOP, 2)]
    assert bench.stored(SHOP) == [document(2)]
    assert len(bench.stored(USERS)) == 3
    assert list(rotate_departed(bench.ws)) == []


@pytest.mark.parametrize(
    ("settings", "files", "rels"),
    [
        ("keep_deleted: forever", "", [SHOP]),
        (KEPT, "files: [{path: shop.json, required: true, on_missing: alert}]", [SHOP]),
        (KEPT, "", [USERS, SHOP, "a.json"]),  # most at once: an unmount, or a deploy
    ],
)
def test_what_was_not_deleted_on_purpose_stays(tmp_path: Path, settings: str, files: str, rels: list[str]) -> None:
    bench = gone(tmp_path, settings, *rels, files=files)
    bench.clock.advance(1000 * DAY_S)

    assert list(rotate_departed(bench.ws)) == []


def test_a_file_that_is_back_and_one_that_somebody_works_on_keep_theirs(tmp_path: Path) -> None:
    bench = gone(tmp_path)
    bench.clock.advance(91 * DAY_S)
    with bench.ws.locks.session() as somebody:
        assert somebody.take(SHOP)
        busy = list(rotate_departed(bench.ws))
    (bench.data / SHOP).write_bytes(document(3))

    assert busy == list(rotate_departed(bench.ws)) == []


def test_a_file_that_the_disk_does_not_tell_of_keeps_no_other_from_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(rel: str, root_fd: int) -> bool:
        if rel == "a.json":
            raise PermissionError(errno.EACCES, "Permission denied", rel)
        return is_gone(rel, root_fd)

    bench = gone(tmp_path, KEPT, SHOP)
    bench.lose("a.json")
    bench.clock.advance(91 * DAY_S)
    monkeypatch.setattr(departed, "is_gone", refuse)
    went = list[tuple[str, int]]()

    with pytest.raises(PermissionError, match=r"a\.json"):
        went.extend(rotate_departed(bench.ws))

    assert went == [(SHOP, 2)]
    assert len(bench.stored("a.json")) == 3


def test_another_folder_in_the_place_of_the_data_says_nothing_of_a_deletion(tmp_path: Path) -> None:
    bench = gone(tmp_path)
    with bench.ws.data_root() as root_fd:
        bench.ws.know_root(root_fd)
    bench.clock.advance(91 * DAY_S)
    bench.data.rename(tmp_path / "unmounted")
    bench.data.mkdir()

    assert list(rotate_departed(bench.ws)) == []


def test_the_agent_looks_once_an_hour_and_tells_what_went(tmp_path: Path) -> None:
    bench, told, failed = gone(tmp_path), list[tuple[str, int]](), list[Exception]()
    lanes = Lanes(lambda: None)
    work = Departed(bench.ws, lanes, lambda rel, count: told.append((rel, count)), failed.append)
    bench.clock.advance(91 * DAY_S)
    work.turn(bench.clock.monotonic())
    work.turn(bench.clock.monotonic())
    lanes.close()

    assert (told, failed) == ([(SHOP, 2)], [])
    assert work.next_at == bench.clock.monotonic() + 3600
