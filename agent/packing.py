"""Packing by the daemon: a step at a time on a lane of its own, at a small share of one core, one file after another.

A file is taken up when it got a snapshot, and once after each start, for what a crash or an older config left.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from math import inf
from time import thread_time

from agent.causes import error_fields
from agent.core.errors import AgentError
from agent.core.pace import Pace
from agent.disk.packer import PackingStopped
from agent.lanes import Lanes
from agent.logs import get_logger
from agent.outcome import Outcome
from agent.pack import Packed, pack_file
from agent.workspace import Workspace

_SHARE = 0.1  # of one core
_SLICE_S = 0.05
_LULL_S = 2.0  # between one file and the next that is new
_CALM_S = 30.0  # the start has better things to do
_AGAIN_S = 600.0  # after an error that kept it from going on


class Packing:
    """Packs old snapshots while nothing else wants the machine.

    All methods but the slice belong to the loop's thread; there is never more than one slice.  `tell` is called in the
    lane with what was done to a file.
    """

    def __init__(self, ws: Workspace, lanes: Lanes, tell: Callable[[Packed], None], failed: Callable[[], None]) -> None:
        self._ws, self._lanes, self._tell, self._failed = ws, lanes, tell, failed
        self._log = get_logger()
        self._pace = Pace(_SLICE_S, _SHARE)
        self._waiting: dict[str, None] = {}  # files with new snapshots, in the order they came
        self._backlog: Iterator[str] | None = None
        self._steps: Iterator[Packed] | None = None
        self._current: str | None = None
        self._is_flying = self._stopping = False
        self._known_failures: set[str] = set()
        self.next_at = inf
        self.adopt_config()

    def note(self, rel: str) -> None:
        """A file has a new snapshot: an older one may be packed now."""
        if self._ws.config.backup.packing:
            self._waiting[rel] = None
            if self.next_at == inf and not self._is_flying:
                self.next_at = self._ws.clock.monotonic() + _LULL_S

    def turn(self, now: float) -> None:
        """Begin or go on, if it is time (`now`, monotonic) to."""
        if self._waiting and self.next_at == inf and not self._is_flying:
            self.next_at = now  # it came while the last slice ended
        if now < self.next_at or self._stopping:
            return
        self.next_at = inf  # until the slice says when to go on
        self._is_flying = True
        self._lanes.fly((), self._slice, now=now, calm=True)

    def adopt_config(self) -> None:
        """The config may want packing now, or no more; what is packed stays so."""
        if not self._ws.config.backup.packing:
            self._waiting.clear()
            self._backlog = self._steps = None
            self.next_at = inf
        elif self._backlog is None:
            self._backlog = self._all_files()
            if not self._is_flying:
                self.next_at = self._ws.clock.monotonic() + _CALM_S

    def stop(self) -> None:
        """No step begins any more, and one under way ends at once; every snapshot is whole, old or packed."""
        self._stopping = True

    def _all_files(self) -> Iterator[str]:
        for page in self._ws.catalog.file_pages():
            yield from (state.rel for state in page)

    def _slice(self) -> list[Outcome]:
        clock = self._ws.clock
        began, used_s = clock.monotonic(), _processor_s()
        try:
            while (has_more := self._go_on()) and clock.monotonic() - began < _SLICE_S:
                pass
            self.next_at = clock.monotonic() + self._pace.after(_processor_s() - used_s) if has_more else inf
        except PackingStopped:
            self._steps = None
        except (OSError, sqlite3.Error, AgentError) as error:
            self._steps = None
            if self._current is not None:
                self._waiting[self._current] = None
            self._failed()
            self._log.error("packing_failed", **error_fields(error), again_after_s=_AGAIN_S)
            self.next_at = clock.monotonic() + _AGAIN_S
        finally:
            self._is_flying = False
        return []

    def _go_on(self) -> bool:
        """Do one step; whether there is more to do."""
        if self._steps is None:
            self._current = self._next_file()
            if self._current is None:
                return False
            self._steps = self._steps_of(self._current)
        if next(self._steps, None) is None:
            self._steps = None
        return True

    def _steps_of(self, rel: str) -> Iterator[Packed]:
        done = Packed(rel)
        for done in pack_file(self._ws, rel, lambda: not self._stopping):
            yield done
        done.failures = [f for f in done.failures if f[0] not in self._known_failures]
        self._known_failures.update(name for name, _ in done.failures)
        self._tell(done)

    def _next_file(self) -> str | None:
        waiting = next(iter(self._waiting), None)
        if waiting is not None:
            self._waiting.pop(waiting, None)
            return waiting
        backlog = self._backlog
        return next(backlog, None) if backlog is not None else None


def _processor_s() -> float:
    """Return what this thread and all children so far took of the processor: a busy machine makes no step dearer."""
    times = os.times()
    return thread_time() + times.children_user + times.children_system
