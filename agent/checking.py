"""The check of what one look caught: begun as soon as a private copy is whole; damage is not judged twice."""

from pathlib import Path

from agent.checks import check, glance
from agent.core.model import CheckResult, CheckSpec, Grade
from agent.disk.atomic import Job, hand_over
from agent.disk.capture import Capture
from agent.disk.staging import StagedFile

_DAMAGES_MAX = 256

Damages = dict[str, tuple[str, CheckSpec, CheckResult]]


class Checking:
    """One check at most; whoever begins it ends it before the copy goes."""

    def __init__(self, damages: Damages, rel: str, spec: CheckSpec) -> None:
        self._damages, self._rel, self._spec = damages, rel, spec
        self._begun: Job[CheckResult] | None = None

    def begin(self, copy: StagedFile) -> None:
        """It runs beside the caller from here on, unless the copy may be damage that is known or seen at a glance.

        Raises: as `check`.
        """
        path = Path(copy.path)
        if self._rel not in self._damages and glance(path) is None:
            self._begun = hand_over(lambda: check(path, self._spec, wants_warnings=False))

    def result(self, caught: Capture) -> CheckResult:
        """Return the check's result; damage that is looked at again before it is healed is not judged anew.

        Raises: as `check`.
        """
        damages, rel, spec = self._damages, self._rel, self._spec
        if (known := damages.get(rel)) is not None and known[:2] == (caught.digest, spec):
            return known[2]
        result = self._begun.result() if self._begun else check(caught.source, spec, wants_warnings=False)
        damages.pop(rel, None)
        if result.grade in (Grade.CORRUPT, Grade.INVALID) and len(damages) < _DAMAGES_MAX:
            damages[rel] = (caught.digest, spec, result)
        return result

    def end(self) -> None:
        """It reads the copy no more.  A second time is harmless."""
        if self._begun is None:
            return
        if self._begun.claim():
            self._begun = None  # no thread came to it, and none will
        else:
            self._begun.future.exception()
