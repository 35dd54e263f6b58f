"""The daemon: watch, settle, hand due files to the pipeline, and the only place that waits.

One loop owns watcher, settler and rescan.  Looks run on a quick lane (one batch of small files at a time) and on slow
lanes (large files, heals), never two for one file.
"""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType

from agent.config import Config
from agent.core.errors import AgentError
from agent.core.model import Grade, Reason
from agent.core.pace import BackOff, Pace
from agent.core.settle import Due, Settler
from agent.disk import lease
from agent.disk.lock import DaemonLock
from agent.disk.watcher import Mode, Trouble, Watcher
from agent.gate import BATCH_FILES, Gate
from agent.healing import Healer
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.metrics.labels import Operation, Skip, WatchEvent
from agent.notify import READY, STOPPING, WATCHDOG, extend_timeout, notify, reloading, status, watchdog_interval_s
from agent.outcome import RETRIED, SOON, Ending, Outcome
from agent.pipeline import Pipeline
from agent.record import Recorder, error_fields
from agent.recover import Recovered, forget_vanished, mark_clean, recover
from agent.rescan import Findings, Rescan
from agent.scrape import Scrape
from agent.workspace import Clock, Workspace

_ROOT_LOOK_S = 1.0
_BUSY_AGAIN_S = 0.25
_PROBE_LIMIT_S = 2.0
_EXTEND_S = 30.0
_STUCK_S = 600.0  # a lane that works on one job for this long is hung: the watchdog may act
_EVENTS_SHARE = 0.0005  # of one core for rescans while events arrive
_POLLING_SHARE = 0.01  # of one core where rescans are all there is
_AUDIT_SHARE = 0.0003
_AUDIT_S = 30.0
_SKIPS = {"symlink": Skip.SYMLINK, "not_regular": Skip.NOT_REGULAR}


class Service:
    """Guards one data folder until it is told to stop."""

    def __init__(self, config: Config, reload: Callable[[], Config], metrics: Metrics, clock: Clock) -> None:
        self._config, self._reload, self._metrics, self._clock = config, reload, metrics, clock
        self._log = get_logger()
        self._recorder = Recorder(metrics)
        self._wake = threading.Event()
        self._stop_asked = self._reload_asked = False
        self._not_ready: str | None = "starting"
        self._settler = Settler(config.watch.debounce_s, config.watch.max_delay_s)
        self._backoff = BackOff()
        self._flying: dict[Future[list[Outcome]], tuple[tuple[Due, ...], float]] = {}
        self._quick: Future[list[Outcome]] | None = None
        self._root_up = True

    def readiness(self) -> str | None:
        """Return None while the agent is ready, else why not."""
        return self._not_ready

    # life

    def run(self) -> int:
        """Guard until a signal; return the exit code.

        Raises:
            AgentError: it cannot start; nothing was changed.
        """
        self._take_signals()
        if not self._await_data_dir():
            return 0
        ws = self._ws = Workspace.open(self._config, self._clock)
        lock = DaemonLock(self._config.state_dir)
        lock.take()
        try:
            with ThreadPoolExecutor(3, thread_name_prefix="lane") as self._lanes:
                self._start(ws)
                try:
                    self._loop()
                except Exception as error:  # whatever it was: what is pending is captured before the end
                    self._log.exception("service_failed", error=str(error))
                    self._shut_down()
                    return 1
                self._shut_down()
            return 0
        finally:
            ws.close()
            lock.release()

    def _take_signals(self) -> None:
        lease.ignore_break_signal()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if self._stop_asked:
            os._exit(128 + number)  # a second signal: now
        self._stop_asked = True
        self._wake.set()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True
        self._wake.set()

    def _await_data_dir(self) -> bool:
        """Wait until the data folder is there; False when told to stop before."""
        told = False
        while not os.path.isdir(self._config.data_dir):
            if not told:
                self._root_is_up(False)
                self._not_ready = f"waiting for {self._config.data_dir}"
                told = True
            notify(extend_timeout(_EXTEND_S), status(self._not_ready or ""))
            self._wake.wait(_ROOT_LOOK_S)
            if self._stop_asked:
                return False
        self._root_is_up(True)
        return True

    def _start(self, ws: Workspace) -> None:
        """Recover, listen, pass the gate, announce readiness."""
        lost = ws.catalog_was_lost
        self._tell_recovered(recover(ws), lost)
        self._pipeline = Pipeline(ws)
        self._healer = Healer(ws, self._pipeline)
        self._rescan = Rescan(ws)
        self._scrape = Scrape(ws, self._metrics, lambda: len(self._settler) + self._flying_count())
        config = ws.config
        self._watcher = Watcher(
            config.data_dir,
            is_data_file=lambda rel: self._config.is_data_file(rel),
            skip_folder=lambda rel: not self._config.may_hold_data_files(rel),
            wake=self._wake.set,
        )
        if config.watch.mode != "polling":
            self._watcher.start()
            os.makedirs(config.temp_dir, mode=0o700, exist_ok=True)
            self._watcher.probe(config.temp_dir, timeout_s=_PROBE_LIMIT_S)
        self._mode_told: str | None = None
        self._tell_watcher()
        self._not_ready = "checking the data files"
        self._gate()
        self._pace = Pace(config.watch.rescan_s, _EVENTS_SHARE)
        self._audit_pace = Pace(_AUDIT_S, _AUDIT_SHARE)
        now = self._clock.monotonic()
        self._next_rescan = now + config.watch.rescan_s
        self._next_audit = now + _AUDIT_S
        self._watchdog_s = watchdog_interval_s()
        self._not_ready = None
        self._metrics.ready.set(1)
        self._metrics.config_last_reload_successful.set(1)
        self._metrics.config_last_reload_success.set(self._clock.utc().timestamp())
        files = len(self._rescan)
        notify(READY, status(f"guarding {files} files in {config.data_dir}"))
        self._log.info("service_started", data_dir=config.data_dir, backup_dir=config.backup_dir, files=files)

    def _gate(self) -> None:
        began = self._clock.monotonic()
        told_at = began

        def tell(outcome: Outcome) -> None:
            nonlocal told_at
            self._learn(outcome)
            if (now := self._clock.monotonic()) - told_at > 1:
                told_at = now
                notify(extend_timeout(_EXTEND_S), status("checking the data files"))

        gate = Gate(self._ws, self._pipeline, self._healer, self._rescan, tell, self._pause)
        notify(extend_timeout(_EXTEND_S), status("checking the data files"))
        findings = gate.run()
        for rel, outcome in gate.last.items():
            self._wait_again(Due(rel, True, self._clock.monotonic()), outcome)
        self._note_walk(findings, self._clock.monotonic() - began)
        self._log.info(
            "gate_passed", files=findings.files, looked_at=len(findings.changed), left=len(gate.last),
            duration_s=round(self._clock.monotonic() - began, 3),
        )  # fmt: skip

    def _pause(self, seconds: float) -> None:
        notify(extend_timeout(_EXTEND_S + seconds))
        if not self._stop_asked:
            self._wake.clear()
            self._wake.wait(seconds)

    # the loop

    def _loop(self) -> None:
        while not self._stop_asked:
            self._wake.clear()
            self._take_hints()
            self._land()
            if self._reload_asked:
                self._reload_asked = False
                self._reload_config()
            now = self._clock.monotonic()
            if now >= self._next_rescan:
                self._walk()
            if now >= self._next_audit and self._quick is None:
                self._audit()
            self._dispatch()
            self._feed_watchdog()
            self._wake.wait(self._idle_s())

    def _idle_s(self) -> float:
        """How long nothing is to be done unless something wakes the loop."""
        times = [self._next_rescan, self._next_audit]
        due = self._settler.next_due()
        if due is not None and self._root_up:
            times.append(due if self._quick is None else self._clock.monotonic() + _STUCK_S)
        idle = min(times) - self._clock.monotonic()
        return max(0.0, min(idle, self._watchdog_s or idle))

    def _take_hints(self) -> None:
        hints = self._watcher.drain()
        now = self._clock.monotonic()
        for rel in hints.files:
            self._settler.note(rel, now)
        for kind, count in hints.events.items():
            self._metrics.watch_events.inc(WatchEvent(kind), count)
        if hints.folders or hints.rescan_wanted:
            for doubt in hints.doubts:
                self._log.debug("watch_doubted", doubt=str(doubt))
            self._next_rescan = min(self._next_rescan, now + self._pace.soon_s)

    def _dispatch(self) -> None:
        """Hand due files to the lanes."""
        if not self._root_up:
            return
        busy = {due.rel for dues, _ in self._flying.values() for due in dues}
        now = self._clock.monotonic()
        if self._quick is not None:
            return
        small: list[Due] = []
        for due in self._settler.due(now):
            if due.rel in busy or len(small) >= BATCH_FILES:
                self._settler.retry(due.rel, at=now + _BUSY_AGAIN_S, first_at=due.first_at)
            elif self._pipeline.is_heavy(due.rel):
                self._fly([due], lambda due=due: self._pipeline.run([due], Reason.CHANGE))  # type: ignore[misc]  # bound now
            else:
                small.append(due)
        if small:
            self._quick = self._fly(small, lambda: self._pipeline.run(small, Reason.CHANGE))

    def _fly(self, dues: Sequence[Due], job: Callable[[], list[Outcome]]) -> Future[list[Outcome]]:
        future = self._lanes.submit(job)
        self._flying[future] = (tuple(dues), self._clock.monotonic())
        future.add_done_callback(lambda _: self._wake.set())
        return future

    def _flying_count(self) -> int:
        return sum(len(dues) for dues, _ in list(self._flying.values()))

    def _land(self) -> None:
        """Take up what the lanes have done."""
        for future in [f for f in self._flying if f.done()]:
            dues, began = self._flying.pop(future)
            if future is self._quick:
                self._quick = None
            try:
                outcomes = future.result()
            except (OSError, sqlite3.Error, AgentError) as error:
                self._job_failed(dues, error)
                continue
            took = self._clock.monotonic() - began
            by_rel = {due.rel: due for due in dues}
            for outcome in outcomes:
                self._learn(outcome)
                if outcome.ending is Ending.PUBLISHED:
                    self._metrics.protect_duration.observe(took)
                self._wait_again(by_rel[outcome.rel], outcome)
            hurt = [o.rel for o in outcomes if o.ending is Ending.DAMAGED]
            if hurt:
                again = [by_rel[rel] for rel in hurt]
                self._fly(again, lambda hurt=hurt: self._healer.heal(hurt, at_gate=False))  # type: ignore[misc]  # bound now

    def _learn(self, outcome: Outcome) -> None:
        self._recorder.record(outcome)
        if outcome.state is not None:
            self._rescan.learn(outcome.state)
        if outcome.ending is Ending.LEFT and outcome.grade is Grade.MISSING:
            self._rescan.forget(outcome.rel)  # told; when it comes back, it is new

    def _wait_again(self, due: Due, outcome: Outcome) -> None:
        """Put a file that is not settled yet back into the settler."""
        now = self._clock.monotonic()
        if outcome.ending in RETRIED:
            self._settler.retry(due.rel, at=now + self._backoff.next_s(due.rel), first_at=None)
            return
        self._backoff.reset(due.rel)
        if outcome.ending in SOON:
            grace = self._config.recovery.missing_grace_s if outcome.grade is Grade.MISSING else 0.0
            pause = max(self._config.watch.debounce_s, grace)
            self._settler.retry(due.rel, at=now + pause, first_at=due.first_at)

    def _job_failed(self, dues: Sequence[Due], error: Exception) -> None:
        """A whole batch could not be worked on: nothing was published, all of it is tried again."""
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not os.path.isdir(self._config.data_dir):
            self._root_is_up(False)
        elif isinstance(error, sqlite3.Error):
            self._metrics.io_errors.inc(Operation.CATALOG)
            self._log.error("catalog_failed", error=str(error), hint="it is rebuilt from the files if it is damaged")
            if not isinstance(error, sqlite3.OperationalError):
                self._rebuild_catalog()
        else:
            self._metrics.io_errors.inc(Operation.PUBLISH)
            self._log.error("pipeline_failed", files=len(dues), **error_fields(error))
        now = self._clock.monotonic()
        for due in dues:
            self._settler.retry(due.rel, at=now + self._backoff.next_s(due.rel), first_at=None)

    def _rebuild_catalog(self) -> None:
        """The catalog is damaged: begin a new one from files and journal."""
        for future in list(self._flying):
            future.exception(timeout=_STUCK_S)
        self._ws.reopen_catalog()
        lost = self._ws.catalog_was_lost
        self._tell_recovered(recover(self._ws), lost)

    # rescans

    def _walk(self) -> None:
        """Find what no event told."""
        began = self._clock.monotonic()
        changed = self._watcher.restart_if_needed() if self._config.watch.mode != "polling" else False
        self._tell_watcher()
        try:
            findings = self._rescan.walk()
        except (FileNotFoundError, NotADirectoryError):
            self._root_is_up(False)
            self._next_rescan = began + _ROOT_LOOK_S
            return
        except OSError as error:
            self._metrics.io_errors.inc(Operation.RESCAN)
            self._log.error("rescan_failed", **error_fields(error))
            self._next_rescan = began + self._config.watch.rescan_s
            return
        if not self._root_up or changed:
            self._root_is_up(True)
        for rel in (*findings.changed, *findings.missing):
            self._settler.note(rel, began)
        for late in self._healer.recheck_displaced():
            self._recorder.record(late)
        self._note_walk(findings, self._clock.monotonic() - began)
        polling = self._config.watch.mode == "polling" or self._watcher.health().mode is Mode.POLLING
        self._pace.adjust(self._config.watch.rescan_s, _POLLING_SHARE if polling else _EVENTS_SHARE)
        self._next_rescan = self._clock.monotonic() + self._pace.after(self._clock.monotonic() - began)

    def _note_walk(self, findings: Findings, took_s: float) -> None:
        self._metrics.rescan_duration.set(took_s)
        self._metrics.rescan_last_success.set(self._clock.utc().timestamp())
        self._scrape.walked_at = self._clock.utc()
        for entry in findings.skipped:
            if not entry.hides_files:
                self._recorder.skip(entry.rel, _SKIPS.get(entry.reason.value, Skip.OTHER))
            else:
                self._metrics.io_errors.inc(Operation.RESCAN)
                self._log.warning("rescan_hindered", file=entry.rel, reason=entry.reason.value, error=str(entry.error))

    def _root_is_up(self, up: bool) -> None:
        if up and not self._root_up:
            self._log.warning("data_dir_back", data_dir=self._config.data_dir)
        elif not up and self._root_up:
            self._log.error(
                "data_dir_missing", data_dir=self._config.data_dir,
                hint="nothing is restored until it is back; check the mount",
            )  # fmt: skip
        self._root_up = up
        self._metrics.data_dir_up.set(int(up))

    def _tell_watcher(self) -> None:
        health = self._watcher.health()
        polling = self._config.watch.mode == "polling"
        self._metrics.watcher_up.set(int(health.alive and health.mode is Mode.EVENTS and not polling))
        self._scrape.overflow_count = health.overflow_count
        now = f"{health.mode}/{health.reason}"
        if now == self._mode_told or polling:
            return
        self._mode_told = now
        if health.reason is None:
            self._log.info("watch_started", mode=str(health.mode), folders=health.watched_folders)
        elif health.reason is not Trouble.ROOT_MISSING:
            self._log.warning("watch_hindered", mode=str(health.mode), reason=str(health.reason), detail=health.detail)

    def _audit(self) -> None:
        """Compare catalog and backup folder, a little at a time of one core: others may delete there."""
        began = self._clock.monotonic()
        self._next_audit = began + _AUDIT_S
        gone = forget_vanished(self._ws)
        if gone:
            self._metrics.snapshots_vanished.inc(len(gone))
            rels = sorted({s.rel for s in gone})
            self._log.error(
                "snapshots_vanished", count=len(gone), files=rels[:5], newest=max(gone, key=lambda s: s.taken_at).name,
                hint="something else deletes in the backup folder; give the agent a backup_dir of its own",
            )  # fmt: skip
            now = self._clock.monotonic()
            for rel in rels:
                self._settler.note(rel, now)
        took = self._clock.monotonic() - began
        self._next_audit = self._clock.monotonic() + self._audit_pace.after(took)

    def _tell_recovered(self, done: Recovered, lost: str | None) -> None:
        if lost not in (None, "missing"):
            self._log.warning("catalog_rebuilt", set_aside=lost, snapshots=len(done.adopted))
        elif done.adopted:
            grades = {str(g): sum(s.grade is g for s in done.adopted) for g in {s.grade for s in done.adopted}}
            self._log.info("snapshots_adopted", count=len(done.adopted), grades=grades)
        if done.vanished:
            self._metrics.snapshots_vanished.inc(len(done.vanished))
            self._log.error("snapshots_vanished", count=len(done.vanished), files=[s.name for s in done.vanished[:5]])
        if done.kept or done.swept:
            self._log.warning("leftovers_swept", deleted=len(done.swept), kept=done.kept)

    # reload, watchdog, shutdown

    def _reload_config(self) -> None:
        notify(reloading())
        try:
            config = self._reload()
        except AgentError as error:
            self._metrics.config_last_reload_successful.set(0)
            self._log.error("config_reload_failed", problems=str(error).splitlines(), hint="the old config stays")
            notify(READY)
            return
        moved = [
            k
            for k in ("data_dir", "backup_dir", "temp_dir", "state_dir")
            if getattr(config, k) != getattr(self._config, k)
        ]
        if moved:
            self._metrics.config_last_reload_successful.set(0)
            self._log.error(
                "config_reload_failed", problems=[f"{k} cannot change while running" for k in moved], hint="restart"
            )
            notify(READY)
            return
        self._config = config
        self._ws.adopt_config(config)
        self._settler.adjust(debounce_s=config.watch.debounce_s, max_delay_s=config.watch.max_delay_s)
        self._scrape.limit_labels()
        self._rescan.recheck(list(self._schemas_changed(config)))
        self._next_rescan = self._clock.monotonic()
        self._metrics.config_last_reload_successful.set(1)
        self._metrics.config_last_reload_success.set(self._clock.utc().timestamp())
        self._log.info("config_reloaded")
        notify(READY, status(f"guarding {len(self._rescan)} files in {config.data_dir}"))

    def _schemas_changed(self, config: Config) -> Sequence[str]:
        """A new config may judge a file in another way: all are looked at again."""
        del config
        return [state.rel for state in self._ws.catalog.files()]

    def _feed_watchdog(self) -> None:
        now = self._clock.monotonic()
        if all(now - began < _STUCK_S for _, began in self._flying.values()):
            notify(WATCHDOG)

    def _shut_down(self) -> None:
        """Capture what is pending, within the time there is."""
        notify(STOPPING, status("taking the last snapshots"))
        self._not_ready = "stopping"
        self._metrics.ready.set(0)
        limit_s = self._config.shutdown_timeout_s
        ended = threading.Event()
        last = threading.Thread(target=self._flush, args=(ended,), name="flush", daemon=True)
        last.start()
        if not ended.wait(limit_s):
            self._log.error("shutdown_cut_short", pending=len(self._settler), limit_s=limit_s)
            os._exit(1)
        self._log.info("service_stopped")

    def _flush(self, ended: threading.Event) -> None:
        try:
            self._watcher.stop()
            for future in list(self._flying):
                future.exception()
            self._land()
            findings = self._rescan.walk()
            now = self._clock.monotonic()
            rels = dict.fromkeys([*(d.rel for d in self._settler.drain()), *findings.changed])
            dues = [Due(rel, True, now) for rel in rels]
            for start in range(0, len(dues), BATCH_FILES):
                for outcome in self._pipeline.run(dues[start : start + BATCH_FILES], Reason.SHUTDOWN):
                    self._recorder.record(outcome)
            mark_clean(self._ws)
        except (OSError, sqlite3.Error, AgentError) as error:
            self._log.error("shutdown_flush_failed", **error_fields(error))
        finally:
            ended.set()
