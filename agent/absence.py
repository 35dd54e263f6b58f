"""Whether most of the files went at once, or the folder itself: an unmount or a deploy, and no loss."""

from math import inf

from agent.core.decide import is_mass_absence
from agent.core.model import Grade
from agent.disk.presence import is_absent
from agent.workspace import Workspace

_COUNT_HOLDS_S = 1.0
_COUNT_FACTOR = 10.0  # a count of absent files holds for this many times its own cost, so that it is a tenth at most


class Absences:
    """Counts the files of one workspace that are gone, and remembers the count for a while."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._counts: tuple[int, int] = (0, 0)  # of how many known files
        self._counted_at = self._hold_until = -inf

    def are_mass(self, root_fd: int, gone_since: float) -> bool:
        """Whether most of the files went at once, or the folder is not the one that held them."""
        began = self._ws.clock.monotonic()
        if began >= self._hold_until or gone_since > self._counted_at:
            self._counts = self._count(root_fd)
            self._counted_at = began  # only now: another thread asks meanwhile
            now = self._ws.clock.monotonic()
            # One count serves the files that went with this one, or before: thousands may be asked about.
            self._hold_until = now + max(_COUNT_HOLDS_S, _COUNT_FACTOR * (now - began))
        return is_mass_absence(*self._counts) or not self._ws.is_known_root(root_fd)

    def _count(self, root_fd: int) -> tuple[int, int]:
        """Return how many files are gone of how many, as the disk has it; those that went one by one do not count."""
        known = absent = 0
        for page in self._ws.catalog.file_pages():
            for state in page:
                if state.grade is Grade.MISSING and not state.is_mass_loss:
                    continue
                known += 1
                absent += is_absent(state.rel, root_fd)
        return absent, known
