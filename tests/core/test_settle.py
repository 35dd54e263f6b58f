import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core.settle import Due, Settler

DEBOUNCE_S, MAX_DELAY_S = 2.0, 30.0


def settler() -> Settler:
    return Settler(DEBOUNCE_S, MAX_DELAY_S)


def test_a_file_is_due_once_it_was_quiet_for_the_debounce() -> None:
    files = settler()
    files.note("a", 100.0)
    files.note("a", 101.5)

    assert files.due(103.4) == []
    assert files.due(103.5) == [Due("a", quiet=True, first_at=100.0)]
    assert files.due(999.0) == []


def test_a_file_written_without_pause_is_due_after_the_maximal_delay() -> None:
    files = settler()
    for second in range(31):
        assert files.due(100.0 + second) == ([] if second < 30 else [Due("a", False, 100.0)])
        files.note("a", 100.0 + second)


def test_a_late_look_at_a_forced_file_that_became_quiet_calls_it_quiet() -> None:
    files = settler()
    files.note("a", 100.0)
    files.note("a", 101.0)

    assert files.due(500.0) == [Due("a", quiet=True, first_at=100.0)]


def test_a_busy_file_keeps_the_time_of_its_first_event() -> None:
    files = settler()
    files.note("a", 100.0)
    (due,) = files.due(102.0)

    files.retry("a", at=104.0, first_at=due.first_at)

    assert files.due(103.9) == []
    assert files.due(104.0) == [Due("a", quiet=True, first_at=100.0)]


def test_an_event_during_a_retry_waits_for_quiet_again_but_not_beyond_the_maximal_delay() -> None:
    files = settler()
    files.retry("a", at=104.0, first_at=100.0)
    files.note("a", 103.0)
    assert files.next_due() == 105.0

    files.note("a", 129.0)

    assert files.next_due() == 130.0


def test_an_event_does_not_cut_a_back_off_short() -> None:
    files = settler()
    files.retry("a", at=160.0, first_at=100.0)
    files.note("a", 110.0)

    assert files.due(159.9) == []
    assert files.due(160.0) == [Due("a", quiet=True, first_at=100.0)]


def test_a_file_that_changed_while_it_was_looked_at_keeps_its_event_and_its_first_time() -> None:
    files = settler()
    files.note("a", 100.0)
    files.due(102.0)
    files.note("a", 129.0)

    files.retry("a", at=102.5, first_at=100.0)

    assert files.next_due() == 130.0
    assert files.due(130.0) == [Due("a", quiet=False, first_at=100.0)]


def test_a_retry_without_a_first_event_counts_from_when_it_is_due() -> None:
    files = settler()
    files.retry("a", at=104.0, first_at=None)

    assert files.due(104.0) == [Due("a", quiet=True, first_at=104.0)]


def test_an_event_told_out_of_order_does_not_shorten_the_wait() -> None:
    files = settler()
    for at in (101.0, 102.5, 100.0):
        files.note("a", at)

    assert files.next_due() == 104.5


def test_a_dropped_file_is_never_due_and_may_come_back() -> None:
    files = settler()
    files.note("a", 100.0)
    files.drop("a")
    files.drop("unknown")
    assert (len(files), files.next_due(), files.due(200.0)) == (0, None, [])

    files.note("a", 300.0)

    assert files.due(302.0) == [Due("a", quiet=True, first_at=300.0)]


def test_draining_hands_over_everything_the_longest_waiting_first() -> None:
    files = settler()
    files.note("b", 101.0)
    files.note("a", 100.0)
    files.retry("c", at=900.0, first_at=50.0)

    assert [due.rel for due in files.drain()] == ["c", "a", "b"]
    assert (len(files), files.next_due(), files.drain()) == (0, None, [])


@pytest.mark.parametrize(
    ("debounce_s", "max_delay_s", "due_at"), [(0.5, 30.0, 100.5), (9.0, 30.0, 109.0), (9.0, 1.0, 101.0)]
)
def test_changed_times_hold_for_files_that_wait_already(debounce_s: float, max_delay_s: float, due_at: float) -> None:
    files = settler()
    files.note("a", 100.0)

    files.adjust(debounce_s=debounce_s, max_delay_s=max_delay_s)

    assert files.next_due() == due_at


@given(st.permutations([f"f{i}" for i in range(8)]))
def test_files_come_in_the_order_in_which_they_were_due(rels: list[str]) -> None:
    files = settler()
    for at, rel in enumerate(rels):
        files.note(rel, float(at))

    assert [due.rel for due in files.due(100.0)] == rels


def test_the_queue_grows_with_the_files_that_wait_and_not_with_what_happens_to_them() -> None:
    files = settler()
    files.note("first in the queue", 0.0)
    for step in range(10_000):
        rel = f"f{step % 10}"
        files.note(rel, float(step))
        files.drop(rel)
        files.retry(rel, at=-math.inf, first_at=float(-step))

    # The one look inside: memory is a promise that nothing outside shows.
    assert len(files._queue) <= 2 * 11 + 64


class SettlerAgainstItsDefinition(RuleBasedStateMachine):
    """Every answer equals what a plain reading of the definition gives, computed afresh from all that waits."""

    rels = st.sampled_from("abcd")
    steps = st.integers(0, 40).map(lambda quarters: quarters / 4)

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.times = DEBOUNCE_S, MAX_DELAY_S
        self.settler = settler()
        self.model: dict[str, tuple[float, float, float]] = {}  # first event, last event, not before

    def due_at(self, rel: str) -> float:
        first_at, last_at, not_before = self.model[rel]
        return max(not_before, min(last_at + self.times[0], first_at + self.times[1]))

    @rule(rel=rels, step=steps)
    def note(self, rel: str, step: float) -> None:
        self.now += step / 4
        first_at, _, not_before = self.model.get(rel, (self.now, 0.0, -math.inf))
        self.model[rel] = first_at, self.now, not_before
        self.settler.note(rel, self.now)

    @rule(rel=rels, wait=steps, age=steps)
    def retry(self, rel: str, wait: float, age: float) -> None:
        at, first_at = self.now + wait, self.now - age
        old_first_at, last_at, not_before = self.model.get(rel, (first_at, -math.inf, at))
        self.model[rel] = min(first_at, old_first_at), last_at, max(at, not_before)
        self.settler.retry(rel, at=at, first_at=first_at)

    @rule(rel=rels)
    def drop(self, rel: str) -> None:
        self.model.pop(rel, None)
        self.settler.drop(rel)

    @rule(debounce_s=steps, max_delay_s=steps)
    def adjust(self, debounce_s: float, max_delay_s: float) -> None:
        self.times = debounce_s, max_delay_s
        self.settler.adjust(debounce_s=debounce_s, max_delay_s=max_delay_s)

    @rule(step=steps)
    def due(self, step: float) -> None:
        self.now += step
        expected = {rel for rel in self.model if self.due_at(rel) <= self.now}

        found = self.settler.due(self.now)

        assert [due.rel for due in found] == sorted(expected, key=lambda rel: (self.due_at(rel), rel))
        for due in found:
            first_at, last_at, _ = self.model.pop(due.rel)
            assert due == Due(due.rel, last_at + self.times[0] <= self.now, first_at)

    @precondition(lambda self: self.model)
    @rule()
    def drain(self) -> None:
        assert {due.rel for due in self.settler.drain()} == set(self.model)
        self.model.clear()

    @invariant()
    def agrees(self) -> None:
        assert len(self.settler) == len(self.model)
        assert self.settler.next_due() == min(map(self.due_at, self.model), default=None)


TestSettlerAgainstItsDefinition = SettlerAgainstItsDefinition.TestCase


def test_longest_waiting_file_is_known_by_its_first_event() -> None:
    files = Settler(2.0, 30.0)
    assert files.oldest_at() is None
    files.note("a", 100.0)
    files.note("b", 101.0)
    files.note("a", 105.0)

    assert files.oldest_at() == 100.0
