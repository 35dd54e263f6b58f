from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.decide import (
    Circumstances,
    Heal,
    HealPolicy,
    LeaveAlone,
    LeftWhy,
    Publish,
    Unchanged,
    Wait,
    decide,
    decide_missing,
    is_mass_absence,
    restore_candidates,
)
from agent.core.model import FileState, Grade, HealAction, Reason, Snapshot

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUIET, GATE = Circumstances(NOW, quiet=True), Circumstances(NOW, quiet=True, at_gate=True)
BUSY = Circumstances(NOW, quiet=False)
POLICY = HealPolicy()
REPAIR_FIRST, RESTORE_ONLY = (HealAction.REPAIR, HealAction.RESTORE), (HealAction.RESTORE,)


def snap(digest: str, grade: Grade = Grade.GOOD, *, minutes_ago: float = 1, name: str = "") -> Snapshot:
    at = NOW - timedelta(minutes=minutes_ago)
    return Snapshot("users.json", name or f"{digest}@{minutes_ago}", at, digest, 1, grade, Reason.CHANGE)


def healed(times: int, *, seconds_ago: float = 1, grade: Grade = Grade.CORRUPT, **changes: Any) -> FileState:
    at = NOW - timedelta(seconds=seconds_ago)
    return FileState("users.json", grade, NOW, heals=times, healed_at=at, healed_grade=grade, **changes)


GOOD = [snap("good")]


@pytest.mark.parametrize(
    ("grade", "policy", "expected"),
    [
        (Grade.CORRUPT, POLICY, Heal(REPAIR_FIRST, 1)),
        (Grade.INVALID, POLICY, Heal(REPAIR_FIRST, 1)),
        (Grade.INVALID, replace(POLICY, on_invalid="restore"), Heal(RESTORE_ONLY, 1)),
        (Grade.CORRUPT, replace(POLICY, on_corrupt="alert"), LeaveAlone(LeftWhy.POLICY)),
        (Grade.INVALID, replace(POLICY, on_invalid="alert"), LeaveAlone(LeftWhy.POLICY)),
        (Grade.CORRUPT, replace(POLICY, on_invalid="alert"), Heal(REPAIR_FIRST, 1)),
        (Grade.SUSPECT, POLICY, Publish(Grade.SUSPECT)),
    ],
)
def test_quiet_file_that_was_good_gets_the_reaction_of_its_grade(
    grade: Grade, policy: HealPolicy, expected: object
) -> None:
    assert decide(grade, "now", None, GOOD, policy, QUIET) == expected


@pytest.mark.parametrize("at", [QUIET, BUSY, GATE])
@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        ([], Publish(Grade.GOOD)),
        ([snap("now")], Unchanged()),
        ([snap("other")], Publish(Grade.GOOD)),
        ([snap("other"), snap("now", name="older")], Publish(Grade.GOOD, rolled_back_to="older")),
        ([snap("now", Grade.SUSPECT), snap("other")], Publish(Grade.GOOD)),
        ([snap("x", Grade.CORRUPT), snap("now")], Unchanged()),
    ],
)
def test_good_state_is_kept_at_once_unless_it_is_the_newest_good_one(
    at: Circumstances, snapshots: list[Snapshot], expected: object
) -> None:
    assert decide(Grade.GOOD, "now", None, snapshots, POLICY, at) == expected


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        ([snap("now", Grade.SUSPECT), snap("good")], Unchanged()),
        ([snap("other", Grade.SUSPECT), snap("now", Grade.SUSPECT)], Publish(Grade.SUSPECT)),
        ([snap("now", Grade.CORRUPT)], Publish(Grade.SUSPECT)),
    ],
)
def test_suspect_state_is_kept_once(snapshots: list[Snapshot], expected: object) -> None:
    assert decide(Grade.SUSPECT, "now", None, snapshots, POLICY, QUIET) == expected


@pytest.mark.parametrize("grade", [Grade.MISSING, Grade.UNREADABLE])
def test_file_no_bytes_were_seen_of_cannot_be_decided_by_them(grade: Grade) -> None:
    with pytest.raises(ValueError, match=grade.value):
        decide(grade, "", None, GOOD, POLICY, QUIET)


@pytest.mark.parametrize("done", range(5))
def test_attempts_count_up_to_the_limit(done: int) -> None:
    decision = decide(Grade.CORRUPT, "now", healed(done), GOOD, POLICY, QUIET)

    assert decision == (Heal(REPAIR_FIRST, done + 1) if done < 3 else LeaveAlone(LeftWhy.GAVE_UP))


@pytest.mark.parametrize(("seconds", "attempt"), [(0, 3), (59.999, 3), (60, 3), (60.001, 1), (-30, 3)])
def test_heal_that_held_for_longer_than_the_window_is_forgotten(seconds: float, attempt: int) -> None:
    decision = decide(Grade.CORRUPT, "now", healed(2, seconds_ago=seconds), GOOD, POLICY, QUIET)

    assert decision == Heal(REPAIR_FIRST, attempt)


def test_damage_of_another_grade_is_counted_anew() -> None:
    assert decide(Grade.INVALID, "now", healed(3), GOOD, POLICY, QUIET) == Heal(REPAIR_FIRST, 1)


def test_given_up_stays_given_up_however_long_ago() -> None:
    past = healed(3, seconds_ago=10**6, gave_up=True)

    assert decide(Grade.CORRUPT, "now", past, GOOD, POLICY, QUIET) == LeaveAlone(LeftWhy.GAVE_UP)


def test_gate_heals_what_was_given_up() -> None:
    assert isinstance(decide(Grade.CORRUPT, "now", healed(3, gave_up=True), GOOD, POLICY, GATE), Heal)


@pytest.mark.parametrize(
    ("policy", "snapshots", "mass", "expected"),
    [
        (POLICY, GOOD, False, LeaveAlone(LeftWhy.POLICY)),
        (replace(POLICY, on_missing="restore"), GOOD, False, Heal(RESTORE_ONLY, 1)),
        (replace(POLICY, on_missing="restore"), GOOD, True, LeaveAlone(LeftWhy.MASS)),
        (replace(POLICY, on_missing="restore"), [], False, LeaveAlone(LeftWhy.NEVER_GOOD)),
        (replace(POLICY, on_missing="restore"), [snap("x", Grade.SUSPECT)], False, LeaveAlone(LeftWhy.NEVER_GOOD)),
    ],
)
def test_missing_file_comes_back_only_when_required_and_alone(
    policy: HealPolicy, snapshots: list[Snapshot], mass: bool, expected: object
) -> None:
    assert decide_missing(None, snapshots, policy, QUIET, mass=mass) == expected


@pytest.mark.parametrize(
    ("missing", "known", "is_mass"),
    [
        (0, 0, False),
        (1, 1, False),
        (2, 2, False),
        (3, 3, True),
        (3, 5, True),
        (3, 6, False),
        (4, 7, True),
        (50, 100, False),
    ],
)
def test_most_of_at_least_three_files_gone_at_once_is_a_mass_absence(missing: int, known: int, is_mass: bool) -> None:
    assert is_mass_absence(missing, known) is is_mass


# laws

grades = st.sampled_from([Grade.GOOD, Grade.SUSPECT, Grade.INVALID, Grade.CORRUPT])
digests = st.sampled_from("abc")
snapshots = st.lists(
    st.builds(snap, digests, st.sampled_from([*Grade][:4]), minutes_ago=st.floats(0, 100)), max_size=6
).map(lambda found: sorted(found, key=lambda s: s.taken_at, reverse=True))
pasts = st.none() | st.builds(
    healed, st.integers(0, 5), seconds_ago=st.floats(-100, 200),
    grade=st.sampled_from(list(Grade)), gave_up=st.booleans(),
)  # fmt: skip
policies = st.builds(
    HealPolicy, st.sampled_from(["restore", "alert"]), st.sampled_from(["repair", "restore", "alert"]),
    st.sampled_from(["restore", "alert"]), st.integers(0, 4),
)  # fmt: skip
moments = st.builds(Circumstances, st.just(NOW), quiet=st.booleans(), at_gate=st.booleans(), overdue=st.booleans())


@given(grades, digests, pasts, snapshots, policies, moments)
def test_heal_asks_for_quiet_damage_of_a_file_that_was_good(
    grade: Grade, digest: str, past: FileState | None, found: list[Snapshot], policy: HealPolicy, at: Circumstances
) -> None:
    decision = decide(grade, digest, past, found, policy, at)

    if isinstance(decision, Heal):
        assert at.quiet
        assert grade in (Grade.CORRUPT, Grade.INVALID)
        assert any(s.grade is Grade.GOOD for s in found)
        assert at.at_gate or decision.attempt <= policy.attempts_max
        assert (policy.on_corrupt if grade is Grade.CORRUPT else policy.on_invalid) != "alert"
        assert HealAction.RESTORE in decision.actions


@given(grades, digests, pasts, snapshots, policies, moments)
def test_only_a_good_state_is_published_as_good(
    grade: Grade, digest: str, past: FileState | None, found: list[Snapshot], policy: HealPolicy, at: Circumstances
) -> None:
    decision = decide(grade, digest, past, found, policy, at)

    if isinstance(decision, Publish):
        assert decision.grade is grade
        assert grade in (Grade.GOOD, Grade.SUSPECT)
    if isinstance(decision, Wait):
        assert not at.quiet


@given(digests, pasts, snapshots, policies)
def test_gate_never_gives_up(digest: str, past: FileState | None, found: list[Snapshot], policy: HealPolicy) -> None:
    for grade in (Grade.CORRUPT, Grade.INVALID):
        assert decide(grade, digest, past, found, policy, GATE) != LeaveAlone(LeftWhy.GAVE_UP)
    assert decide_missing(past, found, policy, GATE, mass=False) != LeaveAlone(LeftWhy.GAVE_UP)


@given(pasts, snapshots, policies, moments)
def test_mass_absence_is_never_healed(
    past: FileState | None, found: list[Snapshot], policy: HealPolicy, at: Circumstances
) -> None:
    assert decide_missing(past, found, policy, at, mass=True) == LeaveAlone(LeftWhy.MASS)


@given(snapshots, st.floats(0, 100))
def test_restore_candidates_are_all_good_ones_of_their_time_newest_first(found: list[Snapshot], minutes: float) -> None:
    at = NOW - timedelta(minutes=minutes)

    chosen = restore_candidates(found, at=at)

    assert sorted(chosen, key=lambda s: s.name) == sorted(
        (s for s in found if s.grade is Grade.GOOD and s.taken_at <= at), key=lambda s: s.name
    )
    assert [s.taken_at for s in chosen] == sorted((s.taken_at for s in chosen), reverse=True)
