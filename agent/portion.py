"""A portion of the files that are due: looks that share their flushes, from the first capture to the catalog."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from agent.core.model import Grade
from agent.disk.capture import IN_MEMORY_MAX_BYTES
from agent.disk.draft import Draft
from agent.disk.lock import LockSession
from agent.disk.publish import Batch
from agent.disk.staging import StagingFolder
from agent.look import Look
from agent.outcome import Outcome
from agent.workspace import Workspace

PORTION_FILES = 256
_HELD_MAX_BYTES = 8 << 20  # of captured bytes, in memory or on disk; two portions are under way at a time


HealAtOnce = Callable[[int, Look], Outcome | None]
"""Heals by a look, under the lock that it was had under, in the folder it was had in; None: it is left to others."""


class Keeper(Protocol):
    """Keeps the files as they were before anything is done about them."""

    def before(self, looks: Sequence[Look], staging: StagingFolder) -> list[Look]:
        """Return the looks that are to go on, after all that they do not keep themselves was kept."""

    def after(self, looks: Sequence[Look], staging: StagingFolder) -> None:
        """The looks that went on have their snapshots, if they were given any."""


class Portion:
    """Looks that share their flushes, and what is held for them until they are concluded."""

    def __init__(self, ws: Workspace) -> None:
        self._ws, self._held = ws, ExitStack()
        self._held_bytes = 0
        self.began = ws.clock.monotonic()
        self.looks: list[Look] = []
        self.going_on: Sequence[Look] = self.looks  # those that no keeper held back
        self.drafts: list[tuple[Look, Draft]] = []
        self.batch: Batch | None = None

    def open(self) -> None:
        """Take hold of the folders.

        Raises: as `Pipeline.outcomes`.
        """
        self.root_fd = self._held.enter_context(self._ws.data_root())
        self.locks: LockSession = self._held.enter_context(self._ws.locks.session())
        self.staging: StagingFolder = self._held.enter_context(self._ws.store.staging())

    def add(self, look: Look) -> None:
        self.looks.append(look)
        if look.capture is not None:
            self._held_bytes += look.capture.signature.size_bytes

    def is_whole(self) -> bool:
        """Whether it should take no more files; those that are due go into the next one."""
        return self._held_bytes > _HELD_MAX_BYTES or len(self.looks) == PORTION_FILES

    def not_good(self) -> set[str]:
        """Return the files whose good snapshots are held; the catalog knows of them only later."""
        return {look.rel for look in self.looks if _seen(look) not in (None, Grade.GOOD)}

    def close(self) -> None:
        """The files are free for others; copies that did not become snapshots are gone.  A second time is harmless."""
        with self._held:
            if self.batch is not None:
                self.batch.discard()
            for look in self.looks:
                look.discard()


def is_heavy(path: str) -> bool:
    """Whether a look at this file takes so long that others should not wait for it."""
    try:
        return os.lstat(path).st_size > IN_MEMORY_MAX_BYTES
    except OSError:
        return False


def _seen(look: Look) -> Grade | None:
    """How the file is; None when the look did not come to tell."""
    if look.result is not None:
        return look.result.grade
    if look.outcome is None:
        return Grade.MISSING
    return look.state.grade if look.state is not None else look.outcome.grade
