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
import subprocess
import sys
from collections.abc import Callable, Sequence
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


def _become(channel: int, command: Sequence[str]) -> None:
    with socket.socket(fileno=channel) as to_parent:
        socket.send_fds(to_parent, [b"l"], [_install()])
    os.execvp(command[0], list(command))


# in the parent


class Held:
    """A running command.  `step` waits for one flush and lets it pass; `count` is how many there were."""

    def __init__(self, command: Sequence[str], out: Path) -> None:
        ours, theirs = socket.socketpair()
        with out.open("wb") as stream:
            self.child = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *command],
                stdout=stream, stderr=stream, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        theirs.close()
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
                    if self.child.poll() is not None:
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
            os.killpg(self.child.pid, signal.SIGKILL)
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

    def kill(self) -> None:
        """The process and its children are gone."""
        if self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        if self._listener >= 0:
            os.close(self._listener)
        self._listener = -1


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
