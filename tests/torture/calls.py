"""The system calls that touch a folder, what may befall one, and with which errors it can fail (x86-64 Linux)."""

import errno
from dataclasses import dataclass
from enum import Enum, auto

# Where a call names what it touches: a descriptor or a path in the first argument, a path below a folder, or two.
FD, PATH, AT, TWO_PATHS, TWO_AT = range(5)
CALLS = {
    0: ("read", FD), 1: ("write", FD), 2: ("open", PATH), 3: ("close", FD), 4: ("stat", PATH), 5: ("fstat", FD),
    6: ("lstat", PATH), 8: ("lseek", FD), 16: ("ioctl", FD), 17: ("pread64", FD), 18: ("pwrite64", FD),
    19: ("readv", FD), 20: ("writev", FD), 21: ("access", PATH), 32: ("dup", FD), 33: ("dup2", FD),
    72: ("fcntl", FD), 73: ("flock", FD), 74: ("fsync", FD), 75: ("fdatasync", FD), 76: ("truncate", PATH),
    77: ("ftruncate", FD), 80: ("chdir", PATH), 81: ("fchdir", FD), 82: ("rename", TWO_PATHS), 83: ("mkdir", PATH),
    84: ("rmdir", PATH), 85: ("creat", PATH), 86: ("link", TWO_PATHS), 87: ("unlink", PATH), 88: ("symlink", PATH),
    89: ("readlink", PATH), 90: ("chmod", PATH), 91: ("fchmod", FD), 92: ("chown", PATH), 93: ("fchown", FD),
    94: ("lchown", PATH), 137: ("statfs", PATH), 138: ("fstatfs", FD), 188: ("setxattr", PATH),
    190: ("fsetxattr", FD), 191: ("getxattr", PATH), 193: ("fgetxattr", FD), 194: ("listxattr", PATH),
    196: ("flistxattr", FD), 199: ("fremovexattr", FD), 217: ("getdents64", FD), 221: ("fadvise64", FD),
    257: ("openat", AT), 258: ("mkdirat", AT), 260: ("fchownat", AT), 262: ("newfstatat", AT),
    263: ("unlinkat", AT), 264: ("renameat", TWO_AT), 265: ("linkat", TWO_AT), 267: ("readlinkat", AT),
    268: ("fchmodat", AT), 269: ("faccessat", AT), 277: ("sync_file_range", FD), 280: ("utimensat", AT),
    285: ("fallocate", FD), 292: ("dup3", FD), 295: ("preadv", FD), 296: ("pwritev", FD), 306: ("syncfs", FD),
    316: ("renameat2", TWO_AT), 326: ("copy_file_range", FD), 332: ("statx", AT), 437: ("openat2", AT),
    439: ("faccessat2", AT),
}  # fmt: skip


class Strike(Enum):
    """What befalls the call."""

    KILL = auto()  # the whole process, before the call is done
    FAIL = auto()  # this call is not done and returns an error
    KEEP_FAILING = auto()  # so do all later ones that can fail in this way
    SHORT = auto()  # a write is done by half


@dataclass(frozen=True)
class Blow:
    """`strike` at the `at`-th call (from 1); `code` is the error to return."""

    strike: Strike
    at: int
    code: int = 0


@dataclass(frozen=True)
class Call:
    """One system call: its name, and the path that it touches (the one that appears, where there are two)."""

    name: str
    path: str
    creates: bool = False
    waits: bool = False  # for a lock
    unlocks: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.path}"

    @property
    def changes_the_disk(self) -> bool:
        """Whether what a kill leaves behind may differ before and after this call; locks go with the process."""
        return self.creates or self.name in _MAKING or self.name in _UNMAKING

    def can_fail_with(self, code: int) -> bool:
        """Whether the manual page of the call knows this error, or a disk that breaks would bring it."""
        if self.unlocks:  # the kernel has nothing to refuse there, and SQLite cannot go on from it
            return False
        makes = self.creates or self.name in _MAKING
        return {
            errno.EIO: True,
            errno.ENOSPC: makes,
            errno.EACCES: self.name in _BY_NAME,
            errno.EMFILE: self.name in _OPENING,
            errno.EINTR: self.name in _SLOW or self.waits,
        }.get(code, True)


_OPENING = {"open", "openat", "openat2", "creat", "dup", "dup3"}
_MAKING = {
    "write", "writev", "pwrite64", "pwritev", "mkdir", "mkdirat", "link", "linkat", "symlink", "rename", "renameat",
    "renameat2", "ftruncate", "fallocate", "fsync", "fdatasync", "syncfs", "fsetxattr", "setxattr", "copy_file_range",
}  # fmt: skip
_UNMAKING = {
    "unlink", "unlinkat", "rmdir", "truncate", "fchmod", "fchmodat", "chmod", "fchown", "fchownat", "chown", "lchown",
    "fremovexattr", "utimensat", "creat",
}  # fmt: skip
_BY_NAME = {name for name, kind in CALLS.values() if kind != FD} | {"fcntl", "setlease"}
_SLOW = {
    "open", "openat", "openat2", "creat", "read", "readv", "pread64", "write", "writev", "pwrite64", "close", "fsync",
    "fdatasync", "syncfs", "flock", "ftruncate", "fallocate",
}  # fmt: skip
