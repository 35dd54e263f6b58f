"""Put chosen bytes in the place of a live file: stage, swap, keep what came out.  Used by every heal and restore."""

import contextlib
import errno
import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from time import sleep

from msgspec import Struct
from msgspec.structs import replace

from agent.core.model import Ownership
from agent.disk import swap
from agent.disk.atomic import begin
from agent.disk.beneath import folder_beneath, open_folder
from agent.disk.capture import NotADataFileError, digest_of, open_data_file, ownership_of
from agent.disk.dress import dress
from agent.disk.staging import StagedFile, StagingFolder
from agent.disk.swap import Swapped, SwapResult
from agent.displaced import Displaced, Judged, keep_copy, keep_leftover
from agent.workspace import Workspace

_DIGESTED_AT_ONCE_BYTES = 64 * 1024

Fill = Callable[[StagedFile], bool]


class PutBack(Struct, frozen=True):
    """How it ended.  `filled` is False when the chosen bytes could not be had: nothing was touched."""

    done: bool = False
    filled: bool = True
    undone: bool = False
    kept_as: str | None = None  # the copy of what was replaced
    displaced: Displaced | None = None


def put_back(ws: Workspace, root_fd: int, rel: str, *, judged: Judged | None, good: str, fill: Fill) -> PutBack:
    """The live file `rel` shows the bytes that `fill` writes, whose digest is `good`, or what the bot wrote meanwhile.

    The digest is taken of what was written, beside its flush; nothing else is ever put in.
    `judged` is the present state, None when the file is missing.  Owner, group, mode and extended attributes stay.
    A copy of what was replaced is kept.

    Raises:
        OSError: nothing of the bot's is lost: the live file shows what it showed, or, when what a swap displaced could
            not be kept yet, the good bytes; the displaced ones are then kept at the next start.
    """
    place = _Place(ws, root_fd, rel, judged, good)
    if judged is None:
        os.close(_open_live_folder(place, rel.rpartition("/")[0]))  # it may have to be made
    try:
        return _stage(place, ws.live_staging(root_fd, rel), fill)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # One device, but another mount than `temp_dir`: only the file's own folder is sure to be on the same.
    return _stage(place, StagingFolder(ws.config.data_dir, below=rel.rpartition("/")[0]), fill)


class _Place(Struct, frozen=True):
    """Where good bytes are to go, and what is there."""

    ws: Workspace
    root_fd: int
    rel: str
    judged: Judged | None
    good: str


def _stage(place: _Place, staging_folder: StagingFolder, fill: Fill) -> PutBack:
    """Prepare the bytes beside the live file, whole and durable, and give them its name."""
    folder, _, name = place.rel.rpartition("/")
    with ExitStack() as held:
        folder_fd = _open_live_folder(place, folder)
        held.callback(os.close, folder_fd)
        staged = held.enter_context(staging_folder).create()
        held.callback(staged.close)
        try:
            if not fill(staged):
                staged.discard()
                return PutBack(filled=False)
            if not _dress(place, staged):
                staged.discard()
                return PutBack()
            flushed, digest = begin(lambda: os.fsync(staged.fd)), _begin_digest(staged.fd)
            try:
                if place.judged is not None:
                    _announce(place, staged)
            finally:
                for beside in (flushed.exception, digest.exception):
                    beside()  # their descriptor is closed after this at the earliest
            flushed.result()
            if digest.result() != place.good:
                staged.discard()
                return PutBack(filled=False)
            if place.judged is None:
                result = swap.put_missing(folder_fd, name, staged)
            else:
                staged.mark_complete()
        except BaseException:
            staged.discard()
            raise
        if place.judged is not None:
            return _swap(place, place.judged, folder_fd, staged)
        staged.discard()
        os.fsync(folder_fd)
        return PutBack(done=result.how is Swapped.DONE)


def _begin_digest(fd: int) -> Future[str]:
    """The digest of what was written; a small file is digested before a thread could begin."""
    if os.fstat(fd).st_size > _DIGESTED_AT_ONCE_BYTES:
        return begin(lambda: digest_of(fd))
    digest = Future[str]()
    digest.set_result(digest_of(fd))
    return digest


def _open_live_folder(place: _Place, folder: str) -> int:
    """The folder of the live file; one that has to be made for a missing file is like the folder it is made in."""
    if place.judged is not None:
        return open_folder(place.root_fd, folder)
    created: list[str] = []
    folder_fd = open_folder(place.root_fd, folder, create_mode=0o700, created=created)
    for made in created:
        with (
            folder_beneath(place.root_fd, made.rpartition("/")[0]) as parent_fd,
            folder_beneath(place.root_fd, made) as made_fd,
            contextlib.suppress(PermissionError),
        ):
            like = ownership_of(os.fstat(parent_fd))
            os.fchown(made_fd, like.uid, like.gid)
            os.fchmod(made_fd, like.mode)
            os.fsync(parent_fd)
    return folder_fd


def _announce(place: _Place, staged: StagedFile) -> None:
    """The journal knows whose the name is that the staged file is about to get and that may come to show bytes of the
    bot: a kill at any point leaves a part, which is swept, or a name that is known.
    """
    assert place.judged is not None
    place.ws.journal.append_durably(
        {
            "op": "swap", "rel": place.rel, "folder": staged.folder.path, "staged": staged.complete_name,
            "judged": place.judged.capture.digest, "good": place.good,
        }
    )  # fmt: skip


def _dress(place: _Place, staged: StagedFile) -> bool:
    """Give the staged file what the live one has, or had when it was last seen; False when the bot took it away."""
    if place.judged is None:
        past = place.ws.catalog.file(place.rel)
        dress(staged.fd, past.ownership if past and past.ownership else _ownership_like_folder(place))
        return True
    try:
        like_fd = open_data_file(place.root_fd, place.rel)
    except (FileNotFoundError, NotADataFileError):
        return False
    try:
        dress(staged.fd, place.judged.capture.ownership, like_fd)
    finally:
        os.close(like_fd)
    return True


def _ownership_like_folder(place: _Place) -> Ownership:
    """Owner and group of the folder, for a file of which nothing else is known."""
    with folder_beneath(place.root_fd, place.rel.rpartition("/")[0]) as folder_fd:
        return replace(ownership_of(os.fstat(folder_fd)), mode=0o600)


def _swap(place: _Place, judged: Judged, folder_fd: int, staged: StagedFile) -> PutBack:
    """Exchange, flush, keep what came out."""
    ws, rel, grace_s = place.ws, place.rel, place.ws.config.recovery.swap_grace_s
    kept: list[str] = []
    flushes: list[Future[None]] = []
    ours = os.fstat(staged.fd).st_ino

    def grace() -> None:
        flushes.append(begin(lambda: os.fsync(folder_fd)))  # what was exchanged is durable by the end of it
        sleep(grace_s)

    try:
        result = swap.swap_in(
            place.root_fd, folder_fd, rel, staged, judged=judged.capture.digest,
            keep=lambda _: kept.append(keep_copy(ws, judged)), grace=grace,
        )  # fmt: skip
    except OSError as error:
        try:
            if error.errno != errno.EBUSY:
                raise
            kept.append(keep_copy(ws, judged))
            result = _write_in_place(place.root_fd, rel, staged, judged)
        except OSError:
            _discard_ours(staged, ours)
            raise
    finally:
        wait(flushes)
    displaced: Displaced | None = None
    try:
        if result.displaced_fd >= 0:
            digest = judged.capture.digest if result.how is Swapped.DONE else digest_of(result.displaced_fd)
            displaced = Displaced(rel, result.displaced_fd, digest)
        if result.how is Swapped.DONE and flushes:
            flushes[0].result()
        else:
            os.fsync(folder_fd)
        if result.leftover:
            known = judged if result.how is Swapped.DONE else None
            kept.append(keep_leftover(ws, staged.folder, staged.name, rel, known))
        else:
            staged.discard()
    except BaseException:
        if result.displaced_fd >= 0:
            os.close(result.displaced_fd)
        raise
    return PutBack(result.how is Swapped.DONE, True, result.undone, kept[0] if kept else None, displaced)


def _discard_ours(staged: StagedFile, ours: int) -> None:
    """The staged file is gone, unless its name shows another one: that is the bot's, and the next start keeps it."""
    with contextlib.suppress(OSError):
        if os.stat(staged.name, dir_fd=staged.folder.fd, follow_symlinks=False).st_ino == ours:
            staged.discard()


def _write_in_place(root_fd: int, rel: str, staged: StagedFile, judged: Judged) -> SwapResult:
    """A file that is itself a mount point cannot be renamed over."""
    good_fd = os.open(staged.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.folder.fd)
    try:
        return swap.write_in_place(root_fd, rel, good_fd, judged=judged.capture.digest)
    finally:
        os.close(good_fd)
