"""One round of the daemon: take hints, take up what the lanes have done, walk, audit, hand out what is due.

Nothing here waits; `idle_s` says for how long nothing is to be done.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf

from agent.announce import Announcer
from agent.causes import error_fields
from agent.compaction import Compaction
from agent.config import Config
from agent.core.decide import LeftWhy
from agent.core.model import Grade, Reason
from agent.core.pace import BackOff, Gathering
from agent.core.settle import Due, Settler
from agent.departed import Departed
from agent.disk.watcher import Watcher
from agent.healing import Healer
from agent.lanes import Job, Lanes
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.metrics.labels import Operation, WatchEvent
from agent.outcome import RETRIED, SETTLED, SOON, Ending, Outcome
from agent.packing import Packing
from agent.patrol import Patrol
from agent.pipeline import Pipeline
from agent.portion import PORTION_FILES
from agent.record import Recorder
from agent.scrape import Scrape
from agent.space import SpaceWatch
from agent.verifying import Verifying
from agent.workspace import FAILURES, Clock, Workspace

_AGAIN_S = 0.02
_BREATH_S = 0.02  # between two slices of a walk, while a change is being worked on
_PAUSE_LOOK_S = 10.0  # each look reads the pause itself; this is for the log, and for what was left meanwhile
_PAUSED_LOOK_S = 1.0
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
        self.settler = Settler(self._config.watch.debounce_s, self._config.watch.max_delay_s)
        self.scrape = Scrape(ws, metrics, self._pending, self.settler.__contains__)
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
            note=self._note,
            miss=self.settler.note,
            walked=self._mind_backup_dir,
            catalog_failed=self._catalog_failed,
        )
        self._compaction = Compaction(ws, announce.journal_left_long)
        self._verifying = Verifying(ws, self.lanes, announce.verified)
        self._space = SpaceWatch(ws, announce.space)
        self._departed = Departed(ws, self.lanes, announce.departed, announce.rotation_failed)
        self._packing = Packing(ws, self.lanes, announce.packed, lambda: metrics.io_errors.inc(Operation.PACK))
        self._backoff = BackOff()
        self._absent: set[str] = set()  # files whose absence is waited out
        self._left_paused: set[str] = set()  # files to be looked at again when the pause ends
        now = self._clock.monotonic()
        self._next_pause_look = now
        self._mind_pause(now)
        self._next_bot_start = now  # an agent that was killed may have left it stopped

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
        if now >= self._next_pause_look:
            self._mind_pause(now)
            self._mind_journal(now)
        if now >= self._next_bot_start and not self.lanes.heals:
            self._start_bot(now)
        if self.patrol.root_up:
            self._verifying.turn(now)
            self._space.turn(now)
            self._departed.turn(now)
            self._packing.turn(now)
        self._dispatch()

    def idle_s(self) -> float:
        """Return how long nothing is to be done, in seconds, unless something wakes the loop."""
        if self.patrol.is_under_way:
            return _BREATH_S if self.lanes.dues() else 0.0
        times = [self.patrol.next_at, self._next_pause_look]
        if self.patrol.root_up:
            times += [self._verifying.next_at, self._space.next_at, self._departed.next_at, self._packing.next_at]
        if not self.lanes.heals:
            times.append(self._next_bot_start)
        due = self.settler.next_due()
        if due is not None and self.patrol.root_up and self.lanes.quick_is_free:
            times.append(due)
        return max(0.0, min(times) - self._clock.monotonic())

    def _pending(self) -> tuple[int, float]:
        """How many files changed and have no snapshot of it yet, and since when the first, in seconds."""
        working = self.lanes.dues()
        began = [due.first_at for due in working]
        if (oldest := self.settler.oldest_at()) is not None:
            began.append(oldest)
        return len(self.settler) + len(working), max(0.0, self._clock.monotonic() - min(began, default=inf))

    def adopt_config(self, old: Config) -> None:
        """The workspace has a new config in place of `old`."""
        watch = self._config.watch
        self.settler.adjust(debounce_s=watch.debounce_s, max_delay_s=watch.max_delay_s)
        self.scrape.limit_labels()
        self._verifying.adopt_config()
        self._packing.adopt_config()
        rescan = self.patrol.rescan
        rescan.recheck(rel for rel in rescan.files() if old.rule_for(rel) != self._config.rule_for(rel))
        self.patrol.walk_anew()
        self.watcher.stop()
        if not self.polls_by_config:
            self.watcher.start()  # other folders may hold data files now

    # events and jobs

    def _take_hints(self) -> None:
        hints = self.watcher.drain()
        now = self._clock.monotonic()
        for rel in hints.files:
            self._note(rel, now)
        for kind, count in hints.events.items():
            self._metrics.watch_events.inc(WatchEvent(kind), count)
        if hints.folders or hints.rescan_wanted:
            self.patrol.walk_soon(now)

    def _note(self, rel: str, now: float) -> None:
        """A change was noticed.  An absence is no longer waited out then: it ended, or begins anew."""
        if rel in self._absent:
            self._absent.discard(rel)
            self.settler.drop(rel)
        self.settler.note(rel, now)

    def _dispatch(self) -> None:
        """Hand due files to the lanes."""
        if not self.patrol.root_up or not self.lanes.quick_is_free:
            return
        now = self._clock.monotonic()
        busy = self.lanes.files()
        small: list[Due] = []
        for due in self.settler.due(now, limit=PORTION_FILES):
            if not self._config.is_data_file(due.rel):
                self.patrol.rescan.forget(due.rel)  # a reload has excluded it
            elif due.rel in busy:
                self.settler.retry(due.rel, at=now + _AGAIN_S, first_at=due.first_at)
            elif self.pipeline.is_heavy(due.rel):
                self._look([due], quick=False)
            else:
                small.append(due)
        if small:
            self._look(small, quick=True)

    def _look(self, dues: Sequence[Due], *, quick: bool) -> None:
        work = lambda: self.pipeline.outcomes(dues, Reason.CHANGE)  # noqa: E731  # the job of a lane
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
                    self._packing.note(outcome.rel)
                    self._metrics.protect_duration.observe(outcome.duration_s)
                self.wait_again(by_rel[outcome.rel], outcome)
            try:
                job.future.result()
            except FAILURES as error:
                self._job_failed(by_rel.keys() - {outcome.rel for outcome in outcomes}, error)
            hurt = [by_rel[o.rel] for o in outcomes if o.ending is Ending.DAMAGED]
            if hurt and not stopping:
                self._heal(hurt)

    def _mind_pause(self, now: float) -> None:
        """A pause is told of; what it left is looked at again when it has ended."""
        try:
            pause = self._ws.pause()
        except OSError as error:  # no heal is begun meanwhile: each look finds the same
            self._metrics.io_errors.inc(Operation.CATALOG)
            self._log.error("pause_unreadable", **error_fields(error))
        else:
            self._announce.paused(pause)
            for rel in () if pause is not None else self._left_paused:
                self._note(rel, now)
            if pause is None:
                self._left_paused.clear()
        self._next_pause_look = now + (_PAUSED_LOOK_S if self._left_paused else _PAUSE_LOOK_S)

    def _mind_journal(self, now: float) -> None:
        """The journal is kept short.  Not after walks: those of a large folder on a busy machine are far apart."""
        try:
            shorten = self._compaction.due(now)
        except FAILURES as error:
            self._announce.journal_left_long(error)
            return
        if shorten is not None:
            self.lanes.fly((), shorten, now=now)

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
            self._left_paused.add(outcome.rel)
            self._next_pause_look = self._clock.monotonic() + _PAUSED_LOOK_S
        if outcome.ending is Ending.LEFT and outcome.grade is Grade.MISSING:
            self.patrol.rescan.forget(outcome.rel)  # told; when it comes back, it is new
        elif outcome.state is not None:
            self.patrol.rescan.learn(outcome.rel)

    def wait_again(self, due: Due, outcome: Outcome) -> None:
        """Put a file that is not settled yet back into the settler."""
        now = self._clock.monotonic()
        if outcome.ending in RETRIED:
            self.settler.retry(due.rel, at=now + self._backoff.next_s(due.rel), first_at=None)
            return
        if outcome.ending in SETTLED:
            self._backoff.reset(due.rel)
        self._absent.discard(due.rel)
        if outcome.ending is Ending.HEALED:  # what a repair made has no snapshot yet; our own swap is no news
            self.settler.drop(due.rel)
            self.settler.retry(due.rel, at=now, first_at=None)
        if outcome.ending in SOON:
            if outcome.grade is Grade.MISSING:
                self._absent.add(due.rel)
            grace_s = self._config.recovery.missing_grace_s if outcome.grade is Grade.MISSING else 0.0
            self.settler.retry(due.rel, at=now + max(self._config.watch.debounce_s, grace_s), first_at=due.first_at)

    def _job_failed(self, rels: Collection[str], error: Exception) -> None:
        """A job ended before these were concluded: they are tried again."""
        if not os.path.isdir(self._config.data_dir):
            self.patrol.lose_root(self._clock.monotonic())
        elif isinstance(error, sqlite3.Error):
            self._catalog_failed(error)
        else:
            self._metrics.io_errors.inc(Operation.PUBLISH)
            self._log.error("pipeline_failed", files=len(rels), **error_fields(error))
        now = self._clock.monotonic()
        for rel in rels:
            self.settler.retry(rel, at=now + self._backoff.next_s(rel), first_at=None)

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
        self._verifying.stop()
        self._packing.stop()
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
