"""Which copies go: rotation after a publish, the bounds of suspects and quarantine, and the space budget."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache

from agent.core.budget import NOTHING_LEANS, Candidate, Leaning, Need, ThinningPlan, plan_thinning
from agent.core.model import FileState, Grade, Reason, Snapshot
from agent.core.retention import RetentionPlan, plan_bounded, plan_retention
from agent.disk.atomic import flush_file_system
from agent.disk.lock import LockSession
from agent.disk.staging import open_root
from agent.disk.store import PATCH_SUFFIX
from agent.references import drop_unneeded, look
from agent.workspace import HELD_GRADES, Workspace


def plan_file(ws: Workspace, rel: str, state: FileState | None, *, doubtful: bool = False) -> RetentionPlan:
    """Return what rotation would keep and delete of the good snapshots of `rel` now.

    `doubtful`: the file may not be as `state` says; then all are held.
    """
    grade = state.grade if state else None
    is_wanted = state is not None and (state.is_mass_loss or ws.config.rule_for(rel).required)  # not gone on purpose
    return plan_retention(
        [s for s in ws.catalog.snapshots(rel) if s.grade is Grade.GOOD],
        ws.retention_policy(),
        now=ws.clock.utc(),
        held=doubtful or (grade in HELD_GRADES and (grade is not Grade.MISSING or is_wanted)),
        source_gone_since=state.since if state and grade is Grade.MISSING else None,
    )


def rotate(ws: Workspace, rel: str, state: FileState) -> int:
    """Carry the plan for the good snapshots of `rel` out; return how many are gone.

    Raises:
        OSError: some could not be deleted; they count as gone until the next start.
    """
    doomed = plan_file(ws, rel, state).delete
    delete(ws, doomed)
    return len(doomed)


def bound_aside(ws: Workspace, rel: str) -> None:
    """Suspects and quarantine of `rel` keep within their numbers.

    Raises: as `rotate`.
    """
    delete(ws, plan_aside(ws, rel))


def plan_aside(ws: Workspace, rel: str) -> list[Snapshot]:
    """Return the suspects and damaged states of `rel` that are beyond their numbers."""
    aside = [
        s
        for s in ws.catalog.snapshots(rel)
        if s.grade is not Grade.GOOD and not s.pinned and s.reason is not Reason.ADOPTED
    ]
    suspects = [s for s in aside if s.grade is Grade.SUSPECT]
    quarantined = [s for s in aside if s.grade is not Grade.SUSPECT]
    return [
        *plan_bounded(suspects, ws.config.backup.keep_suspect),
        *plan_bounded(quarantined, ws.config.backup.keep_quarantined),
    ]


def plan_all(ws: Workspace, rel: str) -> list[Snapshot]:
    """Return all that rotation and the bounds of suspects and quarantine would delete of `rel` now."""
    return [*plan_file(ws, rel, ws.catalog.file(rel)).delete, *plan_aside(ws, rel)]


def plan_budget(ws: Workspace) -> list[str]:
    """Return the names of the copies that go so that all keep within the space budget now."""
    return [c.name for c in _plan_thinning(ws, _over_budget(ws, 0)).delete]


def delete(ws: Workspace, snapshots: Sequence[Snapshot]) -> None:
    """The copies are gone from folder and catalog; a crash on the way looks like no loss at the next start.

    Raises: as `rotate`; the others are gone.
    """
    if not snapshots:
        return
    ws.catalog.doom(snapshots)
    ws.has_deleted = True
    failure: OSError | None = None
    gone = []
    for snapshot in snapshots:
        try:
            ws.store.delete([snapshot.name])
            if snapshot.grade is Grade.INVALID:
                ws.store.delete([snapshot.name + PATCH_SUFFIX])
            gone.append(snapshot)
        except OSError as error:
            failure = failure or error
    ws.catalog.remove_snapshots(gone)
    for rel in {snapshot.rel for snapshot in gone}:
        drop_unneeded(ws, rel)
    if failure is not None:
        raise failure


def make_room(
    ws: Workspace, need_bytes: int, *, locks: LockSession, written_bytes: int = 0, held: Collection[str] = ()
) -> tuple[int, int]:
    """Thin the oldest copies so that `need_bytes` more keep within the budget; return (deleted, bytes still short).

    `written_bytes` of them are on the disk already, so that the free space tells of them.  While bytes are short
    nothing was deleted.  No good snapshot of a file in `held`, or known not to be good, goes, and none of a file that
    someone else works on: `locks` are those of the caller.

    Raises: as `rotate`.
    """
    busy: set[str] = set()
    if _over_budget(ws, need_bytes, written_bytes).disk_bytes > 0:
        _let_deletions_show(ws)
    while True:
        plan = _plan_thinning(ws, _over_budget(ws, need_bytes, written_bytes), held, busy)
        if not plan.delete:
            return 0, plan.short_bytes
        rels = {c.rel for c in plan.delete}
        with locks.also(rels) as ours:
            stays, found = _staying(ws, held), (ws.catalog.snapshot_named(c.name) for c in plan.delete)
            doomed = [s for s in found if s is not None]
            changed = {s.rel for s in doomed if s.rel in ours and stays(s)}  # since the plan was made
            if ours == rels and not changed:
                delete(ws, doomed)
                return len(doomed), plan.short_bytes
        busy |= (rels - ours) | changed


def _let_deletions_show(ws: Workspace) -> None:
    """The free space tells of what was deleted: btrfs and XFS take up to half a minute, or a flush."""
    root_fd = open_root(ws.store.path)
    try:
        flush_file_system(root_fd)
    finally:
        os.close(root_fd)


def _plan_thinning(ws: Workspace, need: Need, held: Collection[str] = (), busy: Collection[str] = ()) -> ThinningPlan:
    if need.is_met:
        return ThinningPlan()

    @cache
    def leaning(rel: str) -> Leaning:
        if not ws.catalog.references(rel):
            return NOTHING_LEANS
        shelf = look(ws, rel)
        return Leaning(tuple(shelf.members), tuple(shelf.references)) if shelf.is_sure else NOTHING_LEANS

    candidates = _candidates(ws, held, busy, asks_disk=need.disk_bytes > 0)
    return plan_thinning(candidates, need=need, leaning=leaning)


def _over_budget(ws: Workspace, need_bytes: int, written_bytes: int = 0) -> Need:
    wish = ws.config.backup
    counted = on_disk = 0
    if wish.max_total_size_bytes is not None:
        counted = ws.catalog.count_snapshots()[1] + need_bytes - wish.max_total_size_bytes
    if wish.min_free_bytes is not None:
        on_disk = wish.min_free_bytes + need_bytes - written_bytes - free_bytes(ws.config.backup_dir)
    return Need(counted, on_disk)


def free_bytes(folder: str) -> int:
    """Return the space that this user may still fill on the file system of `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _candidates(ws: Workspace, held: Collection[str], busy: Collection[str], *, asks_disk: bool) -> Iterator[Candidate]:
    """Yield all copies oldest first, those marked that no budget may touch; read only as far as asked for."""
    stays = _staying(ws, held)
    for s in ws.catalog.oldest_first():
        kept = s.rel in busy or stays(s)
        on_disk = ws.store.freed_bytes(s.name) if asks_disk and not kept else None
        yield Candidate(s.name, s.rel, s.taken_at, s.stored_bytes, kept, on_disk)


def _staying(ws: Workspace, held: Collection[str]) -> Callable[[Snapshot], bool]:
    """Return what says whether no budget may touch a copy; each file is asked about once."""

    @cache
    def protected(rel: str) -> frozenset[str] | None:
        """The newest good ones of a file; None when all of its good ones are held."""
        state = ws.catalog.file(rel)
        if rel in held or state is None or state.grade in HELD_GRADES:
            return None
        good = [s.name for s in ws.catalog.snapshots(rel) if s.grade is Grade.GOOD]
        return frozenset(good[: ws.config.backup.retention.minimum_good])

    def stays(s: Snapshot) -> bool:
        if s.pinned or s.grade is not Grade.GOOD:
            return s.pinned
        names = protected(s.rel)
        return names is None or s.name in names

    return stays
