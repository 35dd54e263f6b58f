"""The pause of all healing, as the daemon sees it: told of, and what it left is looked at again when it has ended."""

from collections.abc import Callable

from agent.announce import Announcer
from agent.causes import error_fields
from agent.core.labels import Operation
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.workspace import Workspace

_EVERY_S = 10.0  # each look reads the pause itself; this is for the log, and for what was left meanwhile
_WITH_FILES_LEFT_S = 1.0


class PauseWatch:
    """`note` hears of each file that is to be looked at again, and when.  Methods belong to the loop's thread."""

    def __init__(
        self, ws: Workspace, announce: Announcer, metrics: Metrics, note: Callable[[str, float], None]
    ) -> None:
        self._ws, self._announce, self._metrics, self._note = ws, announce, metrics, note
        self._left: set[str] = set()
        self.next_at = 0.0
        self.turn(ws.clock.monotonic())

    def leave(self, rel: str) -> None:
        """The file was left as it is because of the pause."""
        self._left.add(rel)
        self.next_at = self._ws.clock.monotonic() + _WITH_FILES_LEFT_S

    def turn(self, now: float) -> None:
        """Look at the pause."""
        try:
            pause = self._ws.pause()
        except OSError as error:  # no heal is begun meanwhile: each look finds the same
            self._metrics.io_errors.inc(Operation.CATALOG)
            get_logger().error("pause_unreadable", **error_fields(error))
        else:
            self._announce.paused(pause)
            for rel in () if pause is not None else self._left:
                self._note(rel, now)
            if pause is None:
                self._left.clear()
        self.next_at = now + (_WITH_FILES_LEFT_S if self._left else _EVERY_S)
