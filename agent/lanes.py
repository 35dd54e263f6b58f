"""Where looks and heals run beside the loop: one quick lane for batches of small files, slow ones for the rest.

What nobody waits for, and may take long, has a calm lane of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from msgspec import Struct

from agent.core.settle import Due
from agent.disk.threads import NoThreadError
from agent.outcome import Outcome

_SLOW_LANES = 2


class Job(Struct, frozen=True):
    """Work on some files; `began` is a moment of the monotonic clock.

    `outcomes` holds what was concluded, also of a job that failed later on.
    """

    dues: tuple[Due, ...]
    began: float
    outcomes: list[Outcome]
    future: Future[None]
    is_quick: bool
    is_heal: bool


class Lanes:
    """Runs jobs, never two for one file.  All methods belong to the loop's thread, but for `dues`.

    Raises:
        NoThreadError: the limit of threads is reached.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._quick = ThreadPoolExecutor(1, thread_name_prefix="quick-lane")
        self._slow = ThreadPoolExecutor(_SLOW_LANES, thread_name_prefix="slow-lane")
        self._calm = ThreadPoolExecutor(1, thread_name_prefix="calm-lane")
        self._jobs: list[Job] = []
        self._make_threads()

    def _make_threads(self) -> None:
        """All of them now, where that they cannot be had is waited out; no job finds itself without one later on."""
        are_there = Event()
        try:
            for pool, count in ((self._quick, 1), (self._slow, _SLOW_LANES), (self._calm, 1)):
                for _ in range(count):
                    pool.submit(are_there.wait)
        except RuntimeError as error:
            are_there.set()
            self.close()
            raise NoThreadError from error
        are_there.set()

    @property
    def quick_is_free(self) -> bool:
        return not any(job.is_quick for job in self._jobs)

    @property
    def heals(self) -> bool:
        """Whether a heal is under way: a bot may be stopped for it."""
        return any(job.is_heal for job in self._jobs)

    def dues(self) -> list[Due]:
        """Return what is being worked on."""
        return [due for job in tuple(self._jobs) for due in job.dues]

    def files(self) -> set[str]:
        return {due.rel for due in self.dues()}

    def oldest_began(self) -> float | None:
        """When the longest-running job began; None when nothing runs."""
        return min((job.began for job in self._jobs), default=None)

    def fly(
        self,
        dues: Sequence[Due],
        work: Callable[[], Iterable[Outcome]],
        *,
        now: float,
        quick: bool = False,
        heal: bool = False,
        calm: bool = False,
    ) -> None:
        """Begin a job; the loop is woken when it is done."""
        outcomes: list[Outcome] = []
        lane = self._quick if quick else self._calm if calm else self._slow
        future = lane.submit(lambda: outcomes.extend(work()))
        self._jobs.append(Job(tuple(dues), now, outcomes, future, quick, heal))
        future.add_done_callback(lambda _: self._wake())

    def landed(self) -> Iterator[Job]:
        """Yield and forget the jobs that are done."""
        done = [job for job in self._jobs if job.future.done()]
        self._jobs = [job for job in self._jobs if job not in done]
        yield from done

    def finish(self) -> Iterator[Job]:
        """Wait for every job, then yield and forget them."""
        for job in self._jobs:
            job.future.exception()
        yield from self.landed()

    def close(self) -> None:
        for pool in (self._quick, self._slow, self._calm):
            pool.shutdown(wait=True)
