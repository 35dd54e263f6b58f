"""Before the gate: finish what a crash cut short, and make the catalog agree with the backup folder.

Files and journal are the truth; the catalog is their index.  What it does not know, `adoption` grades.
"""

import os
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from agent.adoption import adopt_unknown, know_rewritten
from agent.compaction import shorten_journal
from agent.core.errors import BackupFolderReplacedError
from agent.core.model import Grade, Snapshot
from agent.disk.atomic import flush_file_system
from agent.disk.beneath import split_rel
from agent.disk.presence import is_folder
from agent.disk.staging import StagingFolder, open_root
from agent.disk.walk import signature_of
from agent.displaced import keep_leftover
from agent.references import know_references
from agent.rotation import delete, plan_all, plan_budget
from agent.slices import Steps, to_the_end
from agent.workspace import Workspace

_CLEAN = "clean"
_FOLDER = "backup_inode"
_STEP_SNAPSHOTS = 200


class Recovered(Struct):
    """What was found and done."""

    swept: list[str] = field(default_factory=list)  # temporary files deleted
    kept: list[str] = field(default_factory=list)  # copies of bytes found under staged names
    adopted: list[Snapshot] = field(default_factory=list)
    vanished: list[Snapshot] = field(default_factory=list)
    failures: list[tuple[str, Exception]] = field(default_factory=list)  # what was passed over, and why
    lost_catalog: str | None = None  # where a damaged one was set aside, or "missing"


def recover(ws: Workspace, go_on: Callable[[], bool] = lambda: True) -> Recovered:
    """Sweep leftovers, finish deletions, and after a crash or a loss make the catalog agree with the folder.

    Nothing is asked of the catalog before its check has ended.  `go_on` is asked between the copies; after a no the
    rest is left to the next start.
    """
    done = Recovered()
    _sweep(ws, done)
    ws.await_check()
    try:
        _finish_deletions(ws)
    except OSError as error:
        done.failures.append((str(error.filename), error))
    done.lost_catalog = ws.catalog_was_lost
    was_clean = done.lost_catalog is None and ws.catalog.note(_CLEAN) == "yes"
    ws.catalog.set_note_durably(_CLEAN, "no")  # before anything is published that the catalog might lose
    if not was_clean:
        reconcile(ws, done, go_on)
    ws.catalog_was_lost = None
    ws.catalog.lost_a_change = False
    refused = any(isinstance(error, OSError) and error.errno is not None for _, error in done.failures)
    ws.is_doubtful = refused or not go_on()  # what the disk refused may be had at the next start
    shorten_journal(ws)
    return done


def never_recovered(ws: Workspace) -> bool:
    """Whether the catalog is a new one that nobody compared with the folder yet."""
    return ws.catalog.note(_CLEAN) is None


def _finish_deletions(ws: Workspace) -> None:
    """What a crash cut short is done; but the good copies of a file that may be damaged by now stay.

    Raises:
        OSError: some could not be deleted, or the disk does not tell whether they are there.
    """
    good = [s for s in ws.catalog.doomed() if s.grade is Grade.GOOD]
    held = {rel for rel in {s.rel for s in good} if not _is_as_it_was_good(ws, rel)}
    there = [s for s in good if s.rel in held and _size(os.path.join(ws.store.path, s.name)) is not None]
    ws.catalog.spare(there)  # their next rotation plans anew
    delete(ws, ws.catalog.doomed())


def _is_as_it_was_good(ws: Workspace, rel: str) -> bool:
    """Whether the data file was good when it was last looked at, and did not change since."""
    state = ws.catalog.file(rel)
    if state is None or state.grade is not Grade.GOOD:
        return False
    try:
        with ws.data_root() as root_fd:
            return signature_of(os.stat(rel, dir_fd=root_fd, follow_symlinks=False)) == state.signature
    except OSError:
        return False


def mark_clean(ws: Workspace) -> None:
    """The next start need not compare catalog and folder, unless there was reason to doubt that they agree.

    Raises:
        OSError: deletions could not be made durable; the next start compares.
    """
    if ws.is_doubtful or ws.catalog.lost_a_change:
        return
    if ws.has_deleted:  # btrfs brings a name back whose removal was not flushed
        root_fd = open_root(ws.store.path)
        try:
            flush_file_system(root_fd)
        finally:
            os.close(root_fd)
    ws.catalog.set_note_durably(_CLEAN, "yes")


def reconcile(ws: Workspace, done: Recovered, go_on: Callable[[], bool]) -> None:
    """Every copy in the folder is in the catalog, and every one in the catalog is in the folder."""
    try:
        gone = to_the_end(_find_vanished(ws))
    except BackupFolderReplacedError as error:
        _adopt(ws, done, go_on)
        if not done.adopted:
            done.failures.append((ws.store.path, error))
            return
        done.vanished += forget_vanished(ws)  # a volume that is back: what was published meanwhile lies below it
    else:
        _adopt(ws, done, go_on)
        if gone and go_on():  # cut short, we do not know yet what is newer than they are
            done.vanished += _without_ours(ws, gone)
            _forget(ws, gone)
        done.failures += know_rewritten(ws)
    if not done.failures and go_on():  # else a copy may be there that nobody knows, and need its reference
        know_references(ws)


def _adopt(ws: Workspace, done: Recovered, go_on: Callable[[], bool]) -> None:
    adopted = adopt_unknown(ws, go_on)
    done.adopted += adopted.snapshots
    done.failures += adopted.failures


def forget_vanished(ws: Workspace) -> list[Snapshot]:
    """Copies that someone else deleted are no longer in the catalog; return them.

    Raises: as `_find_vanished`; nothing was forgotten.
    """
    return to_the_end(forgetting_vanished(ws))


def forgetting_vanished(ws: Workspace) -> Steps[list[Snapshot]]:
    """As `forget_vanished`, step by step."""
    gone = yield from _find_vanished(ws)
    if gone:
        _forget(ws, gone)
    return gone


def _find_vanished(ws: Workspace) -> Steps[list[Snapshot]]:
    """Return the copies that the catalog knows and that are not in the folder.

    Raises:
        BackupFolderReplacedError: another folder stands in the place of the backup folder and holds none of the
            copies, as when it is not mounted.
        OSError: the disk does not tell whether one is there.
    """
    count = 0
    gone: list[Snapshot] = []
    began_in = str(os.stat(ws.store.path).st_ino)
    for snapshot in ws.catalog.all_snapshots():
        count += 1
        if not count % _STEP_SNAPSHOTS:
            yield
        size = _size(os.path.join(ws.store.path, snapshot.name))
        if size is None:
            gone.append(snapshot)
        elif size != snapshot.stored_bytes and snapshot.name.endswith(".zst"):  # packed just before a crash
            ws.catalog.set_stored(snapshot.name, size)
    inode = str(os.stat(ws.store.path).st_ino)
    if inode != began_in:  # mounted or unmounted on the way: half of this is about another folder
        return []
    if gone and len(gone) == count and ws.catalog.note(_FOLDER) not in (None, inode):
        raise BackupFolderReplacedError(
            f"{ws.store.path}: another folder stands here, and none of the {count} snapshots is in it",
            hint="mount the backup folder; if the snapshots are lost for good, delete catalog.sqlite3 in the state_dir",
        )
    if ws.catalog.note(_FOLDER) != inode:
        ws.catalog.set_note(_FOLDER, inode)
    return [s for s in gone if ws.catalog.snapshot_named(s.name) is not None]  # not one that we deleted meanwhile


def _forget(ws: Workspace, gone: Sequence[Snapshot]) -> None:
    ws.is_doubtful = True
    ws.catalog.remove_snapshots(gone)


def _without_ours(ws: Workspace, gone: Sequence[Snapshot]) -> list[Snapshot]:
    """Those that are not gone by our own doing.

    A power cut takes the newest rows of the catalog, and with them that an accept gave a copy another name, or that
    rotation deleted one.  The journal tells of the former.  The plan of rotation is the same whether it is made step by
    step or once, so it is made again, over what is there and what is gone.
    """
    ours = {str(r.get("was")) for r in ws.journal.read("accept") if ws.catalog.snapshot_named(str(r.get("name")))}
    ours.update(s.name for rel in {s.rel for s in gone} for s in plan_all(ws, rel))
    if not all(s.name in ours for s in gone):
        ours.update(plan_budget(ws))
    return [s for s in gone if s.name not in ours]


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


# leftovers


def _sweep(ws: Workspace, done: Recovered) -> None:
    with ws.store.staging() as staging:
        for name in staging.leftovers():
            os.unlink(name, dir_fd=staging.fd)
            done.swept.append(name)
    with StagingFolder(ws.config.state_dir) as folder:
        folder.sweep_parts()
    swaps = {str(r.get("staged")): r for r in ws.journal.read("swap")}
    ws.make_temp_dir()
    folders = {ws.config.temp_dir} | {str(r.get("folder")) for r in swaps.values()}
    for path in sorted(p for p in folders if _is_ours(ws, p)):
        with StagingFolder(path) as folder:
            for name in folder.sweep_parts():
                _keep(ws, folder, name, str(swaps.get(name, {}).get("rel", "")), done)


def _keep(ws: Workspace, folder: StagingFolder, name: str, rel: str, done: Recovered) -> None:
    """Keep what lies under a staged name, unless a swap is at work on it just now."""
    try:
        split_rel(rel)
        os.fsencode(rel)
    except ValueError:
        rel = ""
    rel = rel or f"unknown/{name}"
    ws.await_check()  # the catalog is asked whether these bytes are known
    with ws.locks.session() as locks:
        if not locks.take(rel) or not folder.has(name):
            return
        try:
            done.kept.append(keep_leftover(ws, folder, name, rel, None))
        except OSError as error:
            done.failures.append((name, error))


def _is_ours(ws: Workspace, path: str) -> bool:
    """Whether a staging folder named by the journal is one we may sweep: inside `temp_dir` or `data_dir`, no link."""
    homes = (ws.config.temp_dir, ws.config.data_dir)
    inside = any(path == home or path.startswith(f"{home}/") for home in homes)
    return inside and is_folder(path) and os.path.realpath(path) in (path, os.path.realpath(ws.config.temp_dir))
