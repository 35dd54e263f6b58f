"""Long work on the loop's thread, a slice at a time, so that no change waits for the end of it."""

from collections.abc import Generator
from typing import Generic, TypeVar

from agent.workspace import Clock

_T = TypeVar("_T")
Steps = Generator[None, None, _T]
"""Work that yields every few milliseconds, and returns its result in the end."""

_SLICE_S = 0.02


class Sliced(Generic[_T]):
    """Work under way; `spent_s` is what it took so far, `began` when it began by the monotonic clock."""

    def __init__(self, steps: Steps[_T], clock: Clock) -> None:
        self._steps, self._clock = steps, clock
        self.began = clock.monotonic()
        self.spent_s = 0.0

    def go_on(self) -> tuple[_T] | None:
        """Do one slice; return the result once there is one.

        Raises: as the work; it is at its end then.
        """
        began = self._clock.monotonic()
        try:
            next(self._steps)
            while self._clock.monotonic() - began < _SLICE_S:
                next(self._steps)
        except StopIteration as end:
            return (end.value,)
        finally:
            self.spent_s += self._clock.monotonic() - began
        return None


def to_the_end(steps: Steps[_T]) -> _T:
    """Do the work at once and return its result."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: _T = end.value
        return result
