"""The files that wait for a look, and until when: changes that settle, absences, and what has to be tried again."""

from collections.abc import Iterable, Sequence
from math import inf

from agent.core.model import Grade
from agent.core.pace import BackOff
from agent.core.settle import Due, Settler
from agent.outcome import RETRIED, SETTLED, SOON, Ending, Outcome
from agent.workspace import Workspace


class Waiting:
    """Told of every change and of how each look ended.  All methods belong to the loop's thread."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        watch = ws.config.watch
        self.settler = Settler(watch.debounce_s, watch.max_delay_s)
        self._backoff = BackOff()
        self._absent: set[str] = set()  # files whose absence is waited out

    def adopt_config(self) -> None:
        watch = self._ws.config.watch
        self.settler.adjust(debounce_s=watch.debounce_s, max_delay_s=watch.max_delay_s)

    def note(self, rel: str, now: float) -> None:
        """A change was noticed.  An absence is no longer waited out then: it ended, or begins anew."""
        if rel in self._absent:
            self._absent.discard(rel)
            self.settler.drop(rel)
        self.settler.note(rel, now)

    def pending(self, working: Sequence[Due]) -> tuple[int, float]:
        """Return how many files changed and have no snapshot of it yet, with those at work, and for how long, in s."""
        began = [due.first_at for due in working]
        if (oldest := self.settler.oldest_at()) is not None:
            began.append(oldest)
        waited_s = self._ws.clock.monotonic() - min(began, default=inf)
        return len(self.settler) + len(working), max(0.0, waited_s)

    def retry(self, rels: Iterable[str], now: float) -> None:
        """Nothing is known of these: they are tried again, each later than the time before."""
        for rel in rels:
            self.settler.retry(rel, at=now + self._backoff.next_s(rel), first_at=None)

    def ended(self, due: Due, outcome: Outcome, now: float) -> None:
        """A look ended so: a file that is not settled yet waits again."""
        if outcome.ending in RETRIED:
            self.retry([due.rel], now)
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
            config = self._ws.config
            grace_s = config.recovery.missing_grace_s if outcome.grade is Grade.MISSING else 0.0
            self.settler.retry(due.rel, at=now + max(config.watch.debounce_s, grace_s), first_at=due.first_at)
