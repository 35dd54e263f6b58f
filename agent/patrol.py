"""What no event tells: the walk over the data folder finds changes, the audit of the backup folder finds losses.

Both go on in slices between the rounds, and keep within their share of a core by stretching their interval.
"""

import sqlite3
from collections.abc import Callable
from math import inf

from agent.adoption import adopt_unknown
from agent.announce import Announcer
from agent.causes import error_fields
from agent.config import Config
from agent.core.labels import Operation
from agent.core.model import Snapshot
from agent.core.pace import BackOff, Pace
from agent.disk.watcher import Mode, Watcher
from agent.logs import get_logger
from agent.metrics import Metrics
from agent.recover import Recovered, forgetting_vanished
from agent.rescan import Findings, Rescan
from agent.scrape import Scrape
from agent.slices import Sliced
from agent.workspace import FAILURES, Clock, Workspace

_ROOT_LOOK_S = 1.0
_EVENTS_SHARE = 0.0005  # of one core, for walks while events arrive
_POLLING_SHARE = 0.01  # of one core, where walks are all there is
_AUDIT_SHARE = 0.0003
_AUDIT_S = 30.0
_WALK = "walk"


class Patrol:
    """Walks and audits, by turns of the loop; `root_up` says whether the data folder is there.

    `note` is told of a file that changed, `miss` of one that is gone, each with the moment; `walked` is called after
    each whole walk, `catalog_failed` when one could not be ended for the catalog.
    """

    def __init__(
        self,
        ws: Workspace,
        metrics: Metrics,
        announce: Announcer,
        watcher: Watcher,
        scrape: Scrape,
        *,
        note: Callable[[str, float], None],
        miss: Callable[[str, float], None],
        walked: Callable[[], None],
        catalog_failed: Callable[[sqlite3.Error], None],
    ) -> None:
        self._ws, self._metrics, self._announce = ws, metrics, announce
        self._watcher, self._scrape = watcher, scrape
        self._note, self._miss, self._walked, self._catalog_failed = note, miss, walked, catalog_failed
        self._clock: Clock = ws.clock
        self._log = get_logger()
        self._backoff = BackOff()
        self.rescan = Rescan(ws)
        self.root_up = True
        self._pace = Pace(self._config.watch.rescan_s, _EVENTS_SHARE)
        self._audit_pace = Pace(_AUDIT_S, _AUDIT_SHARE)
        now = self._clock.monotonic()
        self._next_walk, self._next_audit = now + self._config.watch.rescan_s, now + _AUDIT_S
        self._walking: Sliced[Findings] | None = None
        self._auditing: Sliced[list[Snapshot]] | None = None

    @property
    def _config(self) -> Config:
        return self._ws.config

    @property
    def _polls_by_config(self) -> bool:
        return self._config.watch.mode == "polling"

    @property
    def is_under_way(self) -> bool:
        """Whether a walk or an audit is not at its end: the next turn goes on with it."""
        return self._walking is not None or self._auditing is not None

    @property
    def next_at(self) -> float:
        """When the next turn has something to begin, by the monotonic clock."""
        return min(self._next_walk, self._next_audit if self.root_up else inf)

    def turn(self, now: float) -> None:
        """Begin what is due, or go on with it for a slice."""
        if self._walking is not None or now >= self._next_walk:
            self._walk()
        if self._auditing is not None or (now >= self._next_audit and self.root_up):
            self._audit()

    def walk_soon(self, now: float) -> None:
        """Something may have been missed."""
        self._next_walk = min(self._next_walk, now + self._pace.soon_s)

    def walk_anew(self) -> None:
        """What a walk or an audit under way has found is worth nothing any more."""
        self._walking = self._auditing = None
        self._next_walk = self._clock.monotonic()

    def lose_root(self, since: float) -> None:
        """The data folder is not there; it is looked for again a little after `since`."""
        self._set_root(up=False)
        self._walking, self._next_walk = None, since + _ROOT_LOOK_S

    def tell(self, findings: Findings, took_s: float) -> None:
        """A whole walk has ended: metrics and log know."""
        now = self._clock.utc()
        self._announce.walk(findings, took_s=took_s, at=now.timestamp())
        self._scrape.walked_at = now
        self._scrape.hidden = findings.hidden()
        self._scrape.overflow_count = self._watcher.health().overflow_count

    def _walk(self) -> None:
        walking = self._walking or self._begin_walk()
        self._walking = None
        try:
            done = walking.go_on()
        except (FileNotFoundError, NotADirectoryError):
            self.lose_root(walking.began)
            return
        except sqlite3.Error as error:
            self._next_walk = walking.began + self._backoff.next_s(_WALK)
            self._catalog_failed(error)
            return
        except FAILURES as error:
            self._metrics.io_errors.inc(Operation.RESCAN)
            self._log.error("rescan_failed", **error_fields(error))
            self._next_walk = walking.began + self._backoff.next_s(_WALK)
            return
        if done is None:
            self._walking = walking
            return
        self._backoff.reset(_WALK)
        self._set_root(up=True)
        for rel in done[0].changed:
            self._note(rel, walking.began)
        for rel in done[0].missing:
            self._miss(rel, walking.began)
        self.tell(done[0], walking.spent_s)
        self._next_walk = min(self._next_walk, walking.began + self._pause_s(walking.spent_s))
        self._walked()

    def _begin_walk(self) -> Sliced[Findings]:
        if not self._polls_by_config:
            self._watcher.restart_if_needed()
        self._announce.watcher(self._watcher.health(), polls_by_config=self._polls_by_config)
        self._next_walk = inf  # but for a doubt that comes up on the way
        return Sliced(self.rescan.steps(), self._clock)

    def _pause_s(self, took_s: float) -> float:
        watch = self._config.watch
        if self._polls_by_config or self._watcher.health().mode is Mode.POLLING:
            self._pace.adjust(min(watch.rescan_s, max(1.0, watch.debounce_s)), _POLLING_SHARE)
        else:
            self._pace.adjust(watch.rescan_s, _EVENTS_SHARE)
        return self._pace.after(took_s)

    def _set_root(self, *, up: bool) -> None:
        self.root_up = up
        self._announce.root(up=up)

    def _audit(self) -> None:
        """Compare catalog and backup folder: others may delete there.  A file whose copies went is looked at again."""
        auditing = self._auditing or Sliced(forgetting_vanished(self._ws), self._clock)
        self._auditing = None
        gone: list[Snapshot] = []
        try:
            done = auditing.go_on()
            if done is None:
                self._auditing = auditing
                return
            gone = done[0]
            if gone:
                self._announce.vanished(gone)
                found = adopt_unknown(self._ws)  # what is there instead may serve
                self._announce.recovered(Recovered(adopted=found.snapshots, failures=found.failures), None)
        except FAILURES as error:
            self._metrics.io_errors.inc(Operation.CATALOG)
            self._log.error("audit_failed", **error_fields(error))
        for rel in {s.rel for s in gone if self._config.is_data_file(s.rel)}:
            self._miss(rel, auditing.began)
        self._next_audit = auditing.began + self._audit_pace.after(auditing.spent_s)
