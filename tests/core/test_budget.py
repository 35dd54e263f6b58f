from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.budget import Candidate, Leaning, Need, plan_thinning
from agent.core.packing import Member, Reference

START = datetime(2026, 1, 1, tzinfo=UTC)


def candidate(number: int, stored_bytes: int = 10, *, protected: bool = False) -> Candidate:
    return Candidate(f"n{number}", "users.json", START + timedelta(minutes=number), stored_bytes, protected)


candidates = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12).map(
    lambda rows: [candidate(i, size, protected=protected) for i, (size, protected) in enumerate(rows)]
)


def test_the_oldest_go_and_no_more_than_needed() -> None:
    rows = [candidate(i) for i in range(5)]

    plan = plan_thinning(rows, need=Need(15))

    assert plan.delete == tuple(rows[:2])
    assert (plan.freed.counted_bytes, plan.enough) == (20, True)


def test_a_protected_copy_is_passed_over() -> None:
    rows = [candidate(0, protected=True), candidate(1)]

    assert plan_thinning(rows, need=Need(5)).delete == (rows[1],)


def test_room_that_cannot_be_made_costs_no_copy_and_says_what_is_missing() -> None:
    plan = plan_thinning([candidate(0), candidate(1, 1000, protected=True)], need=Need(25))

    assert plan.delete == ()
    assert (plan.freed, plan.short_bytes, plan.enough) == (Need(), 15, False)


@pytest.mark.parametrize("need_bytes", [0, -5])
def test_enough_room_takes_nothing(need_bytes: int) -> None:
    plan = plan_thinning([candidate(0)], need=Need(need_bytes, need_bytes))

    assert plan.enough
    assert plan.delete == ()


def test_a_long_catalog_is_read_only_as_far_as_needed() -> None:
    rows = iter([candidate(i) for i in range(5)])

    plan_thinning(rows, need=Need(20))

    assert next(rows).name == "n2"


@given(rows=candidates, need_bytes=st.integers(1, 120))
def test_what_goes_is_the_shortest_oldest_run_that_is_enough(rows: list[Candidate], need_bytes: int) -> None:
    plan = plan_thinning(rows, need=Need(need_bytes, need_bytes))

    spendable = [row for row in rows if not row.protected and row.stored_bytes]
    assert plan.delete == tuple(spendable[: len(plan.delete)])
    assert plan.freed.disk_bytes == sum(row.stored_bytes for row in plan.delete)
    assert plan.enough == (sum(row.stored_bytes for row in spendable) >= need_bytes)
    assert not plan.enough or plan.freed.disk_bytes - plan.delete[-1].stored_bytes < need_bytes <= plan.freed.disk_bytes
    assert plan.enough or not plan.delete


def test_a_copy_whose_bytes_have_another_name_makes_no_room_on_the_disk() -> None:
    linked, own = replace(candidate(0), disk_bytes=0), candidate(1)

    assert plan_thinning([linked, own], need=Need(disk_bytes=5)).delete == (own,)
    assert plan_thinning([linked, own], need=Need(counted_bytes=5)).delete == (linked,)
    assert plan_thinning([linked, own], need=Need(5, 5)).delete == (linked, own)


def test_disk_that_nothing_can_free_is_told_although_the_total_could_be_met() -> None:
    plan = plan_thinning([replace(candidate(n), disk_bytes=0) for n in range(3)], need=Need(5, 40))

    assert (plan.delete, plan.short_bytes) == ((), 40)


def test_small_copies_free_whole_blocks() -> None:
    rows = [replace(candidate(n), disk_bytes=4096) for n in range(5)]

    assert plan_thinning(rows, need=Need(disk_bytes=8000)).delete == tuple(rows[:2])


def leaning(*packed: bool) -> Leaning:
    """One reference of 100 bytes, that those packed of the copies lean on."""
    reference = Reference("r", START + timedelta(days=9), 100)
    members = [Member(f"n{n}", START, 10, "r" if is_packed else None) for n, is_packed in enumerate(packed)]
    return Leaning(tuple(members), (reference,))


def test_the_reference_is_freed_with_the_last_that_leans_on_it() -> None:
    rows = [candidate(n) for n in range(4)]

    plan = plan_thinning(rows, need=Need(100, 100), leaning=lambda _: leaning(True, True, False, False))

    assert plan.delete == tuple(rows[:2])
    assert plan.freed == Need(120, 120)


def test_a_reference_that_something_protected_leans_on_is_not_reckoned_with() -> None:
    rows = [candidate(0), candidate(1, protected=True), candidate(2)]

    plan = plan_thinning(rows, need=Need(100), leaning=lambda _: leaning(True, True, True))

    assert (plan.delete, plan.short_bytes) == ((), 80)
