"""A lone damaged file is healed by the look that found it damaged, under the lock of that look."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench, document, python

import agent.checking as checking_module
import agent.look as look_module
from agent.core.decide import LeftWhy
from agent.core.model import Grade, Reason
from agent.core.settle import Due
from agent.look import Look
from agent.outcome import Ending, Outcome

BADGES = "badges.json"


def looked_at(
    bench: Bench, *rels: str, heal: Callable[[int, Look], Outcome | None] | None = None
) -> dict[Ending, Outcome]:
    dues = [Due(rel, quiet=True, first_at=bench.clock.monotonic()) for rel in rels or (USERS,)]
    outcomes = bench.pipeline.outcomes(dues, Reason.CHANGE, heal=heal or bench.healer.at_once)
    return {outcome.ending: outcome for outcome in outcomes}


def test_lone_damaged_file_is_healed_after_one_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    restore_point = bench.protect(document(1))
    bench.write(DAMAGE)
    captures: list[str] = []
    capture = look_module.capture
    monkeypatch.setattr(look_module, "capture", lambda *a, **kw: (captures.append(a[1]), capture(*a, **kw))[1])

    ended = looked_at(bench)

    assert list(ended) == [Ending.DAMAGED, Ending.HEALED]
    assert captures == [USERS]
    assert (bench.data / USERS).read_bytes() == document(1)
    assert bench.stored(grade=Grade.CORRUPT) == [DAMAGE]
    assert ended[Ending.HEALED].snapshot == restore_point
    state = bench.ws.catalog.file(USERS)
    assert state is not None
    assert (state.grade, state.heals, state.healed_grade) == (Grade.GOOD, 1, Grade.CORRUPT)


def test_heal_of_a_cut_file_does_not_wait_for_the_check_whose_findings_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.write(b'{"a": 1,\n "b" 2, [')
    checked: list[object] = []
    check = checking_module.check
    monkeypatch.setattr(checking_module, "check", lambda *a, **kw: (checked.append(a[0]), check(*a, **kw))[1])

    def heal(root_fd: int, look: Look) -> Outcome | None:
        assert checked == []
        return bench.healer.at_once(root_fd, look)

    ended = looked_at(bench, heal=heal)

    assert list(ended) == [Ending.DAMAGED, Ending.HEALED]
    assert len(checked) == 1
    assert {(p.kind, p.line, p.column) for o in ended.values() for p in o.problems} == {("syntax", 2, 6)}


def test_large_lone_damaged_file_is_healed_from_its_private_copy_which_goes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    good = document(1, records=170_000)
    bench.protect(good)
    bench.write(good[:-7])

    assert list(looked_at(bench)) == [Ending.DAMAGED, Ending.HEALED]
    assert (bench.data / USERS).read_bytes() == good
    assert bench.stored(grade=Grade.CORRUPT) == [good[:-7]]
    assert list((bench.backups / ".agent" / "staging").iterdir()) == []


@pytest.mark.parametrize(("records", "compression", "private_copies"), [(10_000, "none", 0), (170_000, "zstd", 1)])
def test_copy_that_was_made_ready_of_a_damaged_state_takes_no_room_from_its_heal(
    tmp_path: Path, records: int, compression: str, private_copies: int
) -> None:
    bench = Bench(tmp_path, f"backup: {{compression: {compression}}}")
    good = document(1, records)
    bench.protect(good)
    bench.write(good[:-9] + b"\x01" + good[-8:])
    staged: list[Path] = []

    def heal(root_fd: int, look: Look) -> Outcome | None:
        staged.extend((bench.backups / ".agent" / "staging").iterdir())
        return bench.healer.at_once(root_fd, look)

    assert list(looked_at(bench, heal=heal)) == [Ending.DAMAGED, Ending.HEALED]
    assert len(staged) == private_copies
    assert (bench.data / USERS).read_bytes() == good


def test_damage_that_comes_back_is_given_up_after_as_many_heals_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "recovery: {heal_attempts: 2, clobber_window: 1h}")
    bench.protect(document(1))
    for attempt in (1, 2):
        bench.write(DAMAGE)
        assert looked_at(bench)[Ending.HEALED].attempt == attempt
    bench.write(DAMAGE)

    given_up = looked_at(bench)

    assert given_up[Ending.LEFT].left_why is LeftWhy.GAVE_UP
    assert (bench.data / USERS).read_bytes() == DAMAGE


def test_write_of_the_bot_between_look_and_heal_wins_and_the_file_counts_as_damaged_until_the_next_look(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.write(DAMAGE)

    def heal_after_a_save(root_fd: int, look: Look) -> Outcome | None:
        (bench.data / USERS).write_bytes(document(2))
        return bench.healer.at_once(root_fd, look)

    ended = looked_at(bench, heal=heal_after_a_save)

    assert list(ended) == [Ending.DAMAGED, Ending.RACED]
    assert (bench.data / USERS).read_bytes() == document(2)
    assert bench.ws.catalog.not_good() == [USERS]


def test_nobody_else_can_take_the_file_between_look_and_heal(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.write(DAMAGE)
    taken: list[bool] = []

    def heal(root_fd: int, look: Look) -> Outcome | None:
        with bench.ws.locks.session() as other:
            taken.append(other.take(USERS))
        return bench.healer.at_once(root_fd, look)

    looked_at(bench, heal=heal)

    assert taken == [False]


@pytest.mark.parametrize("settings", ["", f"bot: {{stop: {python('pass')}, start: {python('pass')}}}"])
def test_file_that_is_not_alone_or_whose_bot_is_to_be_stopped_is_left_to_the_healer(
    tmp_path: Path, settings: str
) -> None:
    bench = Bench(tmp_path, settings)
    bench.protect(document(1))
    bench.write(DAMAGE)
    rels = (USERS,) if settings else (USERS, BADGES)
    bench.write(document(3), BADGES)

    ended = looked_at(bench, *rels)

    assert Ending.DAMAGED in ended
    assert Ending.HEALED not in ended
    assert (bench.data / USERS).read_bytes() == DAMAGE


def test_damage_without_a_cure_at_hand_is_left_to_the_healer_who_searches_for_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    only = bench.protect(document(1))
    (bench.backups / only.name).write_bytes(b"{}")
    bench.write(DAMAGE)

    assert list(looked_at(bench)) == [Ending.DAMAGED]
    assert (bench.data / USERS).read_bytes() == DAMAGE
    assert bench.stored(grade=Grade.CORRUPT) == []


def test_heal_at_once_that_the_disk_refuses_is_told_and_the_damage_stays_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.write(DAMAGE)

    def refuse(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", refuse)
    ended = looked_at(bench)
    monkeypatch.undo()

    assert list(ended) == [Ending.DAMAGED, Ending.HEAL_FAILED]
    assert (bench.data / USERS).read_bytes() == DAMAGE
    assert bench.ws.catalog.not_good() == [USERS]
