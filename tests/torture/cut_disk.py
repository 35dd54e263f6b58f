"""A file system in an image that can lose its power: made once, set up again from a copy for every cut.

Three cuts, each of which also ends every write that is under way:

* `nolog`: the file system's shutdown call, nothing flushed (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN, flag 2).  What was not
  made durable is lost.  btrfs does not know the call (ENOTTY on Linux 6.18): there only the third cut exists.
* `log`: the same with the journal flushed first (flag 1): metadata survives, data that was not flushed does not.
* `device`: the disk itself goes, with its volatile cache.  The image lies on an outer ext4, which is shut down: writes that
  the inner file system sent and never flushed are lost too.  Works for every file system.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), the same number for ext4, f2fs, xfs
FLAGS = {"log": 1, "nolog": 2}
CUTS = ("nolog", "log", "device")
SIZE_MIB = {"ext4": 48, "xfs": 300, "btrfs": 128}
MKFS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
FAST_DISK = Path("/dev/shm")


def missing_tools(fs: str) -> str:
    """Return why this file system cannot be cut here, '' when it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices"
    if f"\t{fs}\n" not in Path("/proc/filesystems").read_text():
        return f"the kernel does not know {fs}"
    return "" if shutil.which(MKFS[fs][0]) else f"there is no {MKFS[fs][0]}"


def cuts_of(fs: str) -> tuple[str, ...]:
    return ("device",) if fs == "btrfs" else CUTS


class CutDisk:
    """One mounted file system; `at` is where.  Use as a context: it leaves neither mount nor loop device."""

    def __init__(self, fs: str, cut: str, scratch: Path) -> None:
        self.fs, self.cut_kind = fs, cut
        self.at = scratch / "disk"
        self._outer_at = scratch / "outer"
        self._image = scratch / "image"
        self._base = scratch / "base"
        self._loops: list[str] = []
        self._cut = False

    def __enter__(self) -> "CutDisk":
        self.at.mkdir()
        self._outer_at.mkdir()
        size = SIZE_MIB[self.fs] << 20
        if self.cut_kind == "device":
            _make_image(self._image, "ext4", size * 5 // 4 + (32 << 20))
            self._mount_outer()
            inner = self._outer_at / "inner"
            with inner.open("wb") as stream:  # written in full: what is lost later is data, not the room for it
                for _ in range(size >> 20):
                    stream.write(b"\0" * (1 << 20))
                os.fsync(stream.fileno())
            run(*MKFS[self.fs], str(inner))
        else:
            _make_image(self._image, self.fs, size)
        self._mount_inner()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()
        for path in (self._image, self._base):
            path.unlink(missing_ok=True)

    def keep_as_base(self) -> None:
        """What is there now is where every later `reset` begins."""
        self.unmount()
        run("cp", "--sparse=always", str(self._image), str(self._base))
        self.mount()

    def reset(self) -> None:
        self.unmount()
        run("cp", "--sparse=always", str(self._base), str(self._image))
        self.mount()

    def cut(self) -> None:
        """The power is gone: nothing that was not durable comes back, and every call to the disk fails from now on."""
        self._cut = True
        fd = os.open(self._outer_at if self.cut_kind == "device" else self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", FLAGS.get(self.cut_kind, 2)))
        finally:
            os.close(fd)

    def power_on(self) -> None:
        """Mount again what the cut left; the file system mends itself from its journal."""
        self.unmount()
        self.mount()

    def mount(self) -> None:
        if self.cut_kind == "device":
            self._mount_outer()
        self._mount_inner()

    def unmount(self) -> None:
        _unmount(self.at)
        if self.cut_kind == "device" and self._loops:
            self._detach(self._loops.pop())
            _unmount(self._outer_at)
        while self._loops:
            self._detach(self._loops.pop())
        self._cut = False

    def _mount_outer(self) -> None:
        # The outer journal is committed by flushes alone, so that the disk's cache is as volatile as can be.
        run("mount", "-o", "commit=300", self._attach(self._image), str(self._outer_at))

    def _mount_inner(self) -> None:
        image = self._outer_at / "inner" if self.cut_kind == "device" else self._image
        run("mount", self._attach(image), str(self.at))

    def _attach(self, image: Path) -> str:
        loop = run("losetup", "-f", "--show", str(image))
        self._loops.append(loop)
        return loop

    @staticmethod
    def _detach(loop: str) -> None:
        run("losetup", "-d", loop)


def _make_image(path: Path, fs: str, size: int) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)
    run(*MKFS[fs], str(path))


def _unmount(at: Path) -> None:
    """Nothing is mounted there any more; processes that were just killed may hold it for a moment."""
    deadline = time.monotonic() + 20
    while f" {at} " in Path("/proc/self/mounts").read_text():
        done = subprocess.run(["umount", str(at)], capture_output=True, text=True, check=False)
        if done.returncode and time.monotonic() > deadline:
            raise OSError(errno.EBUSY, done.stderr.strip())
        if done.returncode:
            time.sleep(0.02)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def cut_disk(fs: str, cut: str) -> Iterator[CutDisk]:
    """Lend a disk whose images lie in memory, where there is such a place."""
    parent = FAST_DISK if FAST_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="cut-", dir=parent) as scratch, CutDisk(fs, cut, Path(scratch)) as disk:
        try:
            yield disk
        finally:
            with suppress(OSError, RuntimeError):
                disk.unmount()
