"""A process whose every flush asks for leave first: fsync, fdatasync, syncfs and the like, of all its threads.

The kernel holds the caller (seccomp_unotify(2)) until the answer, so that the power can be cut at exactly the n-th
flush, before it or just after it, whoever made it: Python, SQLite, or a child process.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

_NUMBERS = {
    "x86_64": {
        "arch": 0xC000003E,
        "seccomp": 317,
        "fsync": 74,
        "fdatasync": 75,
        "syncfs": 306,
        "msync": 26,
        "sync": 162,
    },
    "aarch64": {
        "arch": 0xC00000B7,
        "seccomp": 277,
        "fsync": 82,
        "fdatasync": 83,
        "syncfs": 267,
        "msync": 227,
        "sync": 81,
    },
}
_FLUSHES = ("fsync", "fdatasync", "syncfs", "msync", "sync")
_PIDFD_GETFD = 438
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_RECV, _SEND = 0xC0502100, 0xC0182101  # sizes 80 and 24
_CONTINUE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """Return why flushes cannot be held here, '' when they can."""
    return "" if platform.machine() in _NUMBERS else f"no call numbers are known for {platform.machine()}"


# in the child


def _install() -> int:
    """From now on every flush of this process and its children asks; return the descriptor to listen on."""
    numbers = _NUMBERS[platform.machine()]
    jump, load, give = 0x15, 0x20, 0x06
    program = [(load, 0, 0, 4), (jump, 1, 0, numbers["arch"]), (give, 0, 0, _ALLOW), (load, 0, 0, 0)]
    for index, name in enumerate(_FLUSHES):
        program.append((jump, len(_FLUSHES) - index, 0, numbers[name]))
    program += [(give, 0, 0, _ALLOW), (give, 0, 0, _ASK)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    whole = Program(len(program), ctypes.cast(code, ctypes.c_void_p))
    fd = _libc.syscall(numbers["seccomp"], 1, 8, ctypes.byref(whole))  # SET_MODE_FILTER, NEW_LISTENER
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(fd)


def _become(act: Callable[[], int], channel: socket.socket, out: Path) -> None:
    code = 70
    try:
        os.setsid()
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream in (1, 2):
            os.dup2(fd, stream)
        socket.send_fds(channel, [b"l"], [_install()])
        channel.close()
        code = act()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# in the parent


class Held:
    """A fork of this process in which `act` runs; `count` is how many flushes there were.

    A warm process is forked, because a new interpreter takes longer than all the rest of a cut.
    """

    def __init__(self, act: Callable[[], int], out: Path) -> None:
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            _become(act, theirs, out)
        theirs.close()
        self.code: int | None = None
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        ours.close()
        self._listener = fds[0]
        self.count = 0

    def run_to(
        self, stop_at: int, act: Callable[[bool], None], *, after: bool, idle: Callable[[], None] = lambda: None
    ) -> bool:
        """Let flushes pass until number `stop_at`, and call `act` before it, or after it was done.

        The process is killed while that flush is held.  False when it ended by itself before.
        """
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        try:
            while True:
                asks = any(fd == self._listener and how & select.POLLIN for fd, how in poll.poll(20))
                if asks and self._answer(stop_at, act, after):
                    return True
                if not asks:
                    idle()
                    if self._ended(os.WNOHANG):
                        return False
        finally:
            self.kill()

    def _answer(self, stop_at: int, act: Callable[[bool], None], after: bool) -> bool:
        asked = bytearray(80)
        try:
            fcntl.ioctl(self._listener, _RECV, asked)
        except OSError:
            return False  # the caller died meanwhile
        cookie, pid, _, number, _, _, argument = struct.unpack_from("=QIIiIQQ", asked)
        self.count += 1
        if self.count == stop_at:
            if after:
                self._flush_for(pid, number, argument)
            act(after)
            os.killpg(self._pid, signal.SIGKILL)
            return True
        try:
            fcntl.ioctl(self._listener, _SEND, struct.pack("=QqiI", cookie, 0, 0, _CONTINUE))
        except FileNotFoundError:
            return False
        return False

    @staticmethod
    def _flush_for(pid: int, number: int, fd: int) -> None:
        """Make the flush ourselves: the caller never gets to know that it succeeded."""
        tgid = next(
            int(line.split()[1])
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("Tgid")
        )
        pidfd = os.pidfd_open(tgid)
        try:
            ours = _libc.syscall(_PIDFD_GETFD, pidfd, int(fd), 0)
            if ours < 0:
                return
            _libc.syscall(number, ours)
            os.close(ours)
        finally:
            os.close(pidfd)

    def _ended(self, flags: int = 0) -> bool:
        """Whether the process is gone; `code` tells how it ended."""
        if self.code is None:
            pid, status = os.waitpid(self._pid, flags)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def kill(self) -> None:
        """The process and its children are gone."""
        if not self._ended(os.WNOHANG):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            self._ended()
        if self._listener >= 0:
            os.close(self._listener)
        self._listener = -1
