"""Renames and flushes: the steps that make a file appear whole, or not at all, and stay.

Sources for the flags: renameat2(2), sync_file_range(2).  With `swap.py` the only module that renames.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Generic, TypeVar

_T = TypeVar("_T")
_NOREPLACE = 1
_EXCHANGE = 2
_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_NO_RENAMEAT2 = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_FLUSH_ALL_ABOVE = 32  # files; beyond this one flush of the file system is kinder than one per file

_libc = ctypes.CDLL(None, use_errno=True)


def _new_flushers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(7, thread_name_prefix="flush")


_flushers = _new_flushers()  # kept, because making a thread takes as long as a quick disk's flush


def _renew_flushers() -> None:
    global _flushers  # noqa: PLW0603  # threads do not outlive a fork
    _flushers = _new_flushers()


os.register_at_fork(after_in_child=_renew_flushers)


def _renameat2(src_dir: int, src: str, dst_dir: int, dst: str, flags: int) -> None:
    call = getattr(_libc, "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), dst)
    if call(src_dir, os.fsencode(src), dst_dir, os.fsencode(dst), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), dst)


def exchange(src_dir: int, src: str, dst_dir: int, dst: str) -> None:
    """Both names now show what the other one showed; neither was absent for an instant.

    Raises:
        OSError: nothing changed; EINVAL, ENOSYS or EOPNOTSUPP where the file system cannot exchange.
    """
    _renameat2(src_dir, src, dst_dir, dst, _EXCHANGE)


def cannot_exchange(error: OSError) -> bool:
    """Whether `error` says that this file system has no exchange at all."""
    return error.errno in _NO_RENAMEAT2


def rename_new(src_dir: int, src: str, dst_dir: int, dst: str) -> None:
    """`dst` now shows the file; an existing `dst` is never replaced.

    Raises:
        FileExistsError: `dst` was there; nothing changed.
    """
    try:
        _renameat2(src_dir, src, dst_dir, dst, _NOREPLACE)
    except OSError as error:
        if error.errno not in _NO_RENAMEAT2:
            raise
        os.link(src, dst, src_dir_fd=src_dir, dst_dir_fd=dst_dir, follow_symlinks=False)
        os.unlink(src, dir_fd=src_dir)


def link_new(src_dir: int, src: str, dst_dir: int, dst: str) -> None:
    """`dst` is a second name of the file; an existing `dst` is never replaced.

    Raises:
        FileExistsError: `dst` was there; nothing changed.
        OSError: it cannot be, for one across file systems; nothing changed.
    """
    os.link(src, dst, src_dir_fd=src_dir, dst_dir_fd=dst_dir, follow_symlinks=False)


def rename_over(src_dir: int, src: str, dst_dir: int, dst: str) -> None:
    """`dst` now shows the file, whatever it showed before."""
    os.rename(src, dst, src_dir_fd=src_dir, dst_dir_fd=dst_dir)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of `data` is handed to the kernel; a short write is continued."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a disk, or a quota, has no room left: no reading of a file says so, only a writing."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def flush(fds: Sequence[int]) -> dict[int, OSError]:
    """Make every file durable; return the descriptors that could not be, with the error of each.

    The flushes run side by side, so that a journalling file system commits them together.  Beyond
    a few dozen files of one file system, one flush of all of it is kinder than one per file.
    """
    left = fds if len(fds) <= _FLUSH_ALL_ABOVE else _not_flushed_at_once(fds)
    if not left:
        return {}
    others = [hand_over(partial(_fsync, fd)) for fd in left[1:]]  # begun before the first one, which is flushed here
    results = [(left[0], _fsync(left[0]))]
    for job in others:
        job.run()  # no thread came to it so far
    return _errors([*results, *((fd, job.future.result()) for fd, job in zip(left[1:], others, strict=True))])


def _not_flushed_at_once(fds: Sequence[int]) -> list[int]:
    """Flush the file systems that many of the files are on; return the files that are on none, or may be."""
    left: list[int] = []
    by_device: dict[int, list[int]] = {}
    for fd in fds:
        try:
            by_device.setdefault(os.fstat(fd).st_dev, []).append(fd)
        except OSError:
            left.append(fd)  # whether it can be flushed, the flush itself tells
    for group in by_device.values():
        if len(group) <= _FLUSH_ALL_ABOVE or _sync_file_system(group[0]) is not None:
            left += group
    return left


def begin(work: Callable[[], _T]) -> Future[_T]:
    """Run `work`, which waits for the disk, beside the caller; before this returns, where no thread can be made."""
    return hand_over(work).future


def begin_beside(work: Callable[[], _T]) -> Future[_T] | None:
    """As `begin` for work that waits for its caller too: None, and it is never done, where no thread can be made."""
    job = Job(work)
    try:
        _flushers.submit(job.run)
    except RuntimeError:
        if job.claim():
            return None
    return job.future


class Job(Generic[_T]):
    """Work that is done once at most, by whoever comes to it first."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self.future: Future[_T] = Future()
        self._work, self._begun = work, Lock()

    def claim(self) -> bool:
        """Whether nobody came to it so far; from now on nobody does."""
        return self._begun.acquire(blocking=False)

    def result(self) -> _T:
        """Return what came of it; it is done here, where no thread came to it so far."""
        self.run()
        return self.future.result()

    def run(self) -> None:
        if not self.claim():
            return
        try:
            result = self._work()
        except Exception as error:  # as an executor does: it is the waiter's
            self.future.set_exception(error)
        except BaseException as error:
            self.future.set_exception(error)
            raise
        else:
            self.future.set_result(result)


def hand_over(work: Callable[[], _T]) -> Job[_T]:
    """Have it done by a thread of ours; where the machine refuses one it is done by now, though it may be queued."""
    job = Job(work)
    try:
        _flushers.submit(job.run)
    except RuntimeError:
        job.run()
    return job


def _errors(results: Iterable[tuple[int, OSError | None]]) -> dict[int, OSError]:
    return {fd: error for fd, error in results if error is not None}


def _fsync(fd: int) -> OSError | None:
    try:
        os.fsync(fd)
    except OSError as error:
        return error
    return None


def _sync_file_system(fd: int) -> OSError | None:
    """One flush for everything on the file system of `fd`; syncfs(2) tells write-back errors since Linux 5.8."""
    if _libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        return OSError(code, os.strerror(code))
    return None


def flush_file_system(fd: int) -> None:
    """Everything on the file system of `fd` is durable, removed names too.

    Raises:
        OSError: some of it may not be.
    """
    if (error := _sync_file_system(fd)) is not None:
        raise error


def begin_write_back(fd: int, offset: int, count: int) -> None:
    """The disk is given these bytes of `fd` now, so that less is left for a flush, which alone tells of errors."""
    call = getattr(_libc, "sync_file_range", None)
    if call is not None:
        call(fd, ctypes.c_int64(offset), ctypes.c_int64(count), _WRITE)


def drop_cached_pages(fd: int) -> None:
    """The next read of `fd` comes from the disk, as far as the kernel allows."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_ahead(fd: int) -> None:
    """The disk is asked for all of `fd`, which will be read soon."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
