"""When a changed file is worth a look: after it was quiet for a while, and in any case before it waited too long.

The settler is told the time (monotonic seconds) and never asks for it.  An event costs one dictionary look-up: the
queue holds one entry per waiting file, bearing a time at or before the one the file is really due, and is put right
only when that entry comes up.  Memory follows the number of waiting files, not of events.
"""

import heapq
import math

from msgspec import Struct


class Due(Struct, frozen=True):
    """A file that has waited enough.

    `quiet` says that its last event is at least the debounce ago; False means that the maximal delay, or the end of
    the program, cut the wait short.  `first_at` is when it began to wait; give it back to `Settler.retry`, so that a
    file which is never quiet can be told from one that has just changed.
    """

    rel: str
    quiet: bool
    first_at: float


class _Waiting(Struct):
    first_at: float
    last_at: float  # of the last event; minus infinity when there was none since the last look
    not_before: float = -math.inf
    queued_at: float = math.inf  # the time borne by this file's live entry in the queue


class Settler:
    """The files that wait, and until when.

    A file is due `debounce_s` after its last event or `max_delay_s` after its first, whichever comes first, and never
    before the time that `retry` named.
    """

    def __init__(self, debounce_s: float, max_delay_s: float) -> None:
        self._debounce_s = debounce_s
        self._max_delay_s = max_delay_s
        self._waiting: dict[str, _Waiting] = {}
        self._queue: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, rel: object) -> bool:
        return rel in self._waiting

    def oldest_at(self) -> float | None:
        """Return when the first event of the longest-waiting file was; None while nothing waits.

        Another thread may ask.
        """
        return min((waiting.first_at for waiting in tuple(self._waiting.values())), default=None)

    def note(self, rel: str, now: float) -> None:
        """Take notice of an event: `rel` changed `now`."""
        waiting = self._waiting.get(rel)
        if waiting is None:
            waiting = self._waiting[rel] = _Waiting(first_at=now, last_at=now)
            self._enqueue(rel, waiting)
        elif now > waiting.last_at:
            waiting.last_at = now  # makes it due later, never earlier: its entry in the queue may stay

    def retry(self, rel: str, *, at: float, first_at: float | None) -> None:
        """Let a file wait again, until `at`, because it was busy or could not be read.

        `first_at` is that of its `Due`; None counts its delay from `at`.  An event on the way makes it wait for quiet
        as well, but not beyond the maximal delay, and never makes it due before `at`: neither does a busy file become
        free by being written to, nor does an error go away by it.  What is already waiting keeps its own events.
        """
        began_at = at if first_at is None else first_at
        waiting = self._waiting.setdefault(rel, _Waiting(first_at=began_at, last_at=-math.inf))
        waiting.first_at = min(waiting.first_at, began_at)
        waiting.not_before = max(waiting.not_before, at)
        self._enqueue(rel, waiting)

    def due(self, now: float, *, limit: int | None = None) -> list[Due]:
        """Return and forget the files that are due `now`, `limit` at most, the one that was due first in front."""
        ready: list[Due] = []
        while len(ready) != limit and (due_at := self.next_due()) is not None and due_at <= now:
            rel = heapq.heappop(self._queue)[1]
            waiting = self._waiting.pop(rel)
            ready.append(Due(rel, waiting.last_at + self._debounce_s <= now, waiting.first_at))
        return ready

    def next_due(self) -> float | None:
        """Return when `due` will next have something if there are no more events; None while nothing waits."""
        queue = self._queue
        while queue:
            queued_at, rel = queue[0]
            waiting = self._waiting.get(rel)
            if waiting is None or waiting.queued_at != queued_at:
                heapq.heappop(queue)
            elif (due_at := self._due_at(waiting)) > queued_at:
                waiting.queued_at = due_at
                heapq.heapreplace(queue, (due_at, rel))
            else:
                return queued_at
        return None

    def drop(self, rel: str) -> None:
        """Forget a file; one that does not wait is no error."""
        if self._waiting.pop(rel, None) is not None:
            self._compact()

    def drain(self) -> list[Due]:
        """Return and forget every file that waits, due or not, the longest-waiting in front."""
        oldest_first = sorted(self._waiting.items(), key=lambda item: item[1].first_at)
        self._waiting.clear()
        self._queue.clear()
        return [Due(rel, False, waiting.first_at) for rel, waiting in oldest_first]

    def adjust(self, *, debounce_s: float, max_delay_s: float) -> None:
        """Use other times from now on, also for the files that wait already."""
        self._debounce_s = debounce_s
        self._max_delay_s = max_delay_s
        self._rebuild()

    def _due_at(self, waiting: _Waiting) -> float:
        settled_at = min(waiting.last_at + self._debounce_s, waiting.first_at + self._max_delay_s)
        return max(settled_at, waiting.not_before)

    def _enqueue(self, rel: str, waiting: _Waiting) -> None:
        """Make sure that an entry comes up no later than the file is due; an entry that it replaces goes stale."""
        due_at = self._due_at(waiting)
        if due_at < waiting.queued_at:
            waiting.queued_at = due_at
            heapq.heappush(self._queue, (due_at, rel))
            self._compact()

    def _compact(self) -> None:
        if len(self._queue) > 2 * len(self._waiting) + 64:
            self._rebuild()

    def _rebuild(self) -> None:
        self._queue.clear()
        for rel, waiting in self._waiting.items():
            waiting.queued_at = self._due_at(waiting)
            self._queue.append((waiting.queued_at, rel))
        heapq.heapify(self._queue)
