"""The store of the model: what is kept of each file, and the promises about what may be deleted."""

from collections.abc import Iterable
from datetime import datetime

from model_disk import FILES, Content, Settings
from msgspec.structs import replace

from agent.core.budget import Candidate, Need, plan_thinning
from agent.core.model import FileState, Grade, Reason, Snapshot
from agent.core.naming import Kind, belongs_to, parse_name, snapshot_name
from agent.core.retention import plan_bounded, plan_retention
from agent.core.stamp import next_stamp

HELD = frozenset({Grade.SUSPECT, Grade.INVALID, Grade.CORRUPT, Grade.MISSING, Grade.UNREADABLE})
KEEP_ASIDE = 3
SHELVES = {Grade.GOOD: Kind.BACKUP, Grade.SUSPECT: Kind.SUSPECT}


class Store:
    """Snapshots of every file, newest first; `states` is what the agent knows of the files."""

    def __init__(self, states: dict[str, FileState]) -> None:
        self.states = states
        self.kept: dict[str, list[Snapshot]] = {rel: [] for rel in FILES}
        self.rotten: set[str] = set()
        self.contents: dict[str, Content] = {}  # by digest

    def has(self, rel: str, content: Content, grade: Grade) -> bool:
        return any(s.digest == content.digest and s.grade is grade for s in self.kept[rel])

    def newest_good(self, rel: str) -> Snapshot | None:
        return next((s for s in self.kept[rel] if s.grade is Grade.GOOD), None)

    def publish(self, rel: str, content: Content, grade: Grade, size: int, now: datetime, settings: Settings) -> None:
        newest = max((s.taken_at for s in self.kept[rel]), default=None)
        taken_at = next_stamp(now, newest)
        assert all(taken_at > s.taken_at for s in self.kept[rel]), "a stamp went back"
        name = snapshot_name(rel, taken_at, SHELVES.get(grade, Kind.QUARANTINED))
        parsed = parse_name(name)
        assert parsed is not None
        assert (parsed.rel, parsed.taken_at) == (rel, taken_at)
        assert belongs_to(name, rel)
        snapshot = Snapshot(
            rel, name, taken_at, content.digest, size, grade, Reason.CHANGE, content.shape, stored_bytes=size
        )
        self.contents[content.digest] = content
        self.kept[rel] = sorted([snapshot, *self.kept[rel]], key=lambda s: s.taken_at, reverse=True)
        self.rotate(rel, grade, now, settings)

    def rotate(self, rel: str, grade: Grade, now: datetime, settings: Settings) -> None:
        state = self.states.get(rel)
        if grade is Grade.GOOD:
            # The pipeline rotates with the state that this very look has found.
            plan = plan_retention([s for s in self.kept[rel] if s.grade is Grade.GOOD], settings.retention, now=now)
            self.delete(plan.delete, held=())
            return
        aside = [s for s in self.kept[rel] if s.grade is not Grade.GOOD and not s.pinned]
        for group in (
            [s for s in aside if s.grade is Grade.SUSPECT],
            [s for s in aside if s.grade is not Grade.SUSPECT],
        ):
            doomed = plan_bounded(group, KEEP_ASIDE)
            assert not group or group[0] not in doomed
            self.delete(doomed, held=(rel,) if state and state.grade in HELD else ())

    def make_room(self, need: int, settings: Settings, *, held: str) -> bool:
        total = sum(s.stored_bytes for kept in self.kept.values() for s in kept)
        if settings.total_max is None or total + need <= settings.total_max:
            return True
        order = sorted((s for kept in self.kept.values() for s in kept), key=lambda s: (s.taken_at, s.name))
        floor = settings.retention.minimum_good
        candidates = [
            Candidate(s.name, s.rel, s.taken_at, s.stored_bytes, self.is_protected(s, held, floor)) for s in order
        ]
        plan = plan_thinning(candidates, need=Need(total + need - settings.total_max))
        assert plan.enough or not plan.delete, "copies were spent on a snapshot that is refused"
        by_name = {s.name: s for s in order}
        self.delete([by_name[c.name] for c in plan.delete], held=[r for r in FILES if r == held or self.is_held(r)])
        return plan.enough

    def is_held(self, rel: str) -> bool:
        state = self.states.get(rel)
        return state is None or state.grade in HELD

    def is_protected(self, s: Snapshot, held: str, floor: int) -> bool:
        good = [k.name for k in self.kept[s.rel] if k.grade is Grade.GOOD]
        is_last = s.name in good[:floor]
        return s.pinned or (s.grade is Grade.GOOD and (s.rel == held or self.is_held(s.rel) or is_last))

    def delete(self, doomed: Iterable[Snapshot], *, held: Iterable[str]) -> None:
        for s in doomed:
            good = [k for k in self.kept[s.rel] if k.grade is Grade.GOOD]
            assert not s.pinned, "a pinned snapshot was deleted"
            assert not good or s.name != good[0].name, "the newest good snapshot was deleted"
            assert s.grade is not Grade.GOOD or s.rel not in held, "a good snapshot was deleted while held"
            self.kept[s.rel].remove(s)

    def pin(self, rel: str, which: int) -> None:
        if kept := self.kept[rel]:
            which %= len(kept)
            kept[which] = replace(kept[which], pinned=not kept[which].pinned)

    def rot(self, rel: str, which: int) -> None:
        if kept := self.kept[rel]:
            self.rotten.add(kept[which % len(kept)].name)
