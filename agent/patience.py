"""What the agent waits with: until it is told to stop, with word to service manager and log of what it waits for."""

import os
from math import inf

from agent.causes import error_fields
from agent.core.labels import Operation
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.notify import extend_timeout, notify, status
from agent.wake import Wake
from agent.workspace import Clock

_LOOK_LIMIT_S = 180.0  # no single look takes longer: a check in a child has a limit below it
_PROGRESS_S = 5.0


class Patience:
    """Waits, and what ends them.

    `not_ready` is None while the agent is ready, else why not; `stop_asked` says that it was told to stop.
    """

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.wake = Wake()
        self.stop_asked = False
        self.not_ready: str | None = "starting"
        self._metrics, self._clock = metrics, clock
        self._log = get_logger()
        self._asked_at, self._told_at, self._looks = -inf, clock.monotonic(), 0

    def stop(self, number: int) -> None:
        """Called by a signal: every wait ends; a second signal ends the process."""
        if self.stop_asked:
            os._exit(128 + number)
        self.stop_asked = True
        self.wake.set()

    def pause(self, seconds: float, why: str) -> None:
        """Wait, but not beyond a stop.

        The service manager is asked for no patience: what waits for us need not wait for a broken disk.
        """
        self.not_ready = why
        notify(status(why))
        if not self.stop_asked:
            self.wake.clear()
            self.wake.wait(seconds)

    def goes_on(self) -> bool:
        """Called by long work between its steps: whether it may go on."""
        self.ask()
        return not self.stop_asked

    def ask(self) -> None:
        """Called after each look: until the gate is passed, service manager and log know that it goes on."""
        if self.not_ready is None:
            return
        now = self._clock.monotonic()
        self._looks += 1
        if now - self._asked_at > 1:
            self._asked_at = now
            notify(extend_timeout(_LOOK_LIMIT_S), status(f"{self.not_ready}, {self._looks} looks so far"))
        if now - self._told_at > _PROGRESS_S:
            self._told_at = now
            self._log.info("gate_advanced", why=self.not_ready, looks=self._looks)

    def trouble(self, event: str, error: Exception, backup_dir: str) -> None:
        """A line and a count tell that folder or catalog refused."""
        self._metrics.io_errors.inc(Operation.CATALOG)
        self._log.error(event, backup_dir=backup_dir, **error_fields(error))
