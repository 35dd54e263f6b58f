from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.budget import Candidate, plan_thinning

START = datetime(2026, 1, 1, tzinfo=UTC)


def candidate(number: int, stored_bytes: int = 10, *, protected: bool = False) -> Candidate:
    return Candidate(f"n{number}", "users.json", START + timedelta(minutes=number), stored_bytes, protected)


candidates = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12).map(
    lambda rows: [candidate(i, size, protected=protected) for i, (size, protected) in enumerate(rows)]
)


def test_the_oldest_go_and_no_more_than_needed() -> None:
    rows = [candidate(i) for i in range(5)]

    plan = plan_thinning(rows, need_bytes=15)

    assert plan.delete == tuple(rows[:2])
    assert (plan.freed_bytes, plan.enough) == (20, True)


def test_a_protected_copy_is_passed_over() -> None:
    rows = [candidate(0, protected=True), candidate(1)]

    assert plan_thinning(rows, need_bytes=5).delete == (rows[1],)


def test_room_that_cannot_be_made_costs_no_copy_and_says_what_is_missing() -> None:
    plan = plan_thinning([candidate(0), candidate(1, 1000, protected=True)], need_bytes=25)

    assert plan.delete == ()
    assert (plan.freed_bytes, plan.short_bytes, plan.enough) == (0, 15, False)


@pytest.mark.parametrize("need_bytes", [0, -5])
def test_enough_room_takes_nothing(need_bytes: int) -> None:
    plan = plan_thinning([candidate(0)], need_bytes=need_bytes)

    assert plan.enough
    assert plan.delete == ()


def test_a_long_catalog_is_read_only_as_far_as_needed() -> None:
    rows = iter([candidate(i) for i in range(5)])

    plan_thinning(rows, need_bytes=20)

    assert next(rows).name == "n2"


@given(rows=candidates, need_bytes=st.integers(1, 120))
def test_what_goes_is_the_shortest_oldest_run_that_is_enough(rows: list[Candidate], need_bytes: int) -> None:
    plan = plan_thinning(rows, need_bytes=need_bytes)

    spendable = [row for row in rows if not row.protected and row.stored_bytes]
    assert plan.delete == tuple(spendable[: len(plan.delete)])
    assert plan.freed_bytes == sum(row.stored_bytes for row in plan.delete)
    assert plan.enough == (sum(row.stored_bytes for row in spendable) >= need_bytes)
    assert not plan.enough or plan.freed_bytes - plan.delete[-1].stored_bytes < need_bytes <= plan.freed_bytes
    assert plan.enough or not plan.delete
