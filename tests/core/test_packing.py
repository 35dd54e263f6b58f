"""Laws of the plan for packing, over any history of snapshots."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.packing import (
    GROUP_MAX,
    UNPACKED_NEWEST,
    MakeReference,
    Member,
    Pack,
    Reference,
    Step,
    is_worth,
    next_step,
    unneeded,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN_BYTES, REFERENCE_BYTES = 300_000, 200_000


def member(minute: int, **fields: object) -> Member:
    return replace(Member(f"s{minute}", NOON + timedelta(minutes=minute), OWN_BYTES), **fields)  # type: ignore[arg-type]


def reference(minute: int) -> Reference:
    return Reference(f"r{minute}", NOON + timedelta(minutes=minute), REFERENCE_BYTES)


class History:
    """Snapshots of one file, packed as the plan says; a form takes more the further what it leans on is away."""

    def __init__(self, bytes_per_minute: int) -> None:
        self.members: list[Member] = []  # newest first
        self.references: list[Reference] = []
        self.unfit: set[tuple[str, str]] = set()
        self.steps: list[Step] = []
        self._rate = bytes_per_minute

    def take(self, minute: int, **fields: object) -> None:
        self.members.insert(0, member(minute, **fields))

    def pack(self) -> None:
        while (step := next_step(self.members, self.references, self.unfit)) is not None:
            self.steps.append(step)
            target = step.root if isinstance(step, MakeReference) else step.reference
            size = REFERENCE_BYTES if target is None else self._size(step.what, target)
            own_bytes = OWN_BYTES if step.what.leans_on is None else 2 * REFERENCE_BYTES
            if target is not None and not is_worth(size, own_bytes):
                self.unfit.add((step.what.name, target.name))
            elif isinstance(step, MakeReference):
                name, leans_on = f"r{step.what.name[1:]}", target.name if target else None
                self.references.append(Reference(name, step.what.taken_at, size, leans_on))
            else:
                pool: list[Any] = self.members if isinstance(step.what, Member) else self.references
                pool[pool.index(step.what)] = replace(step.what, leans_on=step.reference.name, stored_bytes=size)

    def _size(self, what: Reference, target: Reference) -> int:
        gap = abs(what.taken_at - target.taken_at) / timedelta(minutes=1)
        return 200 + int(gap * self._rate)

    def rotate(self, keep: list[bool]) -> None:
        """Some of the old ones go, and references with them."""
        self.members = [m for m, stays in zip(self.members, [*[True] * 3, *keep, *[True] * 999], strict=False) if stays]
        gone = unneeded(self.members, self.references)
        self.references = [r for r in self.references if r not in gone]

    @property
    def total_bytes(self) -> int:
        return sum(m.stored_bytes for m in self.members) + sum(r.stored_bytes for r in self.references)


Act = tuple[int, bool, list[bool]]
ACTS = st.lists(st.tuples(st.integers(1, 90), st.booleans(), st.lists(st.booleans(), max_size=12)), max_size=50)


def lived(rate: int, acts: list[Act]) -> History:
    history, minute = History(rate), 0
    for minutes, may_pack, keep in acts:
        minute += minutes
        history.take(minute, may_pack=may_pack or minutes > 10)
        history.pack()
        if not may_pack:
            history.rotate(keep)
            history.pack()
    return history


@given(st.integers(0, 20_000), ACTS)
def test_the_newest_ones_and_those_that_may_not_are_never_packed(rate: int, acts: list[Act]) -> None:
    history, minute = History(rate), 0
    for minutes, may_pack, _ in acts:
        minute += minutes
        history.take(minute, may_pack=may_pack)
        history.pack()
        assert not any(m.leans_on for m in history.members[:UNPACKED_NEWEST])
        assert not any(m.leans_on for m in history.members if not m.may_pack)


@given(st.integers(0, 20_000), ACTS)
def test_packing_comes_to_an_end_and_all_old_ones_lean_on_a_reference_that_is_there(rate: int, acts: list[Act]) -> None:
    history = lived(rate, acts)

    there = {r.name for r in history.references}
    old = [m for m in history.members[UNPACKED_NEWEST:] if m.may_pack]
    assert all(m.leans_on in there for m in old)
    assert next_step(history.members, history.references, history.unfit) is None


@given(st.integers(0, 20_000), ACTS)
def test_each_leans_on_the_nearest_reference_unless_that_was_unfit(rate: int, acts: list[Act]) -> None:
    history = lived(rate, acts)

    by_name = {r.name: r for r in history.references}
    for m in history.members:
        if m.leans_on and m.may_pack:
            nearest = min(abs(m.taken_at - r.taken_at) for r in history.references)
            assert abs(m.taken_at - by_name[m.leans_on].taken_at) == nearest


@given(st.integers(0, 20_000), ACTS)
def test_a_reference_leans_on_a_root_or_on_nothing(rate: int, acts: list[Act]) -> None:
    history = lived(rate, acts)

    roots = {r.name for r in history.references if r.leans_on is None}
    assert {r.leans_on for r in history.references} <= {*roots, None}


@given(st.integers(0, 20_000), ACTS)
def test_no_reference_goes_that_is_leant_on_and_none_stays_for_nothing(rate: int, acts: list[Act]) -> None:
    history = lived(rate, acts)
    history.rotate([])

    there = {r.name for r in history.references}
    used = {m.leans_on for m in (*history.members, *history.references) if m.leans_on}
    assert used == there


@given(st.integers(0, 3000), st.integers(5, 200))
@settings(max_examples=30)
def test_packing_never_takes_more_than_the_snapshots_on_their_own(rate: int, count: int) -> None:
    history = History(rate)
    for minute in range(count):
        history.take(minute)
        history.pack()

    assert history.total_bytes <= OWN_BYTES * count
    assert len(history.steps) <= 3 * count


@given(st.integers(40, 150))
@settings(max_examples=10)
def test_a_group_is_bounded_also_when_nothing_changes(count: int) -> None:
    history = History(0)
    for minute in range(count):
        history.take(minute)
        history.pack()

    for r in history.references:
        for pool in (history.members, history.references):
            assert len([x for x in pool if x.leans_on == r.name]) <= 2 * GROUP_MAX + 1


def test_a_hundred_versions_with_slow_changes_take_few_roots() -> None:
    history = History(4000)
    for minute in range(100):
        history.take(minute)
        history.pack()

    assert len([r for r in history.references if r.leans_on is None]) <= 4
    assert history.total_bytes < 3_000_000


def test_a_file_that_became_another_one_gets_a_root_of_its_own() -> None:
    old = [member(m, leans_on="r0", stored_bytes=500) for m in range(3)]
    newest_first = [*(member(m) for m in (13, 12, 11)), member(9), *reversed(old)]

    first = next_step(newest_first, [reference(0)])
    second = next_step(newest_first, [reference(0)], {("s9", "r0")})

    assert first == Pack(member(9), reference(0))
    assert second == MakeReference(member(9), None)


def test_what_leans_on_a_lost_reference_is_left_alone() -> None:
    lost = member(1, leans_on="r1", stored_bytes=500)
    newest_first = [*(member(m) for m in (13, 12, 11)), lost]

    assert next_step(newest_first, [reference(2)]) is None


def test_a_fresh_reference_stays_while_its_own_snapshot_is_not_packed_yet() -> None:
    assert unneeded([member(5)], [reference(5), reference(4)]) == [reference(4)]


def test_a_packed_form_that_saves_little_is_not_worth_it() -> None:
    assert is_worth(69, 100)
    assert not is_worth(70, 100)
