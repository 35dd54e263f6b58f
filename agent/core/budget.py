"""Which snapshots make room when the space budget is spent."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """One stored copy that could make room; `protected` when its file is held, or it is pinned or the newest good."""

    name: str  # path relative to backup_dir
    rel: str
    taken_at: datetime  # UTC-aware
    stored_bytes: int
    protected: bool = False


@dataclass(frozen=True, slots=True)
class ThinningPlan:
    """What goes, oldest first.  `short_bytes` is what would still be missing; then nothing goes at all."""

    delete: tuple[Candidate, ...] = ()
    freed_bytes: int = 0
    short_bytes: int = 0

    @property
    def enough(self) -> bool:
        return self.short_bytes == 0


def plan_thinning(candidates: Iterable[Candidate], *, need_bytes: int) -> ThinningPlan:
    """Return the oldest unprotected copies that free `need_bytes` together, and no more of them than that takes.

    `candidates` come oldest first and are read only as far as needed.  When all of them together do not free enough,
    nothing goes: old copies are not spent on a snapshot that is refused anyway.
    """
    delete: list[Candidate] = []
    freed_bytes = 0
    if need_bytes > 0:
        for candidate in candidates:
            if candidate.protected or candidate.stored_bytes <= 0:
                continue
            delete.append(candidate)
            freed_bytes += candidate.stored_bytes
            if freed_bytes >= need_bytes:
                break
        else:
            return ThinningPlan(short_bytes=need_bytes - freed_bytes)
    return ThinningPlan(tuple(delete), freed_bytes)
