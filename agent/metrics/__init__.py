"""Every metric of the agent, in one place.

A caller cannot misspell a label: one with a fixed set of values is an enum, and every value is exported as 0 from
the start.  The only open label is `file`, which `FileTimes` bounds.
"""

import threading
from collections.abc import Callable, Iterable, Mapping

from agent.core.labels import (
    BotCommand,
    BotResult,
    CaptureResult,
    Deletion,
    Folder,
    HealResult,
    HttpFailure,
    Operation,
    Refusal,
    Skip,
    WatchEvent,
)
from agent.core.model import CaptureMode, Grade, HealAction, Reason
from agent.core.notice import Delivery
from agent.core.problem import ProblemKind
from agent.metrics.client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    openmetrics_text,
    plain_text,
)
from agent.metrics.series import CounterBy, E, FileTimes, GaugeBy

_OTHER = "other"
_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REFRESH_WAIT_S = 1.0


class Metrics:
    """The agent's metrics, in a registry of their own."""

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        self._refreshes: list[Callable[[], None]] = []
        self._refresh_lock = threading.Lock()
        build_info = Gauge("backup_agent_build_info", "1, with the version.", ["version"], registry=self._registry)
        build_info.labels(version).set(1)
        self._file_times = FileTimes(self._registry)
        self._add_snapshots()
        self._add_checks()
        self._add_verification()
        self._add_watching()
        self._add_service()
        ProcessCollector(registry=self._registry)

    def _add_snapshots(self) -> None:
        self._snapshots = self._gauge_by("backup_agent_snapshots", "Snapshots on disk.", "grade", Grade)
        self._snapshot_bytes = self._gauge("backup_agent_snapshot_bytes", "Disk space of all snapshots.")
        self.snapshots_created = self._counter_by(
            "backup_agent_snapshots_created_total", "Snapshots published.", "reason", Reason
        )
        self.snapshots_refused = self._counter_by(
            "backup_agent_snapshots_refused_total", "Snapshots not published.", "reason", Refusal
        )
        self.snapshots_deleted = self._counter_by(
            "backup_agent_snapshots_deleted_total", "Snapshots that the agent deleted.", "reason", Deletion
        )
        self.snapshots_packed = self._counter("backup_agent_snapshots_packed_total", "Old snapshots packed.")
        self.snapshots_vanished = self._counter(
            "backup_agent_snapshots_vanished_total", "Snapshots gone that the agent did not delete."
        )
        self.protect_duration = self._durations(
            "backup_agent_protect_duration_seconds", "From due to durable, for one data file."
        )

    def _add_checks(self) -> None:
        self._files = self._gauge_by("backup_agent_files", "Data files, by their present grade.", "grade", Grade)
        self.files_given_up = self._gauge(
            "backup_agent_files_given_up", "Damaged data files that are no longer healed, until a person acts."
        )
        failures = Counter("backup_agent_check_failures_total", "Problems found.", ["kind"], registry=self._registry)
        self._check_failures = {kind: failures.labels(kind) for kind in (*map(str, ProblemKind), _OTHER)}
        heals = Counter("backup_agent_heals_total", "Heals.", ["action", "result"], registry=self._registry)
        self._heals = {(a, b): heals.labels(a.value, b.value) for a in HealAction for b in HealResult}
        self.heal_duration = self._durations(
            "backup_agent_heal_duration_seconds", "From judged to healed, for one data file."
        )
        commands = Counter(
            "backup_agent_bot_commands_total", "Runs of bot.stop and bot.start.", ["command", "result"],
            registry=self._registry,
        )  # fmt: skip
        self._bot_commands = {(a, b): commands.labels(a.value, b.value) for a in BotCommand for b in BotResult}
        self.quarantined = self._counter("backup_agent_quarantined_total", "Damaged states put in quarantine.")
        self.swaps_undone = self._counter(
            "backup_agent_swaps_undone_total", "Restores taken back because the bot wrote meanwhile."
        )
        self.rollbacks_seen = self._counter(
            "backup_agent_rollbacks_seen_total", "Data files that returned to an older snapshot."
        )
        self.clobbered = self._counter("backup_agent_clobbered_total", "Heals that the bot overwrote with the damage.")

    def _add_verification(self) -> None:
        self.verify_last_success = self._gauge(
            "backup_agent_verify_last_success_timestamp_seconds",
            "When everything was read back without a failure, Unix time; 0: never.",
        )
        self.drill_last_success = self._gauge(
            "backup_agent_drill_last_success_timestamp_seconds",
            "When every file was restored aside without a failure, Unix time; 0: never.",
        )
        self.verify_failures = self._gauge(
            "backup_agent_verify_failures", "Failures that the last verification of everything found."
        )

    def _add_watching(self) -> None:
        self.captures = self._counter_by("backup_agent_captures_total", "Captures.", "result", CaptureResult)
        self.capture_mode = self._gauge_by("backup_agent_capture_mode", "Folders in this mode.", "mode", CaptureMode)
        self.leases_broken = self._counter("backup_agent_leases_broken_total", "Leases let go because a writer waited.")
        self.oldest_pending = self._gauge(
            "backup_agent_oldest_pending_timestamp_seconds",
            "When the longest-waiting change not captured yet was noticed; 0: none waits.",
        )
        self.pending_files = self._gauge("backup_agent_pending_files", "Changed data files not captured yet.")
        self.files_skipped = self._counter_by(
            "backup_agent_files_skipped_total", "Matched files left unprotected.", "reason", Skip
        )
        self.data_dir_up = self._gauge("backup_agent_data_dir_up", "1 while the data folder is there.")
        self.watcher_up = self._gauge("backup_agent_watcher_up", "1 while change events arrive.")
        self.watch_events = self._counter_by("backup_agent_watch_events_total", "Change events.", "kind", WatchEvent)
        self.watch_overflows = self._counter(
            "backup_agent_watch_overflows_total", "Times the kernel dropped change events."
        )
        self.rescan_last_success = self._gauge(
            "backup_agent_rescan_last_success_timestamp_seconds", "End of the last whole rescan, Unix time."
        )
        self.rescan_duration = self._gauge("backup_agent_rescan_duration_seconds", "How long the last rescan took.")

    def _add_service(self) -> None:
        self.ready = self._gauge("backup_agent_ready", "1 once the gate is passed.")
        self.paused_until = self._gauge(
            "backup_agent_paused_until_timestamp_seconds", "When the pause of all healing ends, Unix time; 0: no pause."
        )
        self.notifications = self._counter_by(
            "backup_agent_notifications_total", "Notices to people, per receiver.", "result", Delivery
        )
        self.disk_free_bytes = self._gauge_by(
            "backup_agent_disk_free_bytes", "Space that the agent may still fill.", "dir", Folder
        )
        self.disk_low = self._gauge(
            "backup_agent_disk_low", "1 while the disk of the snapshots has no room for many more of them."
        )
        self.io_errors = self._counter_by("backup_agent_io_errors_total", "I/O errors.", "operation", Operation)
        self.config_last_reload_successful = self._gauge(
            "backup_agent_config_last_reload_successful", "1 if the last load of the config succeeded."
        )
        self.config_last_reload_success = self._gauge(
            "backup_agent_config_last_reload_success_timestamp_seconds", "When one last succeeded, Unix time."
        )
        self.log_lines_dropped = self._counter(
            "backup_agent_log_lines_dropped_total", "Log lines that the log stream did not take."
        )
        self._refresh_failures = self._counter(
            "backup_agent_refresh_failures_total", "Scrapes answered with older values."
        )
        self.http_failures = self._counter_by(
            "backup_agent_http_failures_total", "Clients left without their answer.", "reason", HttpFailure
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self._registry)

    def _counter_by(self, name: str, text: str, label: str, values: type[E]) -> CounterBy[E]:
        return CounterBy(Counter(name, text, [label], registry=self._registry), values)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

    def _gauge_by(self, name: str, text: str, label: str, values: type[E]) -> GaugeBy[E]:
        return GaugeBy(Gauge(name, text, [label], registry=self._registry), values)

    def _durations(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_DURATION_BUCKETS_S, registry=self._registry)

    def set_snapshots(self, counts: Mapping[Grade, int], stored_bytes: int) -> None:
        """Tell what is on disk; grades that `counts` leaves out become 0."""
        self._snapshots.set_all(counts)
        self._snapshot_bytes.set(stored_bytes)

    def set_files(self, counts: Mapping[Grade, int]) -> None:
        """Tell how many data files there are; grades that `counts` leaves out become 0."""
        self._files.set_all(counts)
        self._file_times.set_file_count(sum(counts.values()))

    def limit_file_labels(self, *, named: Iterable[str], others_max: int) -> None:
        """Let the `named` files have their own timestamps always, and of the others `others_max` that come first.

        Files that have theirs already keep them.
        """
        self._file_times.limit(named=named, others_max=others_max)

    def set_file_times(self, rel: str, last_good: float | None, last_snapshot: float | None) -> None:
        """Set the two timestamps of one data file, Unix time; None (never) is exported as 0, which an alert sees."""
        self._file_times.set(rel, last_good, last_snapshot)

    def forget_file(self, rel: str) -> None:
        """Remove the timestamps of one data file; a file without any is no error."""
        self._file_times.forget(rel)

    def count_check_failure(self, kind: str) -> None:
        """Count one problem; a kind that `ProblemKind` does not know counts as `other`."""
        self._check_failures.get(kind, self._check_failures[_OTHER]).inc()

    def count_heal(self, action: HealAction, result: HealResult) -> None:
        self._heals[action, result].inc()

    def count_bot_command(self, command: BotCommand, result: BotResult) -> None:
        self._bot_commands[command, result].inc()

    def on_scrape(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` right before each exposition, never twice at a time, from whichever thread exposes."""
        self._refreshes.append(refresh)

    def expose(self, *, openmetrics: bool = False) -> tuple[str, bytes]:
        """Return content type and text of all metrics, in the OpenMetrics or the older plain format.

        A refresh that raises, or that another scrape has not finished within a second, is counted, and the values
        of before are shown: old numbers tell more than none.
        """
        self._refresh_all()
        if openmetrics:
            return "application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics_text(self._registry)
        return "text/plain; version=0.0.4; charset=utf-8", plain_text(self._registry)

    def _refresh_all(self) -> None:
        if not self._refresh_lock.acquire(timeout=_REFRESH_WAIT_S):
            self._refresh_failures.inc()
            return
        try:
            for refresh in self._refreshes:
                try:
                    refresh()
                except Exception:  # whatever it is: it must cost neither the scrape nor the other refreshes
                    self._refresh_failures.inc()
        finally:
            self._refresh_lock.release()
