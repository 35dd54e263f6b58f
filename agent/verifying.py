"""Verification by the daemon: in small slices on a slow lane, at a small share of one core, as the config says."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf

from agent.causes import error_fields
from agent.core.errors import AgentError
from agent.core.pace import Pace
from agent.lanes import Lanes
from agent.logs import get_logger
from agent.outcome import Outcome
from agent.verify import Stopped, Verifier
from agent.verify_report import Report, last_results, remember
from agent.workspace import Workspace

_SLICE_S = 0.1
_SHARE = 0.01  # of one core
_CALM_S = 60.0  # the start has better things to do
_AGAIN_S = 600.0  # after an error that kept it from going on
_SINCE = "verify_since"  # a note of the catalog


class Verifying:
    """Begins a verification when one is due and goes on with it, a slice at a time.

    All methods but the slice belong to the loop's thread; there is never more than one slice.  `tell` is called in the
    lane with what a whole verification found.
    """

    def __init__(self, ws: Workspace, lanes: Lanes, tell: Callable[[Report, float], None]) -> None:
        self._ws, self._lanes, self._tell = ws, lanes, tell
        self._log = get_logger()
        self._pace = Pace(_SLICE_S, _SHARE)
        self._report = Report()
        self._steps: Iterator[None] | None = None
        self._began = 0.0
        self._is_flying = self._stopping = False
        self.next_at = -inf  # the first turn asks the catalog, which is still being checked

    def turn(self, now: float) -> None:
        """Begin or go on, if it is time (`now`, monotonic) to."""
        if self.next_at == -inf:
            self.next_at = now + _CALM_S
            with suppress(sqlite3.Error):  # every job tells of a catalog that cannot be used
                self.next_at = self._next_begin(calm=True)
        if now < self.next_at or self._stopping:
            return
        self.next_at = inf  # until the slice says when to go on
        self._is_flying = True
        self._lanes.fly((), self._slice, now=now)

    def adopt_config(self) -> None:
        """The config may want it at other times; a verification under way goes on."""
        if self._steps is None and not self._is_flying:
            with suppress(sqlite3.Error):  # every job tells of a catalog that cannot be used
                self.next_at = self._next_begin(calm=False)

    def stop(self) -> None:
        """No slice begins any more, and one under way ends soon; the verification is begun anew at the next start."""
        self._stopping = True

    def _next_begin(self, *, calm: bool) -> float:
        every_s = self._ws.config.verify.every_s
        if every_s is None:
            return inf
        clock, last_s = self._ws.clock, last_results(self._ws.catalog).ended_at
        if not last_s:
            last_s = self._first_seen_at()
        wait_s = min(every_s, max(0.0, last_s + every_s - clock.utc().timestamp()))
        return clock.monotonic() + max(wait_s, min(_CALM_S, every_s) if calm else 0.0)

    def _first_seen_at(self) -> float:
        """When verification began to be wanted here; kept, so that restarts do not put it off for ever."""
        known = self._ws.catalog.note(_SINCE)
        if known is not None and known.isdigit():
            return float(known)
        now = self._ws.clock.utc().timestamp()
        self._ws.catalog.set_note(_SINCE, str(int(now)))
        return now

    def _slice(self) -> list[Outcome]:
        clock = self._ws.clock
        began = clock.monotonic()
        try:
            is_over = self._go_on(began)
            cost_s = clock.monotonic() - began
            self.next_at = self._next_begin(calm=False) if is_over else clock.monotonic() + self._pace.after(cost_s)
        except Stopped:
            pass
        except (OSError, sqlite3.Error, AgentError) as error:
            self._steps = None
            self._log.error("verify_cut_short", **error_fields(error))
            self.next_at = clock.monotonic() + _AGAIN_S
        finally:
            self._is_flying = False
        return []

    def _go_on(self, began: float) -> bool:
        """Do steps for as long as a slice lasts; whether the verification is over."""
        clock = self._ws.clock
        if self._steps is None:
            self._began = began
            self._report = Report(drill=self._ws.config.verify.drill)
            self._steps = Verifier(self._ws, self._report, go_on=lambda: not self._stopping).steps()
        for _ in self._steps:
            if clock.monotonic() - began >= _SLICE_S or self._stopping:
                return False
        self._steps = None
        remember(self._ws, self._report)
        self._tell(self._report, clock.monotonic() - self._began)
        return True
