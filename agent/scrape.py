"""The gauges that are read from catalog and disk right before Prometheus gets them."""

from collections.abc import Callable
from datetime import datetime

from agent.core.labels import Folder
from agent.core.model import FileState, Grade
from agent.metrics import Metrics
from agent.rotation import free_bytes
from agent.verify_report import last_results
from agent.workspace import Workspace


class Scrape:
    """Refreshes the gauges of one workspace at each exposition."""

    def __init__(
        self,
        ws: Workspace,
        metrics: Metrics,
        pending: Callable[[], tuple[int, float]],
        is_pending: Callable[[str], bool],
    ) -> None:
        """`pending`: how many files wait, and for how long the first, in seconds."""
        self._ws, self._metrics, self._pending, self._is_pending = ws, metrics, pending, is_pending
        self.walked_at: datetime | None = None  # the end of the last whole rescan
        self.hidden: tuple[str, ...] = ()  # what that rescan could not look into, each with a slash after it
        self.overflow_count = 0
        self._overflows_told = 0
        self.limit_labels()
        metrics.on_scrape(self.refresh)

    def limit_labels(self) -> None:
        """The config says which files have series of their own."""
        config = self._ws.config
        self._metrics.limit_file_labels(named=config.named_files(), others_max=config.metrics.max_file_labels)

    def refresh(self) -> None:
        """Every gauge tells what is so now."""
        ws, metrics = self._ws, self._metrics
        count, waits_s = self._pending()
        metrics.pending_files.set(count)
        metrics.oldest_pending.set(ws.clock.utc().timestamp() - waits_s if count else 0)
        metrics.set_files(ws.catalog.count_files())
        metrics.set_snapshots(*ws.catalog.count_snapshots())
        metrics.files_given_up.set(ws.catalog.count_given_up())
        pause = ws.pause()
        metrics.paused_until.set(pause.ends_at.timestamp() if pause else 0)
        verified = last_results(ws.catalog)
        metrics.verify_last_success.set(verified.verified_at)
        metrics.drill_last_success.set(verified.drilled_at)
        metrics.verify_failures.set(verified.failure_count)
        for state in self._labelled():
            metrics.set_file_times(state.rel, _unix(self._last_good(state)), _unix(state.last_snapshot_at))
        metrics.watch_overflows.inc(self.overflow_count - self._overflows_told)
        self._overflows_told = self.overflow_count
        for folder, path in ((Folder.DATA, ws.config.data_dir), (Folder.BACKUP, ws.config.backup_dir)):
            metrics.disk_free_bytes.set(folder, free_bytes(path))

    def _labelled(self) -> list[FileState]:
        config, catalog = self._ws.config, self._ws.catalog
        named = [state for rel in config.named_files() if (state := catalog.file(rel)) is not None]
        return [*named, *catalog.files(limit=config.metrics.max_file_labels)]

    def _last_good(self, state: FileState) -> datetime | None:
        """A good file that the last rescan found unchanged was good then."""
        if state.grade is not Grade.GOOD or state.last_good_at is None or self.walked_at is None:
            return state.last_good_at
        unseen = self._is_pending(state.rel) or f"{state.rel}/".startswith(self.hidden)
        return state.last_good_at if unseen else max(state.last_good_at, self.walked_at)


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
