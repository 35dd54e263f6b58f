"""What is done now and then beside the changes: verifying, packing, looking at the space, shortening the journal."""

from agent.announce import Announcer
from agent.compaction import Compaction
from agent.core.labels import Operation
from agent.departed import Departed
from agent.lanes import Lanes
from agent.metrics import Metrics
from agent.packing import Packing
from agent.space import SpaceWatch
from agent.verifying import Verifying
from agent.workspace import FAILURES, Workspace


class Upkeep:
    """Hands its work to the lanes.  All methods belong to the loop's thread."""

    def __init__(self, ws: Workspace, lanes: Lanes, announce: Announcer, metrics: Metrics) -> None:
        self._lanes, self._announce = lanes, announce
        self._compaction = Compaction(ws, announce.journal_left_long)
        self._verifying = Verifying(ws, lanes, announce.verified)
        self._space = SpaceWatch(ws, announce.space)
        self._departed = Departed(ws, lanes, announce.departed, announce.rotation_failed)
        self._packing = Packing(ws, lanes, announce.packed, lambda: metrics.io_errors.inc(Operation.PACK))
        self.published = self._packing.note  # told of each file that has a new snapshot

    def adopt_config(self) -> None:
        self._verifying.adopt_config()
        self._packing.adopt_config()

    def turn(self, now: float) -> None:
        """Begin what it is time for."""
        self._verifying.turn(now)
        self._space.turn(now)
        self._departed.turn(now)
        self._packing.turn(now)

    def next_at(self) -> float:
        """Return when the next of it is due."""
        works = (self._verifying, self._space, self._departed, self._packing)
        return min(work.next_at for work in works)

    def mind_journal(self, now: float) -> None:
        """The journal is kept short.  Not after walks: those of a large folder on a busy machine are far apart."""
        try:
            shorten = self._compaction.due(now)
        except FAILURES as error:
            self._announce.journal_left_long(error)
            return
        if shorten is not None:
            self._lanes.fly((), shorten, now=now)

    def stop(self) -> None:
        """No slice of it goes on."""
        self._verifying.stop()
        self._packing.stop()
