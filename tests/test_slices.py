from collections.abc import Generator
from datetime import UTC, datetime

import pytest

from agent.slices import Sliced, to_the_end


class Hands:
    """A clock that the work moves on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)


def work(clock: Hands, *, steps: int, each_s: float) -> Generator[None, None, str]:
    for _ in range(steps):
        clock.now_s += each_s
        yield
    return "done"


def test_long_work_is_done_in_slices_and_tells_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.slices._SLICE_S", 0.5)
    clock = Hands()
    sliced = Sliced(work(clock, steps=50, each_s=0.25), clock)

    slices = 0
    while (done := sliced.go_on()) is None:
        slices += 1
        clock.now_s += 5  # other things

    assert done == ("done",)
    assert slices == 25
    assert sliced.spent_s == 12.5
    assert sliced.began == 100.0


def test_short_work_is_done_at_once() -> None:
    clock = Hands()

    assert Sliced(work(clock, steps=3, each_s=0.001), clock).go_on() == ("done",)
    assert to_the_end(work(clock, steps=1000, each_s=1)) == "done"


def test_error_in_a_slice_is_the_callers_and_what_it_took_counts() -> None:
    clock = Hands()

    def fails() -> Generator[None, None, str]:
        yield
        clock.now_s += 3
        raise FileNotFoundError

    sliced = Sliced(fails(), clock)

    with pytest.raises(FileNotFoundError):
        sliced.go_on()
    assert sliced.spent_s == 3
