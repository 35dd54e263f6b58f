import errno
import os
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench, document
from msgspec.structs import replace

import agent.look as look_module
from agent import checking
from agent.core.decide import LeftWhy
from agent.core.model import CheckResult, CheckSpec, Grade, Snapshot
from agent.disk.staging import StagedFile
from agent.disk.store import Store
from agent.outcome import Ending


def healed(bench: Bench, *, at_gate: bool = False) -> Ending:
    return bench.healer.heal([USERS], at_gate=at_gate)[0].ending


def test_damage_is_replaced_and_kept_with_owner_and_mode(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(document(1)).chmod(0o640)
    bench.look()
    bench.damage()

    outcome = bench.healer.heal([USERS], at_gate=False)[0]

    live = bench.data / USERS
    assert outcome.ending is Ending.HEALED
    assert live.read_bytes() == document(1)
    assert live.stat().st_mode & 0o777 == 0o640
    assert outcome.quarantined is not None
    assert (bench.backups / outcome.quarantined).read_bytes() == DAMAGE


def test_file_that_is_good_again_is_no_longer_healed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.damage()
    bench.write(document(2))

    assert healed(bench) is Ending.PUBLISHED
    assert (bench.data / USERS).read_bytes() == document(2)


def test_damage_that_keeps_coming_back_is_given_up_and_the_count_ends_with_a_good_state(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "recovery: {heal_attempts: 3, clobber_window: 1h}")
    bench.protect(document(1))
    for _ in range(3):
        assert bench.damage().ending is Ending.DAMAGED
        assert healed(bench) is Ending.HEALED

    given_up = bench.damage()

    assert (given_up.ending, given_up.left_why) == (Ending.LEFT, LeftWhy.GAVE_UP)
    assert bench.ws.catalog.count_given_up() == 1
    bench.protect(document(2))
    assert bench.ws.catalog.count_given_up() == 0


def test_restore_point_that_went_bad_is_passed_over_for_the_next_older(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    newest = bench.protect(document(2))
    (bench.backups / newest.name).write_bytes(document(3))
    bench.damage()

    assert healed(bench) is Ending.HEALED
    assert (bench.data / USERS).read_bytes() == document(1)


def test_no_whole_restore_point_leaves_the_file_and_keeps_a_copy(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    only = bench.protect(document(1))
    (bench.backups / only.name).write_bytes(b"{}")
    bench.damage()

    outcome = bench.healer.heal([USERS], at_gate=False)[0]

    assert outcome.ending in (Ending.LEFT, Ending.HEAL_FAILED)
    assert (bench.data / USERS).read_bytes() == DAMAGE


def test_error_in_the_middle_of_a_heal_leaves_the_file_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.damage()

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    outcome = bench.healer.heal([USERS], at_gate=False)[0]
    monkeypatch.undo()

    assert outcome.ending is Ending.HEAL_FAILED
    assert (bench.data / USERS).read_bytes() == DAMAGE
    assert healed(bench) is Ending.HEALED


def test_late_write_into_displaced_bytes_is_kept_aside(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.damage()
    bench.healer.heal([USERS], at_gate=False)
    displaced = bench.healer.displaced[0]
    with open(f"/proc/self/fd/{displaced.fd}", "wb") as late:
        late.write(document(9))

    kept = bench.healer.recheck_displaced()

    assert [outcome.detail for outcome in kept] == ["late_write"]
    assert document(9) in bench.stored(grade=Grade.SUSPECT)
    assert bench.healer.displaced == []


def test_displaced_bytes_that_cannot_be_kept_now_are_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error here once ended the daemon."""
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.damage()
    bench.healer.heal([USERS], at_gate=False)
    bench.healer.displaced[0] = replace(bench.healer.displaced[0], digest="another")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    first = bench.healer.recheck_displaced()
    monkeypatch.undo()

    assert [type(outcome.error) for outcome in first] == [OSError]
    assert [outcome.detail for outcome in bench.healer.recheck_displaced()] == ["late_write"]


def test_error_of_the_look_before_a_heal_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.damage()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(look_module, "capture", refuse)
        [outcome] = bench.healer.heal([USERS], at_gate=True)

    assert (outcome.ending, str(outcome.error)) == (Ending.UNREADABLE, "[Errno 5] no answer")
    assert bench.healer.heal([USERS], at_gate=True)[0].ending is Ending.HEALED


def test_newer_snapshot_that_could_not_be_read_is_told_with_the_heal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older state stands in the file then, and nobody would know why."""
    bench = Bench(tmp_path)
    older = bench.protect(document(1))
    newer = bench.protect(document(2))
    bench.damage()
    pour_into = type(bench.ws.store).pour_into

    def unreadable(store: Store, snapshot: Snapshot, staged: StagedFile) -> bool:
        if snapshot.name == newer.name:
            raise OSError(errno.EIO, "no answer")
        return pour_into(store, snapshot, staged)

    monkeypatch.setattr(type(bench.ws.store), "pour_into", unreadable)
    [outcome] = bench.healer.heal([USERS], at_gate=True)

    assert (outcome.ending, outcome.snapshot) == (Ending.HEALED, older)
    assert str(outcome.error) == "[Errno 5] no answer"


def test_damage_that_was_judged_is_not_judged_anew_for_its_heal_and_other_bytes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.damage()
    judged: list[object] = []
    check = checking.check

    def counting(content: bytes, spec: CheckSpec, **options: bool) -> CheckResult:
        judged.append(content)
        return check(content, spec, **options)

    monkeypatch.setattr(checking, "check", counting)
    assert healed(bench) is Ending.HEALED
    assert judged == []

    bench.write(DAMAGE + b"{")
    assert bench.look()[0].ending is Ending.DAMAGED
    assert judged == [DAMAGE + b"{"]


@pytest.mark.parametrize("at_gate", [True, False])
def test_large_file_whose_check_finds_no_program_or_no_copy_is_unreadable_and_never_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_gate: bool
) -> None:
    bench = Bench(tmp_path, f"files: [{{path: {USERS}, required: true}}]")
    bench.protect(document(1, records=170_000))
    newer = document(2, records=170_000)
    bench.write(newer)
    monkeypatch.setattr("sys.executable", "/nowhere/python3")  # of an environment that was made anew meanwhile

    seen = bench.look(at_gate=at_gate, waited_s=60)[0]
    bench.healer.heal([USERS], at_gate=at_gate)

    assert (seen.ending, seen.grade) == (Ending.UNREADABLE, None)
    assert isinstance(seen.error, FileNotFoundError)
    assert (bench.data / USERS).read_bytes() == newer
