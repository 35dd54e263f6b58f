"""One round of the daemon: take hints, take up what the lanes have done, walk, audit, hand out what is due.

Nothing here waits; `idle_s` says for how long nothing is to be done.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf

from agent.announce import Announcer
from agent.causes import error_fields
from agent.config import Config
from agent.core.decide import LeftWhy
from agent.core.labels import Operation, WatchEvent
from agent.core.model import Grade, Reason
from agent.core.pace import BackOff, Gathering
from agent.core.settle import Due
from agent.disk.watcher import Watcher
from agent.healing import Healer
from agent.lanes import Job, Lanes
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.outcome import SOON, Ending, Outcome
from agent.patrol import Patrol
from agent.pause_watch import PauseWatch
from agent.pipeline import Pipeline
from agent.portion import PORTION_FILES, is_heavy
from agent.record import Recorder
from agent.scrape import Scrape
from agent.upkeep import Upkeep
from agent.waiting import Waiting
from agent.workspace import FAILURES, Clock, Workspace

_AGAIN_S = 0.02
_BREATH_S = 0.02  # between two slices of a walk, while a change is being worked on
_BOT = "//"  # the back-off key of bot.start; no rel is spelled so


class Rounds:
    """What the loop does each time it wakes.  All methods belong to the loop's thread.

    `reopen` is called when catalog or backup folder turned out to be damaged or replaced; no job is under way then.
    """

    def __init__(
        self,
        ws: Workspace,
        metrics: Metrics,
        announce: Announcer,
        recorder: Recorder,
        *,
        wake: Callable[[], None],
        reopen: Callable[[], None],
        progress: Callable[[], None],
    ) -> None:
        self._ws, self._metrics, self._announce, self._recorder = ws, metrics, announce, recorder
        self._reopen_folder = reopen
        self._clock: Clock = ws.clock
        self._log = get_logger()
        self.pipeline = Pipeline(ws, progress)
        self.healer = Healer(ws, self.pipeline, metrics.count_bot_command)
        self.lanes = Lanes(wake)
        self._waiting = Waiting(ws)
        self.settler = self._waiting.settler
        self.scrape = Scrape(ws, metrics, lambda: self._waiting.pending(self.lanes.dues()), self.settler.__contains__)
        self.watcher = Watcher(
            self._config.data_dir,
            is_data_file=lambda rel: self._config.is_data_file(rel),  # noqa: PLW0108  # a reload changes the config
            skip_folder=lambda rel: not self._config.may_hold_data_files(rel),
            wake=wake,
            gathering=lambda: Gathering(self._config.watch.debounce_s),
        )
        self.patrol = Patrol(
            ws,
            metrics,
            announce,
            self.watcher,
            self.scrape,
            note=self._waiting.note,
            miss=self.settler.note,
            walked=self._mind_backup_dir,
            catalog_failed=self._catalog_failed,
        )
        self._upkeep = Upkeep(ws, self.lanes, announce, metrics)
        self._backoff = BackOff()  # of the bot's start
        self._pause = PauseWatch(ws, announce, metrics, self._waiting.note)
        self._next_bot_start = self._clock.monotonic()  # an agent that was killed may have left it stopped

    @property
    def _config(self) -> Config:
        return self._ws.config

    @property
    def polls_by_config(self) -> bool:
        return self._config.watch.mode == "polling"

    def once(self) -> None:
        """Do all there is to do now."""
        self._take_hints()
        self.land(self.lanes.landed())
        now = self._clock.monotonic()
        self.patrol.turn(now)
        if now >= self._pause.next_at:
            self._pause.turn(now)
            self._upkeep.mind_journal(now)
        if now >= self._next_bot_start and not self.lanes.heals:
            self._start_bot(now)
        if self.patrol.root_up:
            self._upkeep.turn(now)
        self._dispatch()

    def idle_s(self) -> float:
        """Return how long nothing is to be done, in seconds, unless something wakes the loop."""
        if self.patrol.is_under_way:
            return _BREATH_S if self.lanes.dues() else 0.0
        times = [self.patrol.next_at, self._pause.next_at]
        if self.patrol.root_up:
            times.append(self._upkeep.next_at())
        if not self.lanes.heals:
            times.append(self._next_bot_start)
        due = self.settler.next_due()
        if due is not None and self.patrol.root_up and self.lanes.quick_is_free:
            times.append(due)
        return max(0.0, min(times) - self._clock.monotonic())

    def adopt_config(self, old: Config) -> None:
        """The workspace has a new config in place of `old`."""
        self._waiting.adopt_config()
        self.scrape.limit_labels()
        self._upkeep.adopt_config()
        self.patrol.rescan.recheck_new_rules(old)
        self.patrol.walk_anew()
        self.watcher.stop()
        if not self.polls_by_config:
            self.watcher.start()  # other folders may hold data files now

    # events and jobs

    def _take_hints(self) -> None:
        hints = self.watcher.drain()
        now = self._clock.monotonic()
        for rel in hints.files:
            self._waiting.note(rel, now - hints.age_s)
        for kind, count in hints.events.items():
            self._metrics.watch_events.inc(WatchEvent(kind), count)
        if hints.folders or hints.rescan_wanted:
            self.patrol.walk_soon(now)

    def _dispatch(self) -> None:
        """Hand due files to the lanes."""
        if not self.patrol.root_up or not self.lanes.quick_is_free:
            return
        now = self._clock.monotonic()
        busy = self.lanes.files()
        small: list[Due] = []
        for due in self.settler.due(now, limit=PORTION_FILES):
            if not self._config.is_data_file(due.rel):
                continue  # a reload has excluded it
            if due.rel in busy:
                self.settler.retry(due.rel, at=now + _AGAIN_S, first_at=due.first_at)
            elif is_heavy(os.path.join(self._config.data_dir, due.rel)):
                self._look([due], quick=False)
            else:
                small.append(due)
        if small:
            self._look(small, quick=True)

    def _look(self, dues: Sequence[Due], *, quick: bool) -> None:
        work = lambda: self.pipeline.outcomes(dues, Reason.CHANGE, heal=self.healer.at_once)  # noqa: E731  # as below
        self.lanes.fly(dues, work, now=self._clock.monotonic(), quick=quick)

    def _heal(self, dues: Sequence[Due]) -> None:
        work = lambda: self.healer.heal([due.rel for due in dues], at_gate=False)  # noqa: E731  # the job of a lane
        self.lanes.fly(dues, work, now=self._clock.monotonic(), heal=True)

    def land(self, jobs: Iterable[Job], *, stopping: bool = False) -> None:
        """Take up what the lanes have done."""
        for job in jobs:
            if job.is_heal:
                self._mind_bot()
            outcomes, by_rel = job.outcomes, {due.rel: due for due in job.dues}
            for outcome in outcomes:
                self.learn(outcome)
                if outcome.ending is Ending.PUBLISHED:
                    self._upkeep.published(outcome.rel)
                    self._metrics.protect_duration.observe(outcome.duration_s)
                self.wait_again(by_rel[outcome.rel], outcome)
            try:
                job.future.result()
            except FAILURES as error:
                self._job_failed(by_rel.keys() - {outcome.rel for outcome in outcomes}, error)
            last = {outcome.rel: outcome for outcome in outcomes}
            hurt = [by_rel[rel] for rel, outcome in last.items() if outcome.ending is Ending.DAMAGED]
            if hurt and not stopping:
                self._heal(hurt)

    def _start_bot(self, now: float) -> None:
        def work() -> list[Outcome]:
            self.healer.start_bot()
            return []

        self._next_bot_start = inf
        self.lanes.fly((), work, now=now, heal=True)

    def _mind_bot(self) -> None:
        """A bot that could not be started again is told of, and started later."""
        error = self.healer.bot_error
        if error is None:
            self._backoff.reset(_BOT)
            self._next_bot_start = inf
            return
        self._announce.bot_down(error)
        self._next_bot_start = self._clock.monotonic() + self._backoff.next_s(_BOT)

    def learn(self, outcome: Outcome) -> None:
        """Tell of an outcome, and remember what it says of the file."""
        self._recorder.record(outcome)
        if outcome.left_why is LeftWhy.PAUSED:
            self._pause.leave(outcome.rel)
        if outcome.ending is Ending.LEFT and outcome.grade is Grade.MISSING:
            self.patrol.rescan.forget(outcome.rel)  # told; when it comes back, it is new
        elif outcome.state is not None:
            self.patrol.rescan.learn(outcome.rel)

    def wait_again(self, due: Due, outcome: Outcome) -> None:
        """A file that is not settled yet waits for another look."""
        self._waiting.ended(due, outcome, self._clock.monotonic())

    def _job_failed(self, rels: Collection[str], error: Exception) -> None:
        """A job ended before these were concluded: they are tried again."""
        if not os.path.isdir(self._config.data_dir):
            self.patrol.lose_root(self._clock.monotonic())
        elif isinstance(error, sqlite3.Error):
            self._catalog_failed(error)
        else:
            self._metrics.io_errors.inc(Operation.PUBLISH)
            self._log.error("pipeline_failed", files=len(rels), **error_fields(error))
        self._waiting.retry(rels, self._clock.monotonic())

    def _catalog_failed(self, error: sqlite3.Error) -> None:
        """A catalog that is damaged, and not just in the way of somebody, is made anew."""
        self._metrics.io_errors.inc(Operation.CATALOG)
        self._ws.is_doubtful = True
        self._log.error("catalog_failed", **error_fields(error))
        if not isinstance(error, sqlite3.OperationalError):
            self._begin_anew()

    def _begin_anew(self) -> None:
        try:
            self._reopen()
        except FAILURES as error:  # the next job that fails tries again
            self._log.error("backup_dir_unavailable", backup_dir=self._config.backup_dir, **error_fields(error))

    def _reopen(self) -> None:
        """The catalog is damaged, or its folder was replaced: begin anew from files and journal."""
        self.land(list(self.lanes.finish()))
        self._reopen_folder()
        self.patrol.rescan.recheck(self.patrol.rescan.files())
        self.patrol.walk_anew()

    def _mind_backup_dir(self) -> None:
        """Called after each walk, because making a backup folder must not make the data folder it lies in.

        A backup folder that was replaced is opened anew, and late writes into displaced files are kept in it.
        """
        try:
            if self._ws.was_replaced():
                self._log.error("backup_dir_replaced", backup_dir=self._config.backup_dir)
                self._reopen()
            for late in self.healer.recheck_displaced():
                self._recorder.record(late)
        except FAILURES as error:
            self._metrics.io_errors.inc(Operation.CATALOG)
            self._log.error("backup_dir_unavailable", backup_dir=self._config.backup_dir, **error_fields(error))

    # the end

    def last_snapshots(self) -> None:
        """Capture at once what is pending and what a last walk finds; no heal is begun.

        Raises: as `Pipeline.run`.
        """
        self.watcher.stop()
        self._upkeep.stop()
        self.land(list(self.lanes.finish()), stopping=True)
        waiting = [due.rel for due in self.settler.drain()]
        rels = list(dict.fromkeys([*waiting, *self.patrol.rescan.walk().changed]))
        now = self._clock.monotonic()
        left: list[str] = []
        for outcome in self.pipeline.outcomes([Due(rel, True, now) for rel in rels], Reason.SHUTDOWN):
            self._recorder.record(outcome)
            left += [outcome.rel] if outcome.ending in SOON else []
        if left:
            self._announce.left_pending(left)
        for late in self.healer.recheck_displaced():
            self._recorder.record(late)
