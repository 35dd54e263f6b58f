"""The look at the disk of the snapshots, before one has to be refused."""

import os
import sqlite3
from collections.abc import Callable

from agent.core.room import Room
from agent.workspace import Workspace

_EVERY_S = 30.0
_AGAIN_S = 86400.0  # a disk that stays low is told of once a day


class SpaceWatch:
    """Looks now and then; `tell` hears of it when the disk becomes low, each day that it stays so, and when it ends."""

    def __init__(self, ws: Workspace, tell: Callable[[Room, bool], None]) -> None:
        self._ws, self._tell = ws, tell
        self._is_low = False
        self._told_at = 0.0
        self.next_at = ws.clock.monotonic()

    def turn(self, now: float) -> None:
        """Look, if it is time (`now`, monotonic) to."""
        if now < self.next_at:
            return
        self.next_at = now + _EVERY_S
        try:
            room = room_of(self._ws)
        except (OSError, sqlite3.Error):
            return  # the walk tells of a folder, and every job of a catalog, that cannot be used
        was_low, self._is_low = self._is_low, room.is_low(was_low=self._is_low)
        if self._is_low is not was_low or (was_low and now - self._told_at >= _AGAIN_S):
            self._told_at = now
            self._tell(room, self._is_low)


def room_of(ws: Workspace) -> Room:
    """Return how the disk of `backup_dir` stands.

    Raises:
        OSError: it does not tell.
    """
    status = os.statvfs(ws.config.backup_dir)
    return Room(
        free_bytes=status.f_bavail * status.f_frsize,
        total_bytes=status.f_blocks * status.f_frsize,
        reserve_bytes=ws.config.backup.min_free_bytes or 0,
        once_bytes=ws.catalog.count_bytes(),
    )
