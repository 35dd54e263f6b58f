"""Put chosen bytes in the place of a live file: stage, swap, keep what came out.  Used by every heal and restore."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep

from agent.checks import check
from agent.core.model import Grade, Ownership, Reason, Shape
from agent.disk import swap
from agent.disk.beneath import folder_beneath
from agent.disk.capture import CHUNK_BYTES, Capture, digest_of, open_data_file, ownership_of
from agent.disk.staging import StagedFile, StagingFolder
from agent.disk.store import Draft, Refused
from agent.disk.swap import Swapped, SwapResult
from agent.workspace import Workspace

Fill = Callable[[StagedFile], bool]


@dataclass(slots=True)
class Displaced:
    """A damaged inode that a swap took out of sight, kept open: a write that still reaches it is news."""

    rel: str
    fd: int
    digest: str

    def has_changed(self) -> bool:
        return digest_of(self.fd) != self.digest

    def close(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Judged:
    """The state that is to be replaced, and what a check said of it."""

    capture: Capture
    grade: Grade


@dataclass(frozen=True, slots=True)
class PutBack:
    """How it ended.  `filled` is False when the chosen bytes could not be had: nothing was touched."""

    done: bool = False
    filled: bool = True
    undone: bool = False
    kept_as: str | None = None  # the copy of what was replaced
    displaced: Displaced | None = None


def put_back(ws: Workspace, root_fd: int, rel: str, *, judged: Judged | None, good: str, fill: Fill) -> PutBack:
    """The live file `rel` shows the bytes that `fill` writes, whose digest is `good`, or what the bot wrote meanwhile.

    `judged` is the present state, None when the file is missing.  Owner, group, mode and extended attributes stay.
    A copy of what was replaced is kept.

    Raises:
        OSError: the live file shows what it showed; staged bytes that might be the bot's are swept at the next start.
    """
    folder, _, name = rel.rpartition("/")
    with ExitStack() as held:
        folder_fd = held.enter_context(folder_beneath(root_fd, folder, create_mode=None if judged else 0o700))
        staging = held.enter_context(ws.live_staging(root_fd, rel))
        staged = staging.create()
        held.callback(staged.close)
        try:
            filled = fill(staged)
            if filled:
                _dress(ws, root_fd, rel, staged, judged)
                os.fsync(staged.fd)
            if filled and judged is not None:
                staged.mark_complete()
        except BaseException:
            staged.discard()
            raise
        if not filled:
            staged.discard()
            return PutBack(filled=False)
        if judged is None:
            result = swap.put_missing(folder_fd, name, staged)
            staged.discard()
            os.fsync(folder_fd)
            return PutBack(done=result.how is Swapped.DONE)
        ws.journal.append_durably(
            {"op": "swap", "rel": rel, "folder": staging.path, "staged": staged.name, "judged": judged.capture.digest, "good": good}
        )  # fmt: skip
        return _swap(ws, root_fd, folder_fd, staged, judged)


def _dress(ws: Workspace, root_fd: int, rel: str, staged: StagedFile, judged: Judged | None) -> None:
    """Give the staged file what the live one has, or had when it was last seen."""
    if judged is None:
        past = ws.catalog.file(rel)
        swap.dress(
            staged.fd, past.ownership if past and past.ownership else Ownership(os.geteuid(), os.getegid(), 0o600)
        )
        return
    like_fd = open_data_file(root_fd, rel)
    try:
        swap.dress(staged.fd, judged.capture.ownership, like_fd)
    finally:
        os.close(like_fd)


def _swap(ws: Workspace, root_fd: int, folder_fd: int, staged: StagedFile, judged: Judged) -> PutBack:
    """Exchange, flush, keep what came out."""
    rel, grace_s = judged.capture.rel, ws.config.recovery.swap_grace_s
    kept: list[str] = []
    try:
        result = swap.swap_in(
            root_fd, folder_fd, rel, staged, judged=judged.capture.digest,
            keep=lambda _: kept.append(_keep_copy(ws, judged)), grace=lambda: sleep(grace_s),
        )  # fmt: skip
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        kept.append(_keep_copy(ws, judged))
        result = _write_in_place(root_fd, rel, staged, judged)
    os.fsync(folder_fd)
    if result.leftover:
        known = judged if result.how is Swapped.DONE else None
        kept.append(keep_leftover(ws, staged.folder, staged.name, rel, known))
    else:
        staged.discard()
    displaced = Displaced(rel, result.displaced_fd, judged.capture.digest) if result.displaced_fd >= 0 else None
    return PutBack(result.how is Swapped.DONE, True, result.undone, kept[0] if kept else None, displaced)


def _write_in_place(root_fd: int, rel: str, staged: StagedFile, judged: Judged) -> SwapResult:
    """A file that is itself a mount point cannot be renamed over."""
    good_fd = os.open(staged.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.folder.fd)
    try:
        return swap.write_in_place(root_fd, rel, good_fd, judged=judged.capture.digest)
    finally:
        os.close(good_fd)


def _keep_copy(ws: Workspace, judged: Judged) -> str:
    """A copy of the judged bytes is kept, durably; return its name."""
    if known := _known_copy(ws, judged.capture.rel, judged.capture.digest):
        return known
    caught = judged.capture
    return _publish(ws, _aside(ws, caught.rel, caught.digest, caught.content, caught.ownership, judged.grade))


def keep_leftover(ws: Workspace, folder: StagingFolder, name: str, rel: str, known: Judged | None) -> str:
    """What lies under a staged name is kept aside unless a copy of it is known; return the name of the copy.

    `known` is the judgement on these bytes, None when they have yet to be graded.  The staged name is gone afterwards.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)
    try:
        digest = known.capture.digest if known else digest_of(fd)
        copy = _known_copy(ws, rel, digest)
        if copy is None:
            grade = known.grade if known else _grade_of(ws, rel, os.path.join(folder.path, name))
            draft = _aside(ws, rel, digest, b"", ownership_of(os.fstat(fd)), grade)
            size = os.fstat(fd).st_size
            moved = ws.store.move_aside(folder.fd, name, draft, size)
            if moved is not None:
                ws.catalog.add_snapshots([moved])
                return moved.name
            copy = _copy_aside(ws, fd, draft)
        os.unlink(name, dir_fd=folder.fd)
        return copy
    finally:
        os.close(fd)


def _known_copy(ws: Workspace, rel: str, digest: str) -> str | None:
    """The name of a copy of these bytes that is there, whole, on any shelf."""
    return next((s.name for s in ws.catalog.snapshots(rel) if s.digest == digest and ws.store.is_intact(s)), None)


def _aside(
    ws: Workspace, rel: str, digest: str, content: bytes | StagedFile, ownership: Ownership, grade: Grade
) -> Draft:
    """A draft for quarantine.  What looks good but was displaced is suspect: no restore may choose it by itself."""
    aside = grade if grade in (Grade.CORRUPT, Grade.INVALID) else Grade.SUSPECT
    shape: Shape | None = None
    return Draft(rel, content, digest, ownership, aside, Reason.PRE_RESTORE, shape, ws.stamp(rel))


def keep_late_write(ws: Workspace, displaced: Displaced) -> str:
    """What was written into a displaced file after all is kept and graded; return the name of the copy."""
    status = os.fstat(displaced.fd)
    with ws.store.staging() as staging:
        copy = _copied(displaced.fd, staging)
        grade = _grade_of(ws, displaced.rel, copy.path)
        digest = digest_of(copy.fd)
        return _publish(ws, _aside(ws, displaced.rel, digest, copy, ownership_of(status), grade))


def _grade_of(ws: Workspace, rel: str, path: str) -> Grade:
    return check(Path(path), ws.config.rule_for(rel).check).grade


def _copy_aside(ws: Workspace, fd: int, draft: Draft) -> str:
    """The bytes of `fd` are kept in the store, which lies on another file system."""
    with ws.store.staging() as staging:
        return _publish(ws, replace(draft, content=_copied(fd, staging)))


def _copied(fd: int, staging: StagingFolder) -> StagedFile:
    copy = staging.create()
    offset = 0
    while chunk := os.pread(fd, CHUNK_BYTES, offset):
        copy.write(chunk)
        offset += len(chunk)
    return copy


def _publish(ws: Workspace, draft: Draft) -> str:
    with ws.store.staging() as staging:
        done = ws.store.publish([draft], staging)[0]
    if isinstance(done, Refused):
        raise done.error if isinstance(done.error, OSError) else OSError(errno.EIO, str(done.error))
    ws.catalog.add_snapshots([done])
    return done.name
