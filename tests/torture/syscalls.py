"""Run a function in a child and strike it at its n-th system call that touches a folder: kill it, or let the call fail.

A tracer of its own instead of `strace -e inject=...:when=N`: that one counts per thread and per name of a call, so that
the calls of a pool of threads cannot all be reached, and it needs a new interpreter for each run.  Here one count goes
over all threads, a warm process is forked, and only calls whose path or descriptor leads below the folder count.

Sources: ptrace(2), seccomp(2) (SECCOMP_RET_TRACE), syscall(2) for the registers of x86-64.
"""

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from calls import CALLS, Blow, Call, Strike

# sched_get_priority_max and _min: they touch nothing, and nobody calls them by chance.
_MARK, _ASIDE = 146, 147

_TRACEME, _CONT, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS, _GETEVENTMSG = 0, 7, 12, 13, 24, 0x4200, 0x4201
_OPTIONS = 0x00100000 | 0x80 | 0x10 | 0x08 | 0x04 | 0x02 | 0x01  # EXITKILL, SECCOMP, EXEC, CLONE, VFORK, FORK, SYSGOOD
_SECCOMP_STOP = 7
_WALL = 0x40000000
_R10, _RAX, _RDX, _RSI, _RDI, _ORIG_RAX = 7, 10, 12, 13, 14, 15
_AT_FDCWD = -100
_WORD = 2**64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


_SETLK, _SETLKW, _F_UNLCK = (6, 37), (7, 38), 2  # also those of open file descriptions
_DUPFD, _SETLEASE = (0, 1030), 1024


@dataclass
class Ended:
    """How a traced run ended; `code` is its exit code, negative for the signal that ended it."""

    code: int = 0
    calls: list[Call] = field(default_factory=list)
    struck: Call | None = None  # None when the run ended before the blow


def can_trace() -> bool:
    """Whether processes can be traced here: x86-64 Linux, in a container that permits ptrace."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        return run_traced(lambda: 0, below="/").code == 0
    except PermissionError:
        return False


def mark() -> None:
    """In a traced run: only what comes after this counts."""
    os.sched_get_priority_max(os.SCHED_OTHER)


def stand_aside() -> None:
    """In a traced run: what this thread does from here on does not count and is not struck."""
    os.sched_get_priority_min(os.SCHED_OTHER)


def run_traced(act: Callable[[], int], *, below: str, blow: Blow | None = None, from_mark: bool = False) -> Ended:
    """Fork, run `act` there, deliver the blow; return how it ended once it and all its threads are gone.

    The caller has no other children, and no thread that holds a lock which `act` needs.  With `from_mark` the count begins at `mark`.
    """
    pid = os.fork()
    if pid == 0:
        _be_traced(act)
    tracer = _Tracer(pid, below, blow, counting=not from_mark)
    try:
        return tracer.run()
    except BaseException:  # a time limit, say
        os.kill(pid, signal.SIGKILL)
        tracer.reap()
        raise


def _be_traced(act: Callable[[], int]) -> None:
    code = 99
    try:
        if _libc.ptrace(_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        _install_filter()
        code = act()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _install_filter() -> None:
    """Calls that may touch files stop for the tracer, all others run at full speed."""
    program = [_bpf(0x20, 0, 0, 0)]  # load the number of the call
    for number in (*CALLS, _MARK, _ASIDE):
        program += [_bpf(0x15, 0, 1, number), _bpf(0x06, 0, 0, 0x7FF00000 | number)]  # equal: RET_TRACE
    program.append(_bpf(0x06, 0, 0, 0x7FFF0000))  # RET_ALLOW
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    if _libc.prctl(38, 1, 0, 0, 0) or _libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(header)), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls")


def _bpf(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


class _Tracer:
    def __init__(self, pid: int, below: str, blow: Blow | None, *, counting: bool) -> None:
        self._leader, self._below, self._blow, self._counting = pid, below, blow, counting
        self._ended = Ended()
        self._aside: set[int] = set()
        self._owed: dict[int, int] = {}  # thread -> error that its call returns although it is done
        self._registers = (ctypes.c_ulonglong * 27)()

    def run(self) -> Ended:
        _, status = os.waitpid(self._leader, 0)
        if not os.WIFSTOPPED(status):
            raise PermissionError("ptrace is not permitted here")
        self._ask(_SETOPTIONS, self._leader, _OPTIONS)
        self._ask(_CONT, self._leader, 0)
        while True:
            tid, status = os.waitpid(-1, _WALL)
            if not os.WIFSTOPPED(status):
                if tid == self._leader:
                    self._ended.code = os.waitstatus_to_exitcode(status)
                    self.reap()
                    return self._ended
                continue
            self._go_on(tid, status)

    def _go_on(self, tid: int, status: int) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        resume, pass_on = _CONT, 0
        if event == _SECCOMP_STOP:
            resume = self._at_call(tid)
        elif number == signal.SIGTRAP | 0x80:
            self._at_return(tid)
        elif not event and number != signal.SIGSTOP:  # a new thread begins with SIGSTOP
            pass_on = number
        self._ask(resume, tid, pass_on)

    def _at_call(self, tid: int) -> int:
        """One call begins; strike if it is the one.  Return how to go on."""
        message = ctypes.c_ulong()
        self._ask(_GETEVENTMSG, tid, ctypes.addressof(message))
        if message.value == _MARK:
            self._counting = True
        elif message.value == _ASIDE:
            self._aside.add(tid)
        if (
            not self._counting
            or tid in self._aside
            or message.value not in CALLS
            or not self._ask(_GETREGS, tid, self._regs())
        ):
            return _CONT
        call = self._call(tid, *CALLS[message.value])
        if call is None:
            return _CONT
        self._ended.calls.append(call)
        return self._strike(tid, call, self._blow) if self._blow is not None else _CONT

    def _strike(self, tid: int, call: Call, blow: Blow) -> int:
        count = len(self._ended.calls)
        again = blow.strike is Strike.KEEP_FAILING and count > blow.at
        if count != blow.at and not again:
            return _CONT
        if blow.code and not call.can_fail_with(blow.code):
            return _CONT  # threads changed the order of the calls
        self._ended.struck = self._ended.struck or call
        if blow.strike is Strike.KILL:
            os.kill(self._leader, signal.SIGKILL)
        elif blow.strike is Strike.SHORT:
            self._registers[_RDX] = max(1, self._registers[_RDX] // 2)
            self._ask(_SETREGS, tid, self._regs())
        elif call.name == "close":  # the descriptor is gone even when close fails
            self._owed[tid] = blow.code
            return _SYSCALL
        else:
            self._registers[_ORIG_RAX], self._registers[_RAX] = _WORD - 1, _WORD - blow.code
            self._ask(_SETREGS, tid, self._regs())
        return _CONT

    def _at_return(self, tid: int) -> None:
        code = self._owed.pop(tid, 0)
        if code and self._ask(_GETREGS, tid, self._regs()):
            self._registers[_RAX] = _WORD - code
            self._ask(_SETREGS, tid, self._regs())

    def _call(self, tid: int, name: str, kind: int) -> Call | None:
        """The call, if what it touches lies below the folder."""
        first, second, third, fourth = (self._registers[i] for i in (_RDI, _RSI, _RDX, _R10))
        try:
            match kind:
                case 0:
                    paths = [os.readlink(f"/proc/{tid}/fd/{ctypes.c_int(first).value}")]
                case 1:
                    paths = [self._path(tid, _AT_FDCWD, first)]
                case 2:
                    paths = [self._path(tid, ctypes.c_int(first).value, second)]
                case 3:
                    paths = [self._path(tid, _AT_FDCWD, p) for p in (first, second)]
                case _:
                    paths = [self._path(tid, ctypes.c_int(d).value, p) for d, p in ((first, second), (third, fourth))]
        except OSError:
            return None  # no such descriptor: the call fails by itself
        if not any(path == self._below or path.startswith(f"{self._below}/") for path in paths):
            return None
        flags = {"open": second, "openat": third}.get(name, 0)
        if name == "openat2":
            flags = struct.unpack("Q", self._memory(tid, third, 8))[0]
        shown = paths[-1].removeprefix(f"{self._below}/")
        waits = unlocks = False
        if name == "fcntl" and second in _DUPFD:
            name = "dup"  # it needs a descriptor, and asks for no right
        elif name == "fcntl" and second == _SETLEASE:
            name = "setlease"
        elif name == "fcntl" and second in (*_SETLK, *_SETLKW):
            unlocks = struct.unpack("h", self._memory(tid, third, 2))[0] == _F_UNLCK
            waits = second in _SETLKW and not unlocks
        return Call(name, shown, name == "creat" or bool(flags & os.O_CREAT), waits, unlocks)

    def _path(self, tid: int, folder_fd: int, address: int) -> str:
        name = os.fsdecode(self._memory(tid, address, 4096).split(b"\0", 1)[0]) if address else ""
        if name.startswith("/proc/self/fd/"):
            return os.readlink(f"/proc/{tid}/fd/{name.rpartition('/')[2]}")
        if name.startswith("/"):
            return name
        folder = os.readlink(f"/proc/{tid}/cwd" if folder_fd == _AT_FDCWD else f"/proc/{tid}/fd/{folder_fd}")
        return os.path.normpath(os.path.join(folder, name))

    def _memory(self, tid: int, address: int, size: int) -> bytes:
        fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            page_left = 4096 - address % 4096
            data = os.pread(fd, min(size, page_left), address)
            if b"\0" not in data and size > page_left:
                data += os.pread(fd, size - page_left, address + page_left)
            return data
        finally:
            os.close(fd)

    def _regs(self) -> int:
        return ctypes.addressof(self._registers)

    @staticmethod
    def _ask(request: int, tid: int, value: int) -> bool:
        """False when the thread is gone, as after a kill."""
        return int(_libc.ptrace(request, tid, None, ctypes.c_void_p(value))) == 0

    @staticmethod
    def reap() -> None:
        """Whatever children there are left are gone."""
        while True:
            try:
                tid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                os.kill(tid, signal.SIGKILL)
