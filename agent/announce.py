"""Tell log and metrics what happened to the folder as a whole; single files are told by `record.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.bot import BotCommandError
from agent.causes import error_fields, skip_of
from agent.core.labels import Deletion, Operation
from agent.core.model import Snapshot
from agent.core.naming import display
from agent.core.notice import Notice, NoticeKind
from agent.core.room import Room
from agent.disk.pause import Pause
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.notify import READY, notify, status
from agent.record import Recorder

if TYPE_CHECKING:  # the service loads them once it has its lock
    from agent.disk.watcher import WatcherHealth
    from agent.pack import Packed
    from agent.recover import Recovered
    from agent.rescan import Findings
    from agent.verify_report import Report

_NAMES_SHOWN = 5
_UNPACKABLE_HINT = "it stays as it is; `backup-agent verify` tells what is rotten"


class Announcer:
    """Says a thing once when it begins and once when it ends."""

    def __init__(self, metrics: Metrics, recorder: Recorder, data_dir: str) -> None:
        self._metrics, self._recorder, self._data_dir = metrics, recorder, data_dir
        self._log = get_logger()
        self._root_up = True
        self._watch_told = ""
        self._pause: Pause | None = None
        self._hindrances: set[tuple[str, str]] = set()

    def started(self, files: int, *, at: float) -> None:
        """The gate is passed, `at` (Unix time)."""
        self._metrics.ready.set(1)
        self._config_in_effect(at)
        self._log.info("service_started", data_dir=self._data_dir, files=files)
        if not files:
            self._log.warning(
                "service_without_files", data_dir=self._data_dir,
                hint="no data file is there yet; if the bot keeps its data elsewhere: `backup-agent run DATA_DIR`",
            )  # fmt: skip
        self.ready(files)

    def ready(self, files: int) -> None:
        """The service manager knows that starting, or reloading, is over."""
        notify(READY, status(f"guarding {files} files in {self._data_dir}"))

    def root(self, *, up: bool) -> None:
        """The data folder is there, or it is not."""
        if up and not self._root_up:
            self._log.warning("data_dir_back", data_dir=self._data_dir)
        elif not up and self._root_up:
            self._log.error(
                "data_dir_missing",
                data_dir=self._data_dir,
                hint="nothing is restored until it is back: check the mount, or make the folder",
            )
            told = f"the data folder {display(self._data_dir)} is not there; nothing is restored until it is back"
            self._recorder.notify(Notice(NoticeKind.DAMAGED, told, hint="check the mount, or make the folder"))
        self._root_up = up
        self._metrics.data_dir_up.set(int(up))

    def watcher(self, health: "WatcherHealth", *, polls_by_config: bool) -> None:
        """How changes are noticed, when that has changed."""
        from agent.disk.watcher import Mode, Trouble

        self._metrics.watcher_up.set(int(health.alive and health.mode is Mode.EVENTS and not polls_by_config))
        now = "polling" if polls_by_config else f"{health.mode} {health.reason}"
        if now == self._watch_told:
            return
        self._watch_told = now
        if health.reason is None or polls_by_config:
            mode = Mode.POLLING if polls_by_config else health.mode
            self._log.info("watch_started", mode=str(mode), folders=health.watched_folders)
        elif health.reason is not Trouble.ROOT_MISSING:
            self._log.warning("watch_hindered", mode=str(health.mode), reason=str(health.reason), detail=health.detail)

    def paused(self, pause: Pause | None) -> None:
        """Nothing is healed, or it is again."""
        before, self._pause = self._pause, pause
        if pause is not None and pause != before:
            until = pause.ends_at.isoformat(timespec="seconds")
            self._log.warning("healing_paused", until=until, hint="`backup-agent resume` ends it early")
        if before is not None and pause is None:
            self._log.info("healing_resumed")

    def bot_down(self, error: BotCommandError) -> None:
        """The bot was stopped for a heal and could not be started again."""
        self._log.error("bot_start_failed", error=str(error), hint=error.hint)
        told = f"the bot may be down: {error}; it is tried again by itself"
        self._recorder.notify(Notice(NoticeKind.BOT_DOWN, told, hint=error.hint))

    def space(self, room: Room, is_low: bool) -> None:  # the one thing that is told
        """The disk of the snapshots is low, or not any more."""
        self._metrics.disk_low.set(int(is_low))
        numbers = {"free_bytes": room.free_bytes, "low_bytes": room.low_bytes, "once_bytes": room.once_bytes}
        if not is_low:
            self._log.info("disk_low_ended", **numbers)
            return
        hint = "free space on that disk, or set backup_dir to another one; `backup-agent prune` shows what is kept"
        self._log.warning("disk_low", **numbers, reserve_bytes=room.reserve_bytes or None, hint=hint)
        reserve = f", {room.reserve_bytes:,} of them are to stay free" if room.reserve_bytes else ""
        told = f"the disk of the snapshots is low: {room.free_bytes:,} bytes are free{reserve}"
        self._recorder.notify(Notice(NoticeKind.DISK_LOW, told, hint=hint))

    def walk(self, findings: "Findings", *, took_s: float, at: float) -> None:
        """A whole walk ended `at` (Unix time)."""
        self._metrics.rescan_duration.set(took_s)
        self._metrics.rescan_last_success.set(at)
        told, self._hindrances = self._hindrances, set()
        for entry in findings.skipped:
            if not entry.hides_files:
                self._recorder.skip(entry.rel, skip_of(entry.reason.value))
                continue
            self._metrics.io_errors.inc(Operation.RESCAN)
            hindrance = (entry.rel, entry.reason.value)
            say = self._log.debug if hindrance in told else self._log.warning
            say("rescan_hindered", file=entry.rel, reason=entry.reason.value, **error_fields(entry.error))
            self._hindrances.add(hindrance)

    def recovered(self, done: "Recovered", lost_catalog: str | None) -> None:
        """What a start, or a rebuild, found and did."""
        if lost_catalog not in (None, "missing"):
            self._log.warning("catalog_rebuilt", set_aside=lost_catalog, snapshots=len(done.adopted))
        elif done.adopted:
            grades = {str(g): sum(s.grade is g for s in done.adopted) for g in {s.grade for s in done.adopted}}
            self._log.info("snapshots_adopted", count=len(done.adopted), grades=grades)
        if done.vanished:
            self.vanished(done.vanished)
        for name, error in done.failures:
            self._metrics.io_errors.inc(Operation.CATALOG)
            self._log.error("recovery_passed_over", name=name, **error_fields(error))
        if done.kept or done.swept:
            self._log.warning("leftovers_swept", deleted=len(done.swept), kept=done.kept)

    def vanished(self, gone: Sequence[Snapshot]) -> None:
        """Someone else deletes in the backup folder."""
        self._metrics.snapshots_vanished.inc(len(gone))
        files = sorted({s.rel for s in gone})
        self._log.error(
            "snapshots_vanished",
            count=len(gone),
            files=files[:_NAMES_SHOWN],
            newest=max(gone, key=lambda s: s.taken_at).name,
            hint="something else deletes in the backup folder: give the agent a backup_dir of its own",
        )

    def left_pending(self, files: Sequence[str]) -> None:
        """At the end these were being written, or not to be had: their last change has no snapshot."""
        self._log.warning(
            "changes_left_pending", count=len(files), files=sorted(files)[:_NAMES_SHOWN],
            hint="they are looked at with the next start",
        )  # fmt: skip

    def journal_left_long(self, error: Exception) -> None:
        """The journal could not be made short: it is as it was, and will be tried again.  Called from a lane."""
        self._metrics.io_errors.inc(Operation.CATALOG)
        self._log.error("journal_not_shortened", data_dir=self._data_dir, **error_fields(error))

    def departed(self, rel: str, count: int) -> None:
        """Snapshots of a file that is gone went after their time; called from a lane."""
        self._metrics.snapshots_deleted.inc(Deletion.RETENTION, count)
        self._log.info("departed_rotated", file=rel, rotated_count=count)

    def rotation_failed(self, error: Exception) -> None:
        """Snapshots of files that are gone could not be deleted; called from a lane."""
        self._metrics.io_errors.inc(Operation.ROTATE)
        self._log.error("rotation_failed", **error_fields(error))

    def packed(self, done: "Packed") -> None:
        """Old snapshots of a file were packed, or could not be; called from a lane."""
        if done.count or done.references:
            self._metrics.snapshots_packed.inc(done.count)
            self._log.info(
                "snapshots_packed", file=done.rel, count=done.count, references=done.references,
                freed_bytes=done.freed_bytes,
            )  # fmt: skip
        for name, error in done.failures:
            self._metrics.io_errors.inc(Operation.PACK)
            self._log.error("snapshot_unpackable", snapshot=name, error=str(error), hint=_UNPACKABLE_HINT)

    def verified(self, report: "Report", took_s: float) -> None:
        """Everything was read back; called from a lane."""
        numbers = {
            "files": report.file_count, "snapshots": report.snapshot_count,
            "drilled": report.drilled_count if report.drill else None, "duration_s": round(took_s, 1),
        }  # fmt: skip
        failures = report.failures
        if not failures:
            self._log.info("verify_passed", **numbers)
            return
        hint = "`backup-agent verify` tells all of it; `backup-agent list FILE` what there is to restore from"
        told = [str(failure) for failure in failures[:_NAMES_SHOWN]]
        self._log.error("verify_failed", failures=len(failures), findings=told, **numbers, hint=hint)
        more = len(failures) - len(told)
        what = f"reading everything back found: {'; '.join(told)}{f'; and {more} more' if more else ''}"
        self._recorder.notify(Notice(NoticeKind.DRILL_FAILED, what, hint=hint))

    def reloaded(self, problems: Sequence[str], *, at: float, config: str | None = None) -> None:
        """The config of the file `config` is in effect since `at` (Unix time), or a new one is not and why."""
        if problems:
            self._metrics.config_last_reload_successful.set(0)
            self._log.error("config_reload_failed", problems=list(problems), hint="the old config stays in effect")
        else:
            self._config_in_effect(at)
            self._log.info("config_reloaded", config=config or "no config file: all is default")

    def _config_in_effect(self, at: float) -> None:
        self._metrics.config_last_reload_successful.set(1)
        self._metrics.config_last_reload_success.set(at)
