"""Which snapshots make room when the space budget is spent."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime

from msgspec import Struct

from agent.core.packing import Member, Reference, unneeded


class Leaning(Struct, frozen=True):
    """All snapshots of one file, and the references that they lean on."""

    members: tuple[Member, ...] = ()
    references: tuple[Reference, ...] = ()

    def freed_without(self, gone: set[str]) -> int:
        """Return how many bytes of references go once the snapshots named in `gone` are gone."""
        return sum(r.stored_bytes for r in unneeded([m for m in self.members if m.name not in gone], self.references))


NOTHING_LEANS = Leaning()


class Candidate(Struct, frozen=True):
    """One stored copy that could make room; `protected` when its file is held, or it is pinned or the newest good.

    `disk_bytes` is what the disk gets back when it goes: nothing while its bytes have a second name, whole blocks else.
    """

    name: str  # path relative to backup_dir
    rel: str
    taken_at: datetime  # UTC-aware
    stored_bytes: int
    protected: bool = False
    disk_bytes: int | None = None  # None: as many as are stored


class Need(Struct, frozen=True):
    """How much has to go: of what counts against a total size, and of what takes room on the disk."""

    counted_bytes: int = 0
    disk_bytes: int = 0

    @property
    def is_met(self) -> bool:
        return self.counted_bytes <= 0 and self.disk_bytes <= 0

    def after(self, freed: "Need") -> "Need":
        return Need(self.counted_bytes - freed.counted_bytes, self.disk_bytes - freed.disk_bytes)

    def is_eased_by(self, freed: "Need") -> bool:
        return (self.counted_bytes > 0 and freed.counted_bytes > 0) or (self.disk_bytes > 0 and freed.disk_bytes > 0)


class ThinningPlan(Struct, frozen=True):
    """What goes, oldest first, and what that frees.  `short_bytes` would still be missing; then nothing goes at all."""

    delete: tuple[Candidate, ...] = ()
    freed: Need = Need()
    short_bytes: int = 0

    @property
    def enough(self) -> bool:
        return self.short_bytes == 0


def plan_thinning(
    candidates: Iterable[Candidate], *, need: Need, leaning: Callable[[str], Leaning] = lambda _: NOTHING_LEANS
) -> ThinningPlan:
    """Return the oldest unprotected copies that free what is needed together, and none that frees nothing of it.

    `candidates` come oldest first and are read only as far as needed; `leaning` is asked by rel about those that may
    go, because a reference goes with the last that leans on it.  When all of them together do not free enough, nothing
    goes: old copies are not spent on a snapshot that is refused anyway.
    """
    delete: list[Candidate] = []
    gone, with_references = defaultdict[str, set[str]](set), defaultdict[str, int](int)
    left = need
    if left.is_met:
        return ThinningPlan()
    for c in candidates:
        if c.protected:
            continue
        references = leaning(c.rel).freed_without(gone[c.rel] | {c.name}) - with_references[c.rel]
        own = c.stored_bytes if c.disk_bytes is None else c.disk_bytes
        freed = Need(c.stored_bytes + references, own + references)
        if not left.is_eased_by(freed):
            continue
        delete.append(c)
        gone[c.rel].add(c.name)
        with_references[c.rel] += references
        left = left.after(freed)
        if left.is_met:
            return ThinningPlan(tuple(delete), freed=need.after(left))
    return ThinningPlan(short_bytes=max(left.counted_bytes, left.disk_bytes))
