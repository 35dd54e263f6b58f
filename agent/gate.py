"""The first full check: every data file that changed since it was last seen good is looked at, and healed.

At a start no bot runs yet, so that healing is certain; the same walk serves `check` and `check --heal`.
"""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct, field

from agent.core.model import Reason
from agent.core.settle import Due
from agent.healing import Healer
from agent.outcome import SOON, Ending, Outcome
from agent.pipeline import Pipeline
from agent.rescan import Findings, Rescan
from agent.workspace import Workspace

_LOOKS_MAX = 3  # a file that was written a moment ago is looked at again, this often


class Gate(Struct):
    """One pass over the data folder.

    `tell` hears every outcome, `pause` waits for the seconds it is given, `stopping` ends the pass early.
    """

    ws: Workspace
    pipeline: Pipeline
    healer: Healer
    rescan: Rescan
    tell: Callable[[Outcome], None]
    pause: Callable[[float], None]
    stopping: Callable[[], bool] = lambda: False
    last: dict[str, Outcome] = field(default_factory=dict)  # endings that left something to do

    def run(self, *, heal: bool = True) -> Findings:
        """Look at every changed, missing or not good file, heal what is damaged, and return what the walk found.

        Raises: as `Pipeline.run`.
        """
        findings = self.rescan.walk()
        is_data_file = self.ws.config.is_data_file
        bad = [rel for rel in self.ws.catalog.not_good() if is_data_file(rel)]
        todo = dict.fromkeys([*findings.changed, *findings.missing, *bad])
        for attempt in range(_LOOKS_MAX):
            damaged = self._look(todo)
            if self.stopping():
                return findings
            # Only when all were looked at is it known whether one file is gone, or most of them.
            for rel in damaged if heal else ():
                if self.stopping():
                    return findings
                self._note(self.healer.heal([rel], at_gate=True)[0])
            again = [rel for rel in todo if rel in self.last and self.last[rel].ending in SOON]
            if not again or attempt == _LOOKS_MAX - 1:
                break
            self.pause(self.ws.config.watch.debounce_s)
            todo = dict.fromkeys(again)
        return findings

    def _look(self, rels: Iterable[str]) -> list[str]:
        """Look at all of `rels`; return the damaged files."""
        damaged = []
        for outcome in self.pipeline.outcomes(dues_of(self.ws, rels, self.stopping), Reason.STARTUP, at_gate=True):
            self._note(outcome)
            damaged += [outcome.rel] if outcome.ending is Ending.DAMAGED else []
        return damaged

    def _note(self, outcome: Outcome) -> None:
        self.tell(outcome)
        if outcome.ending in (Ending.PUBLISHED, Ending.UNCHANGED, Ending.HEALED, Ending.FORGOTTEN):
            self.last.pop(outcome.rel, None)
        else:
            self.last[outcome.rel] = outcome


def dues_of(ws: Workspace, rels: Iterable[str], stopping: Callable[[], bool]) -> Iterator[Due]:
    """Yield `rels` as files that were quiet, each due from the moment it is asked for; none once it is to stop."""
    for rel in rels:
        if stopping():
            return
        yield Due(rel, True, ws.clock.monotonic())
