"""What may be put in the place of a damaged file, best first: its own bytes repaired, then its restore points."""

import errno
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from agent.checks import check
from agent.core.decide import Heal, restore_candidates
from agent.core.guard import find_collapse
from agent.core.model import Grade, HealAction, Shape, Snapshot
from agent.core.reading import sole_reading
from agent.disk.capture import digest_of
from agent.disk.staging import StagedFile
from agent.look import Look
from agent.workspace import Workspace, suspect_thresholds

_REPAIR_MAX_BYTES = 64 * 1024 * 1024
_CHANGES_SHOWN = 5
_UNREADABLE = (errno.EIO, errno.EACCES, errno.EBADMSG, errno.ESTALE)


class Cure(Struct, frozen=True):
    """Bytes that would make the file good again; `fill` writes them, or says that they are not to be had.

    What it wrote is to be used only if it has the `digest`.
    """

    action: HealAction
    fill: Callable[[StagedFile], bool]
    digest: str
    shape: Shape | None
    snapshot: Snapshot | None = None
    changes: tuple[str, ...] = ()  # what a repair does, in words
    patch: bytes = b""  # the same of a repair of fields (RFC 6902)
    gives_up: bool = False  # values that it had gave way to a default, or to nothing

    @property
    def explanation(self) -> str:
        """What a repair does, on one line."""
        more = len(self.changes) - _CHANGES_SHOWN
        return "; ".join(self.changes[:_CHANGES_SHOWN]) + (f"; and {more} more" if more > 0 else "")


class Cures(Struct):
    """The cures for one damaged state.

    `failure` is the error that kept a restore point from being read; it may be there all the same.
    """

    ws: Workspace
    look: Look
    decision: Heal
    failure: OSError | None = None

    def __iter__(self) -> Iterator[Cure]:
        if HealAction.REPAIR in self.decision.actions and (repaired := self.repaired()) is not None:
            yield repaired
        judged = self.look.capture.digest if self.look.capture else None
        for snapshot in restore_candidates(self.look.snapshots):
            if snapshot.digest != judged:  # else a new schema, or parser, has made a good state a bad one
                fill = partial(self._fill_from, snapshot)
                yield Cure(HealAction.RESTORE, fill, snapshot.digest, snapshot.shape, snapshot)

    def is_any(self) -> bool:
        """Whether there is a cure whose bytes can be had now."""
        with self.ws.store.staging() as staging:
            for cure in self:
                staged = staging.create()
                try:
                    if cure.fill(staged) and digest_of(staged.fd) == cure.digest:
                        return True
                finally:
                    staged.discard()
        return False

    def _fill_from(self, snapshot: Snapshot, staged: StagedFile) -> bool:
        try:
            is_there = self.ws.store.pour_into(snapshot, staged)
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            self.failure = self.failure or error
            return False
        if is_there and self.look.result is not None and self.look.result.grade is Grade.INVALID:
            return check(Path(staged.path), self.look.rule.check).grade is not Grade.INVALID
        return is_there

    def repaired(self) -> Cure | None:
        """The bytes with their damage repaired, if there is exactly one way to, and the result passes its check.

        It needs no restore point, but a value of one comes before any default.
        """
        caught, grade = self.look.capture, self.look.result.grade if self.look.result else None
        if caught is None or caught.signature.size_bytes > _REPAIR_MAX_BYTES:
            return None
        data = caught.content if isinstance(caught.content, bytes) else Path(caught.content.path).read_bytes()
        if grade is Grade.CORRUPT:
            flaw = next((problem.kind for problem in self.look.result.problems), None)  # type: ignore[union-attr]  # it has a grade
            reading = sole_reading(data, parser=self.look.rule.check.parser, flaw=flaw)
            return self._checked(reading.data, (reading.explanation,)) if reading else None
        schema = self.look.rule.check.schema
        if grade is not Grade.INVALID or schema is None:
            return None
        from agent.checks.schema_errors import schema_errors  # loaded on need: most agents never mend a field
        from agent.core.json_patch import How, explain
        from agent.core.repair import repair_fields

        mended = repair_fields(
            data, schema, self._restore_point(), find_errors=lambda text: schema_errors(text, schema)
        )
        if mended is None:
            return None
        gives_up = any(c.how is How.REMOVED or (c.how is How.DEFAULT and c.before) for c in mended.changes)
        return self._checked(mended.data, tuple(explain(mended.changes)), mended.patch, gives_up=gives_up)

    def _checked(
        self, data: bytes, changes: tuple[str, ...], patch: bytes = b"", *, gives_up: bool = False
    ) -> Cure | None:
        """The repaired bytes as a cure, unless they fail their check or have collapsed against the last good state."""
        rule = self.look.rule
        result = check(data, rule.check)
        if result.grade is not Grade.GOOD or result.shape is None:
            return None
        good = next((s.shape for s in self.look.snapshots if s.grade is Grade.GOOD), None)
        if good is not None and find_collapse(result.shape, good, suspect_thresholds(rule)):
            return None
        digest = hashlib.sha256(data).hexdigest()
        fill = partial(_write, data)
        return Cure(HealAction.REPAIR, fill, digest, result.shape, changes=changes, patch=patch, gives_up=gives_up)

    def _restore_point(self) -> bytes | None:
        """The bytes of the newest good snapshot that is whole, where single values may be taken from."""
        with self.ws.store.staging() as staging:
            for snapshot in restore_candidates(self.look.snapshots):
                if snapshot.size_bytes > _REPAIR_MAX_BYTES:
                    continue
                staged = staging.create()
                try:
                    if self.ws.store.copy_into(snapshot, staged):
                        return Path(staged.path).read_bytes()
                finally:
                    staged.discard()
        return None


def _write(data: bytes, staged: StagedFile) -> bool:
    staged.write(data)
    return True
