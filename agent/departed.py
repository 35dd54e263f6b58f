"""The snapshots of files that were deleted on purpose: once `keep_deleted` has passed they go, without a publish."""

import sqlite3
from collections.abc import Callable, Iterator

from agent.core.model import Grade
from agent.disk.presence import is_gone
from agent.lanes import Lanes
from agent.outcome import Outcome
from agent.rotation import delete, plan_file
from agent.workspace import Workspace

_EVERY_S = 3600.0
_CALM_S = 60.0  # the start has better things to do


class Departed:
    """Looks once an hour, on the calm lane.  `tell` is called there with a file and how many of its snapshots went, and
    `failed` with what the disk or the catalog refused, which is tried again."""

    def __init__(
        self, ws: Workspace, lanes: Lanes, tell: Callable[[str, int], None], failed: Callable[[Exception], None]
    ) -> None:
        self._ws, self._lanes, self._tell, self._failed = ws, lanes, tell, failed
        self.next_at = ws.clock.monotonic() + _CALM_S

    def turn(self, now: float) -> None:
        """Look, if it is time (`now`, monotonic) to and the config wants any to go."""
        if now < self.next_at:
            return
        self.next_at = now + _EVERY_S
        if self._ws.config.backup.retention.keep_deleted_s is not None:
            self._lanes.fly((), self._look, now=now, calm=True)

    def _look(self) -> list[Outcome]:
        try:
            for rel, count in rotate_departed(self._ws):
                self._tell(rel, count)
        except (OSError, sqlite3.Error) as error:
            self._failed(error)
        return []


def rotate_departed(ws: Workspace) -> Iterator[tuple[str, int]]:
    """Carry out what rotation plans for files that are gone; yield each of which snapshots went, and how many.

    Raises:
        OSError: the data folder is not there; or, once all others were seen to, what the disk refused of one.
    """
    failure: OSError | None = None
    with ws.data_root() as root_fd:
        if not ws.is_known_root(root_fd):
            return  # not mounted: nothing was deleted on purpose
        for rel in ws.catalog.not_good():
            try:
                count = _rotate_one(ws, root_fd, rel)
            except OSError as error:
                failure = failure or error
                continue
            if count:
                yield rel, count
    if failure is not None:
        raise failure


def _rotate_one(ws: Workspace, root_fd: int, rel: str) -> int:
    with ws.locks.session() as locks:
        state = ws.catalog.file(rel) if locks.take(rel) else None
        if state is None or state.grade is not Grade.MISSING or not is_gone(rel, root_fd):
            return 0
        doomed = plan_file(ws, rel, state).delete
        delete(ws, doomed)
        return len(doomed)
