import threading

import pytest

from agent.core.settle import Due
from agent.lanes import Lanes
from agent.outcome import Ending, Outcome

DUE = Due("users.json", True, 0.0)
DONE = [Outcome("users.json", Ending.UNCHANGED)]


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


def test_job_wakes_the_loop_and_lands_once(woken: threading.Event) -> None:
    lanes = Lanes(woken.set)
    lanes.fly([DUE], lambda: DONE, now=1.0, quick=True)

    assert woken.wait(10)
    assert [job.outcomes for job in lanes.finish()] == [DONE]
    assert list(lanes.landed()) == []
    lanes.close()


def test_file_of_a_job_is_known_while_it_flies(woken: threading.Event) -> None:
    lanes, gate = Lanes(woken.set), threading.Event()

    def work() -> list[Outcome]:
        gate.wait(10)
        return DONE

    lanes.fly([DUE], work, now=5.0, quick=True)
    lanes.fly([], work, now=7.0, heal=True)
    assert (lanes.files(), len(lanes.dues()), lanes.oldest_began()) == ({"users.json"}, 1, 5.0)
    assert lanes.heals
    assert not lanes.quick_is_free
    gate.set()
    assert len(list(lanes.finish())) == 2
    assert (lanes.quick_is_free, lanes.heals, lanes.oldest_began()) == (True, False, None)
    lanes.close()


def test_job_that_raises_lands_with_its_error(woken: threading.Event) -> None:
    lanes = Lanes(woken.set)

    def work() -> list[Outcome]:
        raise OSError(28, "full")

    lanes.fly([DUE], work, now=0.0)

    assert [type(job.future.exception()) for job in lanes.finish()] == [OSError]
    lanes.close()
