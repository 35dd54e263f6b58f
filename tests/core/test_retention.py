from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.model import Grade, Reason, Snapshot
from agent.core.retention import RetentionPlan, RetentionPolicy, plan_bounded, plan_retention

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
NOTHING = RetentionPolicy(keep_last=0, keep_intervals=0, keep_hourly=0, keep_daily=0)
DAY = timedelta(days=1)


def snap(
    taken_at: datetime, grade: Grade = Grade.GOOD, *, pinned: bool = False, reason: Reason = Reason.CHANGE
) -> Snapshot:
    return Snapshot("users.json", f"n{taken_at.isoformat()}", taken_at, "0" * 64, 10, grade, reason, None, pinned)


def aged(**age: float) -> Snapshot:
    return snap(NOW - timedelta(**age))


def kept(plan: RetentionPlan) -> list[Snapshot]:
    return [entry.snapshot for entry in plan.keep]


def reasons(plan: RetentionPlan, snapshot: Snapshot) -> tuple[str, ...]:
    return next(entry.reasons for entry in plan.keep if entry.snapshot == snapshot)


gaps = st.sampled_from([1, 30, 290, 900, 3600, 7200, 86_400, 7 * 86_400]).flatmap(lambda top: st.integers(1, top))
streams = st.lists(gaps, min_size=1, max_size=40).map(
    lambda seconds: [NOW + timedelta(seconds=sum(seconds[: i + 1])) for i in range(len(seconds))]
)
small = st.integers(0, 4)
why_taken = st.sampled_from([Reason.CHANGE, Reason.CHANGE, Reason.PRE_RESTORE, Reason.RESTORED])
policies = st.builds(
    RetentionPolicy,
    keep_last=small,
    keep_intervals=small,
    keep_within=st.none() | st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds)),
    keep_hourly=small,
    keep_daily=small,
    keep_weekly=small,
    keep_monthly=small,
    keep_yearly=small,
    minimum_good=st.integers(1, 3),
    keep_replaced=st.integers(0, 14).map(lambda days: timedelta(days=days)),
    keep_deleted=st.none() | st.integers(0, 10).map(lambda days: timedelta(days=days)),
)
snapshots_strategy = st.lists(
    st.builds(
        lambda seconds, grade, pinned, reason: snap(
            NOW + timedelta(seconds=seconds), grade, pinned=pinned, reason=reason
        ),
        st.integers(-40 * 86_400, 86_400),
        st.sampled_from([Grade.GOOD, Grade.GOOD, Grade.GOOD, Grade.SUSPECT, Grade.CORRUPT]),
        st.booleans() | st.just(False),
        why_taken,
    ),
    max_size=40,
    unique_by=lambda snapshot: snapshot.name,
)
gone = st.none() | st.integers(0, 20).map(lambda days: NOW - days * DAY)


@given(snapshots=snapshots_strategy, policy=policies, held=st.booleans(), gone_since=gone)
def test_a_plan_covers_everything_and_keeps_what_always_stays(
    snapshots: list[Snapshot], policy: RetentionPolicy, held: bool, gone_since: datetime | None
) -> None:
    plan = plan_retention(snapshots, policy, now=NOW, held=held, source_gone_since=gone_since)

    by_age = sorted(snapshots, key=lambda s: s.taken_at)
    assert sorted([*kept(plan), *plan.delete], key=lambda s: s.taken_at) == by_age
    assert list(plan.delete) == [s for s in by_age if s in plan.delete]
    assert kept(plan) == [s for s in reversed(by_age) if s in kept(plan)]
    assert all(s.grade is Grade.GOOD and not s.pinned for s in plan.delete)
    good = [s for s in by_age if s.grade is Grade.GOOD]
    real = [s for s in good if s.taken_at <= NOW]
    assert set(plan.delete).isdisjoint([*good[-policy.minimum_good :], *real[-policy.minimum_good :]])
    assert not (held and plan.delete)
    assert all(entry.reasons for entry in plan.keep)


@given(snapshots=snapshots_strategy, policy=policies, held=st.booleans(), gone_since=gone)
def test_planning_again_on_what_stays_deletes_nothing(
    snapshots: list[Snapshot], policy: RetentionPolicy, held: bool, gone_since: datetime | None
) -> None:
    first = plan_retention(snapshots, policy, now=NOW, held=held, source_gone_since=gone_since)

    assert plan_retention(kept(first), policy, now=NOW, held=held, source_gone_since=gone_since) == first.__class__(
        first.keep, ()
    )


@given(stream=streams, policy=policies, data=st.data())
def test_rotating_after_every_snapshot_leaves_the_same_as_rotating_once_at_the_end(
    stream: list[datetime], policy: RetentionPolicy, data: st.DataObject
) -> None:
    snapshots = [snap(taken_at, reason=data.draw(why_taken)) for taken_at in stream]
    remaining: list[Snapshot] = []
    for snapshot in snapshots:
        remaining = kept(plan_retention([*remaining, snapshot], policy, now=snapshot.taken_at))

    assert remaining == kept(plan_retention(snapshots, policy, now=stream[-1]))


@given(snapshots=snapshots_strategy, policy=policies)
def test_what_a_restore_by_hand_replaced_stays_for_its_time_whatever_the_other_rules_say(
    snapshots: list[Snapshot], policy: RetentionPolicy
) -> None:
    plan = plan_retention(snapshots, policy, now=NOW)

    good = sorted((s for s in snapshots if s.grade is Grade.GOOD), key=lambda s: s.taken_at)
    young = {s for s in good if NOW - policy.keep_replaced < s.taken_at <= NOW}
    by_hand = {s for s in young if s.reason is not Reason.CHANGE}
    before = {old for old, new in pairwise(good) if new in young and new.reason is Reason.RESTORED}
    assert (by_hand | before).isdisjoint(plan.delete)


def test_a_state_replaced_by_hand_says_why_it_stays_and_goes_when_its_time_is_over() -> None:
    change, restored, newest = aged(days=3), snap(NOW - 2 * DAY, reason=Reason.RESTORED), aged(hours=1)

    young = plan_retention([change, restored, newest], replace(NOTHING, keep_replaced=7 * DAY), now=NOW)
    old = plan_retention([change, restored, newest], replace(NOTHING, keep_replaced=DAY), now=NOW)

    assert reasons(young, change) == ("replaced by hand, kept for 7d",)
    assert reasons(young, restored) == ("restored by hand, kept for 7d",)
    assert old.delete == (change, restored)


@given(snapshots=snapshots_strategy, policy=policies, planted=st.lists(st.integers(1, 10**9), max_size=5, unique=True))
def test_snapshots_from_the_future_change_nothing_for_the_real_ones(
    snapshots: list[Snapshot], policy: RetentionPolicy, planted: list[int]
) -> None:
    real = [s for s in snapshots if s.taken_at <= NOW]
    ahead = [snap(NOW + timedelta(seconds=seconds)) for seconds in planted]

    plan = plan_retention([*ahead, *real], policy, now=NOW)

    assert [s for s in plan.delete if s.taken_at <= NOW] == list(plan_retention(real, policy, now=NOW).delete)


@given(snapshots=snapshots_strategy, policy=policies)
@example(snapshots=[snap(NOW + timedelta(milliseconds=i)) for i in range(8)], policy=replace(NOTHING, keep_last=3))
def test_snapshots_from_the_future_lose_nothing_that_they_would_be_kept_for_later(
    snapshots: list[Snapshot], policy: RetentionPolicy
) -> None:
    later = NOW + 2 * DAY
    patient = replace(policy, keep_within=None)

    now_deleted = plan_retention(snapshots, patient, now=NOW).delete

    assert set(now_deleted) <= set(plan_retention(snapshots, patient, now=later).delete)


def test_a_thousand_snapshots_from_the_future_do_not_grow_without_bound() -> None:
    ahead = [snap(NOW + timedelta(days=999, milliseconds=i)) for i in range(1000)]

    plan = plan_retention(ahead, RetentionPolicy(keep_within=DAY), now=NOW)

    assert len(plan.keep) == 11
    assert "dated in the future: counted apart" in plan.keep[0].reasons


def test_a_bucket_keeps_its_oldest_good_snapshot() -> None:
    bad, morning, evening = snap(NOW - 12 * timedelta(hours=1), Grade.SUSPECT), aged(hours=11), aged(hours=1)

    plan = plan_retention([evening, morning, bad, aged(minutes=1)], replace(NOTHING, keep_daily=1), now=NOW)

    assert plan.delete == (evening,)
    assert reasons(plan, morning) == ("daily 2026-03-04",)
    assert reasons(plan, bad) == ("suspect: bounded on its own",)


def test_empty_buckets_are_not_counted() -> None:
    ancient, today = aged(days=300), aged(hours=1)

    plan = plan_retention([ancient, today], replace(NOTHING, keep_daily=2), now=NOW)

    assert kept(plan) == [today, ancient]


def test_a_bot_that_saves_every_half_minute_keeps_an_hour_of_intervals() -> None:
    stream = [NOW + timedelta(seconds=30 * i) for i in range(241)]
    remaining: list[Snapshot] = []
    for taken_at in stream:
        remaining = kept(
            plan_retention(
                [*remaining, snap(taken_at)], replace(NOTHING, keep_last=10, keep_intervals=12), now=taken_at
            )
        )

    assert remaining[-1].taken_at == stream[-1] - timedelta(minutes=55)
    assert len(remaining) == 10 + 12 - 1  # the newest interval began with one of the last ten


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (replace(NOTHING, keep_last=1), "last 1"),
        (replace(NOTHING, keep_intervals=1), "interval 2026-03-04T11:57:00Z"),
        (replace(NOTHING, keep_within=2 * DAY), "within 2d"),
        (replace(NOTHING, keep_within=timedelta(minutes=90)), "within 1h30m"),
        (replace(NOTHING, keep_hourly=1), "hourly 2026-03-04T11Z"),
        (replace(NOTHING, keep_daily=1), "daily 2026-03-04"),
        (replace(NOTHING, keep_weekly=1), "weekly 2026-W10"),
        (replace(NOTHING, keep_monthly=1), "monthly 2026-03"),
        (replace(NOTHING, keep_yearly=1), "yearly 2026"),
    ],
)
def test_every_rule_says_why_it_keeps(policy: RetentionPolicy, reason: str) -> None:
    only = aged(minutes=3)

    assert reasons(plan_retention([only], policy, now=NOW), only) == ("newest good", reason)


def test_the_floor_holds_without_any_rule() -> None:
    rows = [aged(hours=i) for i in range(5)]

    plan = plan_retention(rows, replace(NOTHING, minimum_good=2), now=NOW)

    assert [entry.reasons for entry in plan.keep] == [("newest good",), ("minimum good 2",)]
    assert plan.delete == (rows[4], rows[3], rows[2])


def test_a_bad_newest_snapshot_does_not_take_the_place_of_the_newest_good() -> None:
    good, bad = aged(hours=2), snap(NOW, Grade.SUSPECT)

    assert reasons(plan_retention([bad, good], NOTHING, now=NOW), good) == ("newest good",)


def test_a_held_file_keeps_everything() -> None:
    rows = [aged(days=i) for i in range(30)]

    plan = plan_retention(rows, NOTHING, now=NOW, held=True, source_gone_since=NOW - 99 * DAY)

    assert plan.delete == ()
    assert reasons(plan, rows[20]) == ("held",)


@pytest.mark.parametrize(
    ("keep_deleted", "reason"), [(None, "file is gone: kept for ever"), (30 * DAY, "file is gone: kept for 30d")]
)
def test_a_deleted_file_keeps_all_that_there_is(keep_deleted: timedelta | None, reason: str) -> None:
    rows = [aged(days=i) for i in range(30)]
    policy = replace(NOTHING, keep_deleted=keep_deleted)

    plan = plan_retention(rows, policy, now=NOW, source_gone_since=NOW - 29 * DAY)

    assert plan.delete == ()
    assert reasons(plan, rows[20]) == (reason,)


def test_a_file_deleted_long_ago_keeps_the_newest_good_and_its_pins() -> None:
    pinned = snap(NOW - 50 * DAY, pinned=True)
    rows = [aged(days=i) for i in range(30, 40)]
    policy = RetentionPolicy(keep_deleted=30 * DAY)

    plan = plan_retention([*rows, pinned], policy, now=NOW, source_gone_since=NOW - 30 * DAY)

    assert kept(plan) == [rows[0], pinned]
    assert reasons(plan, pinned) == ("pinned",)


@pytest.mark.parametrize("taken_at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_a_snapshot_from_the_edge_of_time_is_planned_like_any_other(taken_at: datetime) -> None:
    policy = RetentionPolicy(keep_within=DAY, keep_weekly=1, keep_monthly=1, keep_yearly=1)

    assert kept(plan_retention([snap(taken_at)], policy, now=NOW)) == [snap(taken_at)]


@pytest.mark.parametrize(
    "wrong", [{"keep_last": -1}, {"keep_yearly": -1}, {"minimum_good": 0}, {"interval": timedelta()}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="minimum_good at 1"):
        RetentionPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("newest_first", "keep", "gone"),
    [
        ("edcba", 3, "bc"),
        ("edcba", 1, "abcd"),
        ("edcba", 0, "abcde"),
        ("edcba", 5, ""),
        ("edcba", 2, "bcd"),
        ("", 3, ""),
    ],
)
def test_a_bounded_shelf_keeps_the_first_and_the_newest(newest_first: Sequence[str], keep: int, gone: str) -> None:
    assert "".join(plan_bounded(newest_first, keep)) == gone
