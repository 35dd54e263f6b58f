"""The life of the daemon: open, recover, pass the gate, do rounds until told to stop, take the last snapshots.

The only module that waits, and the one that takes signals.
"""

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from types import FrameType

from agent.announce import Announcer
from agent.causes import error_fields
from agent.config import Config
from agent.core.errors import AgentError, LockHeldError
from agent.core.notice import Notice
from agent.core.pace import BackOff
from agent.core.settle import Due
from agent.disk import lease
from agent.disk.lock import DaemonLock
from agent.gate import Gate
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.metrics.labels import Operation
from agent.migration import Migration, migrate_first
from agent.notify import READY, STOPPING, WATCHDOG, extend_timeout, notify, reloading, status, watchdog_interval_s
from agent.record import Recorder
from agent.recover import mark_clean, recover
from agent.rounds import Rounds
from agent.wake import Wake
from agent.workspace import FAILURES, Clock, Workspace

_ROOT_LOOK_S = 1.0
_LOCK_WAIT_S = 10.0
_LOCK_AGAIN_S = 0.1
_PROBE_LIMIT_S = 2.0
_LOOK_LIMIT_S = 180.0  # no single look takes longer: a check in a child has a limit below it
_PROGRESS_S = 5.0
_SWITCH_S = 0.0005  # a thread that comes back from the disk waits no longer than this for one that computes
_STUCK_S = 600.0  # a job that runs for this long is hung: the watchdog may act
_OPENING = "opening"  # the back-off key of everything before the first round
_FIXED_KEYS = ("data_dir", "backup_dir", "temp_dir", "state_dir")


class Service:
    """Guards one data folder until it is told to stop."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        clock: Clock,
        *,
        reload: Callable[[], Config],
        apply: Callable[[Config], None],
        notify: Callable[[Notice], None] = lambda _: None,
        about: Callable[[], Mapping[str, str | None]] = dict,
    ) -> None:
        """`reload` reads the config anew; `apply` is told of one that has been taken over; `notify` tells people.

        `about` is what commands may know of this daemon: the file of its `config`, and what became of `metrics`.
        """
        self._config, self._metrics, self._clock = config, metrics, clock
        self._reload, self._apply, self._about = reload, apply, about
        self._log = get_logger()
        self._recorder = Recorder(metrics, notify)
        self._announce = Announcer(metrics, self._recorder, config.data_dir)
        self._wake = Wake()
        self._stop_asked = self._reload_asked = False
        self._not_ready: str | None = "starting"
        self._backoff = BackOff()
        self._patience_asked_at, self._progress_told_at, self._looks = -inf, clock.monotonic(), 0

    def readiness(self) -> str | None:
        """Return None while the agent is ready, else why not."""
        return self._not_ready

    def run(self) -> int:
        """Guard until a signal; return the exit code.

        Raises:
            AgentError: it cannot start; nothing was changed.
        """
        lease.ignore_break_signal()
        sys.setswitchinterval(_SWITCH_S)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        self._be_patient()
        if not self._await_data_dir() or not self._open():
            return 0
        try:
            if not self._prepare():
                return 0
            try:
                self._start()
                self._loop()
            except Exception as error:  # whatever it was: what is pending is captured before the end
                self._log.exception("service_failed", error=str(error))
                self._shut_down()
                return 1
            return self._shut_down()
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

    def _pause(self, seconds: float, why: str) -> None:
        """Wait, but not beyond a stop.

        No patience is asked of the service manager for it: what waits for us need not wait for a broken disk.
        """
        self._not_ready = why
        notify(status(why))
        if not self._stop_asked:
            self._wake.clear()
            self._wake.wait(seconds)

    def _trouble(self, event: str, error: Exception) -> None:
        """A line and a count tell that folder or catalog refused."""
        self._metrics.io_errors.inc(Operation.CATALOG)
        self._log.error(event, backup_dir=self._config.backup_dir, **error_fields(error))

    def _goes_on(self) -> bool:
        """Called by long work between its steps: whether it may go on."""
        self._be_patient()
        return not self._stop_asked

    def _be_patient(self) -> None:
        """Called after each look: until the gate is passed, service manager and log know that it goes on."""
        if self._not_ready is None:
            return
        now = self._clock.monotonic()
        self._looks += 1
        if now - self._patience_asked_at > 1:
            self._patience_asked_at = now
            notify(extend_timeout(_LOOK_LIMIT_S), status(f"{self._not_ready}, {self._looks} looks so far"))
        if now - self._progress_told_at > _PROGRESS_S:
            self._progress_told_at = now
            self._log.info("gate_advanced", why=self._not_ready, looks=self._looks)

    # the start

    def _await_data_dir(self) -> bool:
        """Wait until the data folder is there; False when told to stop before."""
        while not os.path.isdir(self._config.data_dir):
            self._announce.root(up=False)
            notify(READY)  # there is nothing to check: a bot that makes the folder must not wait for us
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
        while not self._stop_asked:
            try:
                self._take_lock()
            except OSError as error:
                self._trouble("workspace_unavailable", error)
                self._pause(self._backoff.next_s(_OPENING), "waiting for the backup folder")
                continue
            try:
                self._ws = Workspace.open(self._config, self._clock, check_later=True)
                return True
            except (OSError, sqlite3.Error) as error:
                self._lock.release()
                self._trouble("workspace_unavailable", error)
                self._pause(self._backoff.next_s(_OPENING), "waiting for the backup folder")
            except AgentError:
                self._lock.release()
                raise
        return False

    def _take_lock(self) -> None:
        """The folder is ours alone; a command may hold the lock for a moment.

        Raises:
            LockHeldError: another agent works here.
        """
        patience = self._clock.monotonic() + _LOCK_WAIT_S
        while True:
            self._lock = DaemonLock(self._config.state_dir)
            try:
                self._lock.take()
                self._tell_about()
                return
            except LockHeldError:
                if self._clock.monotonic() > patience or self._stop_asked:
                    raise
                time.sleep(_LOCK_AGAIN_S)

    def _tell_about(self) -> None:
        with suppress(OSError):  # the disk is full: what commands say of us waits for the next reload
            self._lock.tell(self._about())

    def _prepare(self) -> bool:
        """Make the rounds, listen and recover, trying until it can be; False when told to stop before."""
        while True:
            try:
                self._rounds = Rounds(
                    self._ws,
                    self._metrics,
                    self._announce,
                    self._recorder,
                    wake=self._wake.set,
                    reopen=self._reopen,
                    progress=self._be_patient,
                )
                break
            except (OSError, sqlite3.Error) as error:
                self._trouble("opening_failed", error)
                self._pause(self._backoff.next_s(_OPENING), "waiting for the backup folder")
                if self._stop_asked:
                    return False
        self._listen()  # and meanwhile SQLite looks through the catalog
        self._recover()
        return True

    def _recover(self) -> None:
        """Finish what a crash cut short; the catalog agrees with the folder."""
        self._ws.is_doubtful = True  # until it has
        while not self._stop_asked:
            try:
                done = recover(self._ws, self._goes_on)
                self._announce.recovered(done, done.lost_catalog)
                return
            except (OSError, sqlite3.Error) as error:
                self._trouble("recovery_failed", error)
                self._pause(self._backoff.next_s(_OPENING), "waiting for the backup folder")

    def _reopen(self) -> None:
        """Catalog and lock are those of the folder that is there now."""
        not_ready = self._not_ready
        self._ws.reopen_catalog()
        self._lock.release()
        self._take_lock()
        self._recover()
        self._not_ready = not_ready

    def _start(self) -> None:
        """Take the folder over, pass the gate, announce readiness."""
        self._migrate()
        self._pass_gate()
        if self._stop_asked:
            return
        self._not_ready = None
        self._announce.started(len(self._rounds.patrol.rescan), at=self._clock.utc().timestamp())

    def _listen(self) -> None:
        rounds = self._rounds
        if not rounds.polls_by_config:
            rounds.watcher.start()
            try:
                self._ws.make_temp_dir()
                rounds.watcher.probe(self._config.temp_dir, timeout_s=_PROBE_LIMIT_S)
            except OSError as error:
                self._log.warning("watch_unproved", temp_dir=self._config.temp_dir, **error_fields(error))
        self._announce.watcher(rounds.watcher.health(), polls_by_config=rounds.polls_by_config)

    def _migrate(self) -> None:
        """A folder that nobody guarded before is taken over first."""
        rounds, why = self._rounds, "taking over the data files"
        migrate_first(
            Migration(
                self._ws, rounds.pipeline, rounds.healer, rounds.learn, lambda seconds: self._pause(seconds, why),
                lambda: self._stop_asked, self._be_patient,
            )
        )  # fmt: skip

    def _pass_gate(self) -> None:
        """Every file is looked at and healed, or waits to be; errors are waited out."""
        rounds = self._rounds
        began = self._clock.monotonic()
        why = "checking the data files"

        def pause(seconds: float) -> None:
            self._pause(seconds, why)

        self._be_patient()
        pause(0)
        while not self._stop_asked:
            gate = Gate(
                self._ws, rounds.pipeline, rounds.healer, rounds.patrol.rescan, rounds.learn, pause,
                lambda: self._stop_asked,
            )  # fmt: skip
            try:
                findings = gate.run()
            except (OSError, sqlite3.Error) as error:
                self._trouble("gate_failed", error)
                pause(self._backoff.next_s(_OPENING))
                continue
            now = self._clock.monotonic()
            for rel, outcome in gate.last.items():
                rounds.wait_again(Due(rel, True, now), outcome)
            rounds.patrol.tell(findings, now - began)
            self._log.info(
                "gate_passed",
                files=findings.files,
                looked_at=len(findings.changed),
                left=len(gate.last),
                duration_s=round(now - began, 3),
            )
            return

    # every day

    def _loop(self) -> None:
        watchdog_s = watchdog_interval_s()
        while not self._stop_asked:
            self._wake.clear()
            if self._reload_asked:
                self._reload_asked = False
                self._reload_config()
            self._rounds.once()
            oldest = self._rounds.lanes.oldest_began()
            if oldest is None or self._clock.monotonic() - oldest < _STUCK_S:
                notify(WATCHDOG)
            idle_s = self._rounds.idle_s()
            self._wake.wait(min(idle_s, watchdog_s or idle_s))

    def _reload_config(self) -> None:
        notify(reloading())
        try:
            config = self._reload()
            fixed = [key for key in _FIXED_KEYS if getattr(config, key) != getattr(self._config, key)]
            problems = [f"{key} cannot change while running: restart" for key in fixed]
        except (AgentError, OSError) as error:
            problems = str(error).splitlines()
        if not problems:
            old, self._config = self._config, config
            self._ws.adopt_config(config)
            self._rounds.adopt_config(old)
            self._apply(config)
            if config.metrics.listen != old.metrics.listen:
                self._log.warning("restart_needed", key="metrics.listen", hint="it takes effect at the next start")
            self._tell_about()
        self._announce.reloaded(problems, at=self._clock.utc().timestamp(), config=self._about().get("config"))
        self._announce.ready(len(self._rounds.patrol.rescan))

    # the end

    def _shut_down(self) -> int:
        """Capture what is pending, within the time there is; return the exit code."""
        self._not_ready = "stopping"
        self._metrics.ready.set(0)
        bot, limit_s = self._config.bot, self._config.shutdown_timeout_s
        if bot is not None and self._rounds.lanes.heals:
            limit_s += 2 * bot.timeout_s  # the bot is down: it is started before we go
        notify(STOPPING, extend_timeout(limit_s), status("taking the last snapshots"))
        ended = threading.Event()
        threading.Thread(target=self._flush, args=(ended,), name="flush", daemon=True).start()
        if not ended.wait(limit_s):
            self._log.error("shutdown_cut_short", pending=len(self._rounds.settler), limit_s=limit_s)
            os._exit(1)
        self._log.info("service_stopped")
        return 0

    def _flush(self, ended: threading.Event) -> None:
        try:
            self._rounds.last_snapshots()
            mark_clean(self._ws)
        except FAILURES as error:
            self._trouble("shutdown_flush_failed", error)
        finally:
            self._rounds.lanes.close()
            ended.set()
