"""Which copies go: rotation after a publish, the bounds of suspects and quarantine, and the space budget."""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby

from agent.core.budget import Candidate, plan_thinning
from agent.core.model import FileState, Grade, Reason, Snapshot
from agent.core.retention import RetentionPlan, plan_bounded, plan_retention
from agent.workspace import HELD_GRADES, Workspace


def plan_file(ws: Workspace, rel: str, state: FileState | None) -> RetentionPlan:
    """Return what rotation would keep and delete of the good snapshots of `rel` now."""
    grade = state.grade if state else None
    return plan_retention(
        [s for s in ws.catalog.snapshots(rel) if s.grade is Grade.GOOD],
        ws.retention_policy(),
        now=ws.clock.utc(),
        held=grade in HELD_GRADES and grade is not Grade.MISSING,
        source_gone_since=state.since if state and grade is Grade.MISSING else None,
    )


def rotate(ws: Workspace, rel: str, state: FileState) -> int:
    """Carry the plans for `rel` out; return how many copies are gone."""
    doomed = [*plan_file(ws, rel, state).delete]
    aside = [
        s
        for s in ws.catalog.snapshots(rel)
        if s.grade is not Grade.GOOD and not s.pinned and s.reason is not Reason.ADOPTED
    ]
    suspects = [s for s in aside if s.grade is Grade.SUSPECT]
    quarantined = [s for s in aside if s.grade is not Grade.SUSPECT]
    doomed += plan_bounded(suspects, ws.config.backup.keep_suspect)
    doomed += plan_bounded(quarantined, ws.config.backup.keep_quarantined)
    delete(ws, doomed)
    return len(doomed)


def delete(ws: Workspace, snapshots: Sequence[Snapshot]) -> None:
    """The copies are gone from folder and catalog; a crash on the way is finished at the next start."""
    if not snapshots:
        return
    ws.catalog.doom(snapshots)
    ws.store.delete([s.name for s in snapshots])
    ws.catalog.remove_snapshots(snapshots)


def make_room(ws: Workspace, need_bytes: int) -> tuple[int, int]:
    """Thin the oldest copies so that `need_bytes` more keep within the budget; return (deleted, bytes still short).

    While bytes are short nothing was deleted.
    """
    over = _over_budget(ws, need_bytes)
    if over <= 0:
        return 0, 0
    plan = plan_thinning(_candidates(ws), need_bytes=over)
    doomed = [s for c in plan.delete if (s := ws.catalog.snapshot_named(c.name)) is not None]
    delete(ws, doomed)
    return len(doomed), plan.short_bytes


def _over_budget(ws: Workspace, need_bytes: int) -> int:
    wish = ws.config.backup
    over = 0
    if wish.max_total_size_bytes is not None:
        over = max(over, ws.catalog.count_snapshots()[1] + need_bytes - wish.max_total_size_bytes)
    if wish.min_free_bytes is not None:
        over = max(over, wish.min_free_bytes + need_bytes - free_bytes(ws.config.backup_dir))
    return over


def free_bytes(folder: str) -> int:
    """Return the space that this user may still fill on the file system of `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _candidates(ws: Workspace) -> Iterator[Candidate]:
    """Yield all copies oldest first, those marked that no budget may touch."""
    protected = set(_protected(ws))
    for s in ws.catalog.oldest_first():
        yield Candidate(s.name, s.rel, s.taken_at, s.stored_bytes, s.pinned or s.name in protected)


def _protected(ws: Workspace) -> Iterator[str]:
    """The newest good of every file, and every good one of a file that is damaged, missing or suspect."""
    floor = ws.config.backup.retention.minimum_good
    for rel, group in groupby(ws.catalog.all_snapshots(), key=lambda s: s.rel):
        good = [s.name for s in group if s.grade is Grade.GOOD]
        state = ws.catalog.file(rel)
        held = state is None or state.grade in HELD_GRADES
        yield from good if held else good[-floor:]
