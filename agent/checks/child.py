"""A check in a process of its own: what it needs in memory goes away with it, and so does a parser's crash.

Protocol: the parent writes one line of JSON to standard input: the spec, and the path of a private copy or null.
Where the path is null, the content follows.  The child answers with a `CheckResult` as JSON and exit status 0.
"""

import json
import mmap
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping

import msgspec

from agent.checks.json_format import check_json
from agent.core.model import CheckResult, CheckSpec, Format, Grade, Parser, Problem
from agent.core.problem import ProblemKind

# The child imports what its parent would, whatever folder or variables it is started with.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from agent.checks.child import main; main()"


def check_in_child(content: bytes | os.PathLike[str], spec: CheckSpec, *, timeout_s: float) -> CheckResult:
    """Return what a child process found; unreadable when it crashed or was killed after `timeout_s`."""
    path = None if isinstance(content, bytes) else os.fspath(content)
    request = {"format": spec.format, "parser": spec.parser, "schema": spec.schema, "path": path}
    try:
        head = json.dumps(request).encode() + b"\n"
    except (ValueError, TypeError):
        return _undecided(ProblemKind.SCHEMA_UNUSABLE, "the schema cannot be used")
    command = [sys.executable, "-I", "-c", _BOOTSTRAP, *(os.path.abspath(entry) for entry in sys.path)]
    try:
        done = subprocess.run(  # noqa: S603  # an argument list, of our own making
            command,
            input=head + content if isinstance(content, bytes) else head,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _undecided(ProblemKind.TIMEOUT, f"the check was stopped after {timeout_s:g} s")
    if done.returncode < 0:
        name = signal.strsignal(-done.returncode) or f"signal {-done.returncode}"
        return _undecided(ProblemKind.CRASHED, f"the checking process died: {name}")
    if done.returncode > 0:
        return _undecided(ProblemKind.CRASHED, f"the checking process ended with status {done.returncode}")
    try:
        return msgspec.json.decode(done.stdout, type=CheckResult)
    except msgspec.DecodeError:
        return _undecided(ProblemKind.CRASHED, "the checking process gave no answer that can be read")


def main() -> None:
    """Answer one request; a private copy is mapped, so its size is not held in memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must not leave the data in a core file
    request = json.loads(sys.stdin.buffer.readline())
    spec = CheckSpec(Format(request["format"]), Parser(request["parser"]), request["schema"])
    try:
        result = check_json(_content(request), spec)
    except (OSError, MemoryError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "not enough memory"
        result = _undecided(ProblemKind.CRASHED, f"the checking process could not go on: {why}")
    sys.stdout.buffer.write(msgspec.json.encode(result))


def _content(request: Mapping[str, str | None]) -> bytes | memoryview:
    path = request["path"]
    if path is None:
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""  # nothing cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _undecided(kind: ProblemKind, message: str) -> CheckResult:
    return CheckResult(Grade.UNREADABLE, problems=(Problem(kind, message),))
