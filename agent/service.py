"""The daemon: watch, settle, hand due files to the pipeline; the only place that waits.

One loop owns watcher, settler and rescan and asks the lanes to look and to heal.  `Service.run` is the life of the
daemon, `Service._loop` its every day.
"""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from types import FrameType

from agent.announce import Announcer
from agent.bot import start_if_left_stopped
from agent.config import Config
from agent.core.errors import AgentError, LockHeldError
from agent.core.model import Grade, Reason
from agent.core.pace import BackOff, Pace
from agent.core.settle import Due, Settler
from agent.disk import lease
from agent.disk.lock import DaemonLock
from agent.disk.watcher import Mode, Watcher
from agent.gate import BATCH_FILES, Gate
from agent.healing import Healer
from agent.lanes import Job, Lanes
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.metrics.labels import Operation, WatchEvent
from agent.notify import STOPPING, WATCHDOG, extend_timeout, notify, reloading, status, watchdog_interval_s
from agent.outcome import RETRIED, SOON, Ending, Outcome
from agent.pipeline import Pipeline
from agent.record import Recorder, error_fields
from agent.recover import forget_vanished, mark_clean, recover
from agent.rescan import Findings, Rescan
from agent.scrape import Scrape
from agent.workspace import Clock, Workspace

_ROOT_LOOK_S = 1.0
_LOCK_WAIT_S = 10.0
_PROBE_LIMIT_S = 2.0
_EXTEND_S = 30.0
_COALESCE_S = 0.02  # events of one write come together
_STUCK_S = 600.0  # a job that runs for this long is hung: the watchdog may act
_EVENTS_SHARE = 0.0005  # of one core, for rescans while events arrive
_POLLING_SHARE = 0.01  # of one core, where rescans are all there is
_AUDIT_SHARE = 0.0003
_AUDIT_S = 30.0
_FAILURES = (OSError, sqlite3.Error, AgentError)
_FIXED_KEYS = ("data_dir", "backup_dir", "temp_dir", "state_dir")


class Service:
    """Guards one data folder until it is told to stop."""

    def __init__(self, config: Config, reload: Callable[[], Config], metrics: Metrics, clock: Clock) -> None:
        self._config, self._reload, self._metrics, self._clock = config, reload, metrics, clock
        self._log = get_logger()
        self._recorder = Recorder(metrics)
        self._announce = Announcer(metrics, self._recorder, config.data_dir)
        self._wake = threading.Event()
        self._stop_asked = self._reload_asked = False
        self._root_up = True
        self._not_ready: str | None = "starting"
        self._settler = Settler(config.watch.debounce_s, config.watch.max_delay_s)
        self._backoff = BackOff()

    def readiness(self) -> str | None:
        """Return None while the agent is ready, else why not."""
        return self._not_ready

    # life

    def run(self) -> int:
        """Guard until a signal; return the exit code.

        Raises:
            AgentError: it cannot start; nothing was changed.
        """
        lease.ignore_break_signal()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        if not self._await_data_dir() or not self._open():
            return 0
        try:
            self._start()
            self._loop()
            return self._shut_down()
        except Exception as error:  # whatever it was: what is pending is captured before the end
            self._log.exception("service_failed", error=str(error))
            self._shut_down()
            return 1
        finally:
            self._ws.close()
            self._lock.release()

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
        while not os.path.isdir(self._config.data_dir):
            self._announce.root(up=False)
            self._pause(_ROOT_LOOK_S, f"waiting for {self._config.data_dir}")
            if self._stop_asked:
                return False
        self._announce.root(up=True)
        return True

    def _open(self) -> bool:
        """Open workspace and lock, trying until it can be; False when told to stop before.

        Raises:
            AgentError: another agent works here, or the folder is of a newer format.
        """
        patience = self._clock.monotonic() + _LOCK_WAIT_S
        while not self._stop_asked:
            try:
                self._ws = Workspace.open(self._config, self._clock)
                self._lock = DaemonLock(self._config.state_dir)
                self._lock.take()
                return True
            except LockHeldError:
                if self._clock.monotonic() > patience:  # a command may hold it for a moment
                    raise
                self._pause(0.1, "waiting for the lock")
            except (OSError, sqlite3.Error) as error:
                self._log.error("workspace_unavailable", backup_dir=self._config.backup_dir, **error_fields(error))
                self._pause(self._backoff.next_s(""), "waiting for the backup folder")
        return False

    def _pause(self, seconds: float, why: str) -> None:
        """Wait, but not for a stop, and ask the service manager for patience."""
        self._not_ready = why
        notify(extend_timeout(_EXTEND_S + seconds), status(why))
        if not self._stop_asked:
            self._wake.clear()
            self._wake.wait(seconds)

    def _start(self) -> None:
        """Recover, listen, pass the gate, announce readiness."""
        ws, config = self._ws, self._config
        self._lanes = Lanes(self._wake.set)
        self._pipeline = Pipeline(ws)
        self._healer = Healer(ws, self._pipeline)
        self._pace = Pace(config.watch.rescan_s, _EVENTS_SHARE)
        self._audit_pace = Pace(_AUDIT_S, _AUDIT_SHARE)
        self._watchdog_s = watchdog_interval_s()
        self._watcher = Watcher(
            config.data_dir,
            is_data_file=lambda rel: self._config.is_data_file(rel),  # noqa: PLW0108  # a reload changes the config
            skip_folder=lambda rel: not self._config.may_hold_data_files(rel),
            wake=self._wake.set,
        )
        self._recover()
        self._scrape = Scrape(ws, self._metrics, lambda: len(self._settler) + self._lanes.file_count())
        self._listen()
        self._pass_gate()
        now = self._clock.monotonic()
        self._next_rescan, self._next_audit = now + config.watch.rescan_s, now + _AUDIT_S
        if not self._stop_asked:
            self._not_ready = None
            self._announce.started(len(self._rescan), at=self._clock.utc().timestamp())
        if (failed := start_if_left_stopped(config.bot, config.state_dir)) is not None:
            self._log.error("bot_start_failed", error=str(failed), hint=failed.hint)

    def _recover(self) -> None:
        """Finish what a crash cut short; the catalog agrees with the folder."""
        while not self._stop_asked:
            lost = self._ws.catalog_was_lost
            try:
                self._announce.recovered(recover(self._ws), lost)
                break
            except (OSError, sqlite3.Error) as error:
                self._log.error("recovery_failed", **error_fields(error))
                self._pause(self._backoff.next_s(""), "waiting for the backup folder")
        self._rescan = Rescan(self._ws)

    def _listen(self) -> None:
        if not self._polls_by_config:
            self._watcher.start()
            try:
                os.makedirs(self._config.temp_dir, mode=0o700, exist_ok=True)
                self._watcher.probe(self._config.temp_dir, timeout_s=_PROBE_LIMIT_S)
            except OSError as error:
                self._log.warning("watch_unproved", temp_dir=self._config.temp_dir, **error_fields(error))
        self._announce.watcher(self._watcher.health(), polls_by_config=self._polls_by_config)

    @property
    def _polls_by_config(self) -> bool:
        return self._config.watch.mode == "polling"

    def _pass_gate(self) -> None:
        """Every file is looked at and healed, or waits to be; errors are waited out."""
        began = told_at = self._clock.monotonic()

        def tell(outcome: Outcome) -> None:
            nonlocal told_at
            self._learn(outcome)
            if (now := self._clock.monotonic()) - told_at > 1:
                told_at = now
                notify(extend_timeout(_EXTEND_S), status("checking the data files"))

        why = "checking the data files"
        self._pause(0, why)

        def pause(seconds: float) -> None:
            self._pause(seconds, why)

        while not self._stop_asked:
            gate = Gate(self._ws, self._pipeline, self._healer, self._rescan, tell, pause, lambda: self._stop_asked)
            try:
                findings = gate.run()
            except (OSError, sqlite3.Error) as error:
                self._log.error("gate_failed", **error_fields(error))
                pause(self._backoff.next_s(""))
                continue
            now = self._clock.monotonic()
            for rel, outcome in gate.last.items():
                self._wait_again(Due(rel, True, now), outcome)
            self._told_walk(findings, now - began)
            self._log.info(
                "gate_passed", files=findings.files, looked_at=len(findings.changed), left=len(gate.last),
                duration_s=round(now - began, 3),
            )  # fmt: skip
            return

    # every day

    def _loop(self) -> None:
        while not self._stop_asked:
            self._wake.clear()
            self._take_hints()
            self._land(self._lanes.landed())
            if self._reload_asked:
                self._reload_asked = False
                self._reload_config()
            now = self._clock.monotonic()
            if now >= self._next_rescan:
                self._walk()
            if now >= self._next_audit and self._root_up:
                self._audit()
            self._dispatch()
            oldest = self._lanes.oldest_began()
            if oldest is None or self._clock.monotonic() - oldest < _STUCK_S:
                notify(WATCHDOG)
            if self._wake.wait(self._idle_s()) and not self._stop_asked:
                threading.Event().wait(_COALESCE_S)

    def _idle_s(self) -> float:
        """How long nothing is to be done unless something wakes the loop."""
        times = [self._next_rescan, self._next_audit]
        due = self._settler.next_due()
        if due is not None and self._root_up and self._lanes.quick_is_free:
            times.append(due)
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
            self._next_rescan = min(self._next_rescan, now + self._pace.soon_s)

    def _dispatch(self) -> None:
        """Hand due files to the lanes."""
        if not self._root_up or not self._lanes.quick_is_free:
            return
        now = self._clock.monotonic()
        busy = self._lanes.files()
        small: list[Due] = []
        for due in self._settler.due(now, limit=BATCH_FILES):
            if due.rel in busy:
                self._settler.retry(due.rel, at=now + _COALESCE_S, first_at=due.first_at)
            elif self._pipeline.is_heavy(due.rel):
                self._look([due], quick=False)
            else:
                small.append(due)
        if small:
            self._look(small, quick=True)

    def _look(self, dues: Sequence[Due], *, quick: bool) -> None:
        work = lambda: self._pipeline.run(dues, Reason.CHANGE)  # noqa: E731  # the job of a lane
        self._lanes.fly(dues, work, now=self._clock.monotonic(), quick=quick)

    def _heal(self, dues: Sequence[Due]) -> None:
        work = lambda: self._healer.heal([due.rel for due in dues], at_gate=False)  # noqa: E731  # the job of a lane
        self._lanes.fly(dues, work, now=self._clock.monotonic(), heal=True)

    def _land(self, jobs: Iterable[Job]) -> None:
        """Take up what the lanes have done."""
        for job in jobs:
            try:
                outcomes = job.future.result()
            except _FAILURES as error:
                self._job_failed(job, error)
                continue
            took_s = self._clock.monotonic() - job.began
            by_rel = {due.rel: due for due in job.dues}
            for outcome in outcomes:
                self._learn(outcome)
                if outcome.ending is Ending.PUBLISHED:
                    self._metrics.protect_duration.observe(took_s)
                self._wait_again(by_rel[outcome.rel], outcome)
            hurt = [by_rel[o.rel] for o in outcomes if o.ending is Ending.DAMAGED]
            if hurt and not self._stop_asked:
                self._heal(hurt)

    def _learn(self, outcome: Outcome) -> None:
        self._recorder.record(outcome)
        if outcome.ending is Ending.LEFT and outcome.grade is Grade.MISSING:
            self._rescan.forget(outcome.rel)  # told; when it comes back, it is new
        elif outcome.state is not None:
            self._rescan.learn(outcome.state)

    def _wait_again(self, due: Due, outcome: Outcome) -> None:
        """Put a file that is not settled yet back into the settler."""
        now = self._clock.monotonic()
        if outcome.ending in RETRIED:
            self._settler.retry(due.rel, at=now + self._backoff.next_s(due.rel), first_at=None)
            return
        self._backoff.reset(due.rel)
        if outcome.ending in SOON:
            grace_s = self._config.recovery.missing_grace_s if outcome.grade is Grade.MISSING else 0.0
            self._settler.retry(due.rel, at=now + max(self._config.watch.debounce_s, grace_s), first_at=due.first_at)

    def _job_failed(self, job: Job, error: Exception) -> None:
        """A whole batch could not be worked on: all of it is tried again."""
        if not os.path.isdir(self._config.data_dir):
            self._set_root(up=False)
        elif isinstance(error, sqlite3.Error):
            self._metrics.io_errors.inc(Operation.CATALOG)
            self._log.error("catalog_failed", **error_fields(error))
            if not isinstance(error, sqlite3.OperationalError):
                self._reopen()
        else:
            self._metrics.io_errors.inc(Operation.PUBLISH)
            self._log.error("pipeline_failed", files=len(job.dues), **error_fields(error))
        now = self._clock.monotonic()
        for due in job.dues:
            self._settler.retry(due.rel, at=now + self._backoff.next_s(due.rel), first_at=None)

    def _reopen(self) -> None:
        """The catalog is damaged, or its folder was replaced: begin anew from files and journal."""
        self._land(list(self._lanes.finish()))
        self._ws.reopen_catalog()
        self._lock.release()
        self._lock = DaemonLock(self._config.state_dir)
        self._lock.take()
        self._recover()
        self._next_rescan = self._clock.monotonic()

    # rescans

    def _walk(self) -> None:
        """Find what no event told."""
        began = self._clock.monotonic()
        if not self._polls_by_config:
            self._watcher.restart_if_needed()
        health = self._watcher.health()
        self._announce.watcher(health, polls_by_config=self._polls_by_config)
        try:
            findings = self._rescan.walk()
            if self._ws.was_replaced():
                self._log.error("backup_dir_replaced", backup_dir=self._config.backup_dir)
                self._reopen()
        except (FileNotFoundError, NotADirectoryError):
            self._set_root(up=False)
            self._next_rescan = began + _ROOT_LOOK_S
            return
        except _FAILURES as error:
            self._metrics.io_errors.inc(Operation.RESCAN)
            self._log.error("rescan_failed", **error_fields(error))
            self._next_rescan = began + self._backoff.next_s("")
            return
        self._backoff.reset("")
        self._set_root(up=True)
        for rel in (*findings.changed, *findings.missing):
            self._settler.note(rel, began)
        for late in self._healer.recheck_displaced():
            self._recorder.record(late)
        took_s = self._clock.monotonic() - began
        self._told_walk(findings, took_s)
        watch = self._config.watch
        if self._polls_by_config or health.mode is Mode.POLLING:
            self._pace.adjust(min(watch.rescan_s, max(1.0, watch.debounce_s)), _POLLING_SHARE)
        else:
            self._pace.adjust(watch.rescan_s, _EVENTS_SHARE)
        self._next_rescan = began + self._pace.after(took_s)

    def _told_walk(self, findings: Findings, took_s: float) -> None:
        now = self._clock.utc()
        self._announce.walk(findings, took_s=took_s, at=now.timestamp())
        self._scrape.walked_at = now
        self._scrape.overflow_count = self._watcher.health().overflow_count

    def _set_root(self, *, up: bool) -> None:
        self._root_up = up
        self._announce.root(up=up)

    def _audit(self) -> None:
        """Compare catalog and backup folder: others may delete there.  A file whose copies went is looked at again."""
        began = self._clock.monotonic()
        try:
            gone = forget_vanished(self._ws)
        except _FAILURES as error:
            self._metrics.io_errors.inc(Operation.CATALOG)
            self._log.error("audit_failed", **error_fields(error))
            gone = []
        if gone:
            self._announce.vanished(gone)
            for rel in {s.rel for s in gone}:
                self._settler.note(rel, began)
        self._next_audit = began + self._audit_pace.after(self._clock.monotonic() - began)

    # reload, shutdown

    def _reload_config(self) -> None:
        notify(reloading())
        try:
            config = self._reload()
            fixed = [key for key in _FIXED_KEYS if getattr(config, key) != getattr(self._config, key)]
            problems = [f"{key} cannot change while running: restart" for key in fixed]
        except AgentError as error:
            problems = str(error).splitlines()
        if not problems:
            old, self._config = self._config, config
            self._ws.adopt_config(config)
            self._settler.adjust(debounce_s=config.watch.debounce_s, max_delay_s=config.watch.max_delay_s)
            self._scrape.limit_labels()
            self._rescan.recheck(rel for rel in self._rescan.files() if old.rule_for(rel) != config.rule_for(rel))
            self._next_rescan = self._clock.monotonic()
        self._announce.reloaded(problems, at=self._clock.utc().timestamp())
        self._announce.ready(len(self._rescan))

    def _shut_down(self) -> int:
        """Capture what is pending, within the time there is; return the exit code."""
        self._not_ready = "stopping"
        self._metrics.ready.set(0)
        bot = self._config.bot
        limit_s = self._config.shutdown_timeout_s
        if bot is not None and self._lanes.heals:
            limit_s += 2 * bot.timeout_s  # the bot is down: it is started before we go
        notify(STOPPING, extend_timeout(limit_s), status("taking the last snapshots"))
        ended = threading.Event()
        threading.Thread(target=self._flush, args=(ended,), name="flush", daemon=True).start()
        if not ended.wait(limit_s):
            self._log.error("shutdown_cut_short", pending=len(self._settler), limit_s=limit_s)
            os._exit(1)
        self._log.info("service_stopped")
        return 0

    def _flush(self, ended: threading.Event) -> None:
        """The last snapshots: what is pending, and what a last walk finds."""
        try:
            self._watcher.stop()
            self._land(list(self._lanes.finish()))
            waiting = [due.rel for due in self._settler.drain()]
            rels = list(dict.fromkeys([*waiting, *self._rescan.walk().changed]))
            now = self._clock.monotonic()
            for start in range(0, len(rels), BATCH_FILES):
                dues = [Due(rel, True, now) for rel in rels[start : start + BATCH_FILES]]
                for outcome in self._pipeline.run(dues, Reason.SHUTDOWN):
                    self._recorder.record(outcome)
            mark_clean(self._ws)
        except _FAILURES as error:
            self._log.error("shutdown_flush_failed", **error_fields(error))
        finally:
            self._lanes.close()
            ended.set()
