"""The life of the daemon: open, recover, pass the gate, do rounds until told to stop, take the last snapshots.

With `patience` the only module that waits, and the one that takes signals.
"""

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from agent.announce import Announcer
from agent.causes import error_fields
from agent.config import Config
from agent.core.errors import AgentError
from agent.core.notice import Notice
from agent.core.pace import BackOff
from agent.core.settle import Due
from agent.disk import lease
from agent.disk.threads import NoThreadError, start
from agent.hold import Hold
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.notify import READY, STOPPING, WATCHDOG, extend_timeout, notify, reloading, status, watchdog_interval_s
from agent.patience import Patience
from agent.record import Recorder
from agent.workspace import FAILURES, Clock

_ROOT_LOOK_S = 1.0
_PROBE_LIMIT_S = 2.0
_SWITCH_S = 0.0005  # a thread that comes back from the disk waits no longer than this for one that computes
_STUCK_S = 600.0  # a job that runs for this long is hung: the watchdog may act
_GATE = "gate"  # its back-off key
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
        self._patience = Patience(metrics, clock)
        self._hold = Hold(config, clock, self._patience, self._announce, about)
        self._reload_asked = False
        self._backoff = BackOff()

    def readiness(self) -> str | None:
        """Return None while the agent is ready, else why not."""
        return self._patience.not_ready

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
        self._patience.ask()
        if not self._await_data_dir() or not self._hold.take():
            return 0
        self._ws = self._hold.ws
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
            self._hold.give_up()

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self._patience.stop(number)

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True
        self._patience.wake.set()

    # the start

    def _await_data_dir(self) -> bool:
        """Wait until the data folder is there; False when told to stop before."""
        while not os.path.isdir(self._config.data_dir):
            self._announce.root(up=False)
            notify(READY)  # there is nothing to check: a bot that makes the folder must not wait for us
            self._patience.pause(_ROOT_LOOK_S, f"waiting for {self._config.data_dir}")
            if self._patience.stop_asked:
                return False
        self._announce.root(up=True)
        return True

    def _prepare(self) -> bool:
        """Make the rounds, listen and recover, trying until it can be; False when told to stop before."""
        from agent.rounds import Rounds  # most of the program: loaded while SQLite looks through the catalog

        while True:
            try:
                self._rounds = Rounds(
                    self._ws,
                    self._metrics,
                    self._announce,
                    self._recorder,
                    wake=self._patience.wake.set,
                    reopen=self._hold.take_anew,
                    progress=self._patience.ask,
                )
                break
            except (OSError, sqlite3.Error) as error:
                self._hold.wait_after("opening_failed", error)
                if self._patience.stop_asked:
                    return False
        self._listen()  # and meanwhile SQLite looks through the catalog
        self._hold.recover()
        return True

    def _start(self) -> None:
        """Take the folder over, pass the gate, announce readiness."""
        if not self._hold.is_in_order:
            return  # told to stop
        self._migrate()
        self._pass_gate()
        if self._patience.stop_asked:
            return
        self._patience.not_ready = None
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
        from agent.migration import Migration, migrate_first

        rounds, why = self._rounds, "taking over the data files"
        migrate_first(
            Migration(
                self._ws, rounds.pipeline, rounds.healer, rounds.learn,
                lambda seconds: self._patience.pause(seconds, why),
                lambda: self._patience.stop_asked, self._patience.ask,
            )
        )  # fmt: skip

    def _pass_gate(self) -> None:
        """Every file is looked at and healed, or waits to be; errors are waited out."""
        from agent.gate import Gate

        rounds = self._rounds
        began = self._clock.monotonic()
        why = "checking the data files"

        def pause(seconds: float) -> None:
            self._patience.pause(seconds, why)

        self._patience.ask()
        pause(0)
        while not self._patience.stop_asked:
            gate = Gate(
                self._ws, rounds.pipeline, rounds.healer, rounds.patrol.rescan, rounds.learn, pause,
                lambda: self._patience.stop_asked,
            )  # fmt: skip
            try:
                findings = gate.run()
            except (OSError, sqlite3.Error) as error:
                self._patience.trouble("gate_failed", error, self._config.backup_dir)
                pause(self._backoff.next_s(_GATE))
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
        while not self._patience.stop_asked:
            self._patience.wake.clear()
            if self._reload_asked:
                self._reload_asked = False
                self._reload_config()
            self._rounds.once()
            oldest = self._rounds.lanes.oldest_began()
            if oldest is None or self._clock.monotonic() - oldest < _STUCK_S:
                notify(WATCHDOG)
            idle_s = self._rounds.idle_s()
            self._patience.wake.wait(min(idle_s, watchdog_s or idle_s))

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
            self._hold.tell_about()
        self._announce.reloaded(problems, at=self._clock.utc().timestamp(), config=self._about().get("config"))
        self._announce.ready(len(self._rounds.patrol.rescan))

    # the end

    def _shut_down(self) -> int:
        """Capture what is pending, within the time there is; return the exit code."""
        self._patience.not_ready = "stopping"
        self._metrics.ready.set(0)
        bot, limit_s = self._config.bot, self._config.shutdown_timeout_s
        if bot is not None and self._rounds.lanes.heals:
            limit_s += 2 * bot.timeout_s  # the bot is down: it is started before we go
        notify(STOPPING, extend_timeout(limit_s), status("taking the last snapshots"))
        ended = threading.Event()
        try:
            start(threading.Thread(target=self._flush, args=(ended,), name="flush", daemon=True))
        except NoThreadError:
            self._flush(ended)  # without a limit of ours: whoever stops us has one
        if not ended.wait(limit_s):
            self._log.error("shutdown_cut_short", pending=len(self._rounds.settler), limit_s=limit_s)
            os._exit(1)
        self._log.info("service_stopped")
        return 0

    def _flush(self, ended: threading.Event) -> None:
        from agent.recover import mark_clean

        try:
            if self._hold.is_in_order:
                self._rounds.last_snapshots()
                mark_clean(self._ws)
            else:
                self._log.warning("last_snapshots_left", hint="the next start looks at every file that changed")
        except FAILURES as error:
            self._patience.trouble("shutdown_flush_failed", error, self._config.backup_dir)
        finally:
            self._rounds.lanes.close()
            ended.set()
