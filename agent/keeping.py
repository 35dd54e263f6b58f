"""What is kept of the files of a migration before anything is done about them: their originals."""

import errno
from collections.abc import Sequence

from msgspec import Struct, field

from agent.core.decide import Publish, restore_candidates
from agent.core.model import Grade
from agent.disk.capture import Capture
from agent.disk.originals import Original, Originals
from agent.disk.staging import StagingFolder
from agent.look import Look
from agent.workspace import Workspace

DAMAGED = (Grade.CORRUPT, Grade.INVALID)


class OriginalsKeeper(Struct):
    """The keeper of a migration: each file has its original, and only what is good goes on to become a snapshot.

    The snapshot of a good file is its original too, under two names, where the file system can and nothing compresses.
    """

    ws: Workspace
    originals: Originals
    digests: dict[str, bytes] = field(default_factory=dict)  # of the originals, by rel
    copied: set[str] = field(default_factory=set)  # of these it is a file of its own; of the others their snapshot
    unread: set[str] = field(default_factory=set)  # of these no snapshot was made, and so read back, now
    refused: set[str] = field(default_factory=set)  # of these snapshot and copy came to nothing, at least once
    snapshot_count: int = 0
    good_count: int = 0
    never_good: list[str] = field(default_factory=list)

    def before(self, looks: Sequence[Look], staging: StagingFolder) -> list[Look]:
        seen = [look for look in looks if look.capture is not None and look.result is not None]
        good = [look for look in seen if look.result is not None and look.result.grade is Grade.GOOD]
        for look in seen:
            damaged = look.result is not None and look.result.grade in DAMAGED
            if damaged and not restore_candidates(look.snapshots):
                self.never_good.append(look.rel)
        self.good_count += sum(look.rel not in self.unread for look in good)  # once, however often it is looked at
        self.unread.update(look.rel for look in seen)
        self._copy([look for look in seen if not self._will_be_linked(look)], staging)
        return [look for look in good if look.outcome is None]

    def after(self, looks: Sequence[Look], staging: StagingFolder) -> None:
        published = {look.rel: look.published.name for look in looks if look.published is not None}
        self.unread -= published.keys()
        self.snapshot_count += len(published)
        waiting = [look for look in looks if look.rel not in self.digests]
        links = {look.rel: published[look.rel] for look in waiting if look.rel in published}
        try:
            known = self.originals.link(links)
        except OSError:  # no links here: copies serve as well
            self._copy(waiting, staging)
            return
        self.copied.update(known)
        for look in waiting:
            if look.rel in links and look.capture is not None:
                self.digests[look.rel] = bytes.fromhex(look.capture.digest)
        self._learn(known)
        self._copy([look for look in waiting if look.rel not in links], staging)

    def has_read_back(self, rel: str) -> bool:
        """Whether the newest good snapshot of `rel` was made now."""
        return rel in self.digests and rel not in self.unread

    def _will_be_linked(self, look: Look) -> bool:
        if self.ws.config.backup.compression != "none" or look.outcome is not None:
            return False
        return isinstance(look.decision, Publish) and look.decision.grade is Grade.GOOD

    def _copy(self, looks: Sequence[Look], staging: StagingFolder) -> None:
        staged: list[Original] = []
        try:
            for look in looks:
                if look.capture is not None and (original := self._stage(look, look.capture, staging)) is not None:
                    staged.append(original)
                    self.copied.add(look.rel)
                    self.digests[look.rel] = bytes.fromhex(look.capture.digest)
            self._learn(self.originals.keep(staged, staging))
        finally:
            for original in staged:
                original.staged.discard()

    def _stage(self, look: Look, caught: Capture, staging: StagingFolder) -> Original | None:
        """A large capture is its snapshot by now; None where it became none: the file is looked at once more."""
        if isinstance(caught.content, bytes) or not caught.content.is_closed:
            return self.originals.stage(caught, staging)
        if look.published is None:
            self.refused.add(look.rel)
            return None
        staged = staging.create()
        is_whole = False
        try:
            is_whole = self.ws.store.copy_into(look.published, staged)
        finally:
            if not is_whole:
                staged.discard()
        if not is_whole:
            raise OSError(errno.EIO, "the snapshot does not come back as it was written", look.published.name)
        return Original(look.rel, staged)

    def _learn(self, known: Sequence[str]) -> None:
        """A run that was cut short had these: what it kept are the originals."""
        for rel in known:
            self.digests[rel] = bytes.fromhex(self.originals.digest(rel))
