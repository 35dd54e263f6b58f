"""Hours of a bot in seconds, driven by Hypothesis, which makes a failure short; a million random steps with `-m torture`."""

import random
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

sys.path.insert(0, str(Path(__file__).parent))

import model
import model_agent
import model_store

import agent.core.decide as decide_module
from agent.core.model import Grade, Snapshot
from agent.core.retention import RetentionPlan
from agent.core.settle import Settler

RELS = st.sampled_from(model.FILES)
SECONDS = st.sampled_from([0.01, 0.3, 1, 2, 5, 31, 45])
GRADES = st.sampled_from([Grade.GOOD, Grade.GOOD, Grade.CORRUPT, Grade.INVALID])


class HoursOfABot(RuleBasedStateMachine):
    """Every promise is checked inside the world, at the step that could break it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = model.World()

    @rule(rel=RELS, grade=GRADES, records=st.sampled_from([0, 1, 3, 10, 11]))
    def write(self, rel: str, grade: Grade, records: int) -> None:
        self.world.write(rel, grade, records)

    @rule(rel=RELS, back=st.integers(0, 9))
    def write_again(self, rel: str, back: int) -> None:
        self.world.write_again(rel, back)

    @rule(rel=RELS)
    def open_slowly(self, rel: str) -> None:
        self.world.open_slowly(rel)

    @rule(rel=RELS)
    def close(self, rel: str) -> None:
        self.world.close(rel)

    @rule(rel=RELS, seconds=SECONDS)
    def write_without_pause(self, rel: str, seconds: float) -> None:
        self.world.write_without_pause(rel, seconds)

    @rule(rel=RELS)
    def delete(self, rel: str) -> None:
        self.world.delete(rel)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(seconds=st.sampled_from([-86400.0, -1.0, -0.001, 3600.0]))
    def step_clock(self, seconds: float) -> None:
        self.world.step_clock(seconds)

    @rule(losing=st.booleans())
    def lose_events(self, losing: bool) -> None:
        self.world.lose_events(losing)

    @rule(failing=st.booleans())
    def break_disk(self, failing: bool) -> None:
        self.world.break_disk(failing)

    @rule()
    def unmount(self) -> None:
        self.world.unmount()

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(seed=st.integers(0, 999))
    def reload(self, seed: int) -> None:
        self.world.reload(model.random_settings(random.Random(seed)))

    @rule(rel=RELS, which=st.integers(0, 9))
    def pin(self, rel: str, which: int) -> None:
        self.world.pin(rel, which)

    @rule(rel=RELS)
    def accept(self, rel: str) -> None:
        self.world.accept(rel)

    @rule(rel=RELS, which=st.integers(0, 9))
    def rot(self, rel: str, which: int) -> None:
        self.world.rot(rel, which)


TestHoursOfABot = HoursOfABot.TestCase
TestHoursOfABot.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_thousands_of_random_steps_keep_every_promise() -> None:
    assert model.run(4000, seed=1) == 4000


def plan_that_keeps_nothing(snapshots: Sequence[Snapshot], *_: Any, **__: Any) -> RetentionPlan:
    return RetentionPlan((), tuple(snapshots))


def stamp_by_the_clock(now: datetime, newest: datetime | None) -> datetime:
    return now.replace(microsecond=0)


def any_restore_point(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    return list(snapshots)


def no_heals_counted(*_: Any) -> int:
    return 0


def wait_for_ever(self: Settler, rel: str, *, at: float, first_at: float | None) -> None:
    """A retry that is forgotten."""


@pytest.mark.parametrize(
    ("target", "name", "broken", "complaint"),
    [
        (model_store, "plan_retention", plan_that_keeps_nothing, "newest good|pinned"),
        (model_store, "next_stamp", stamp_by_the_clock, "a stamp went back"),
        (model_agent, "restore_candidates", any_restore_point, "not good"),
        (decide_module, "heals_in_window", no_heals_counted, "more attempts"),
        (Settler, "retry", wait_for_ever, "final state has no snapshot|waits for"),
    ],
)
def test_model_finds_a_core_that_breaks_its_promise(
    target: Any, name: str, broken: Callable[..., Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, name, broken)

    with pytest.raises(AssertionError, match=complaint):
        model.run(20_000, seed=5)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(10))
def test_a_million_random_steps_keep_every_promise(seed: int) -> None:
    assert model.run(100_000, seed=100 + seed) == 100_000


def test_a_day_of_model_time_passes() -> None:
    world = model.World()
    world.write(model.FILES[0])
    before = world.utc

    world.wait(86_400)

    assert world.utc - before >= timedelta(days=1)
    assert world.agent.store.kept[model.FILES[0]][0].grade is Grade.GOOD
