"""Let every system call that touches the agent's folders fail: `python tests/torture/errors_everywhere.py`.

Each operation is run once per call and error that this call can bring: EIO, ENOSPC (once, and for all that follow),
EACCES, EMFILE, EINTR, and a write that is done by half.  The process must end with a documented code and no
traceback, say what failed and where, count it, delete nothing good, and do its work once the cause is gone.  One line
per operation, and a summary; the exit code is 1 when a promise was broken and 2 when the time limit cut the walk short.
"""

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from calls import Blow, Call, Strike
from scene import Scene
from syscalls import Ended
from walk import walk_from_command_line

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.EINTR)
DOCUMENTED = {0, 1, 2, 3, 4}
_IN_SQLITE = (
    "disk I/O error",
    "unable to open database",
    "disk is full",
    "readonly database",
    "database is locked",
    "locking protocol",
)
_TROUBLE = (
    "backup_agent_io_errors_total", "backup_agent_snapshots_refused_total", 'result="failed"', 'result="unreadable"',
    "backup_agent_log_lines_dropped_total", "backup_agent_refresh_failures_total",
)  # fmt: skip


def blows(clean: Ended) -> Sequence[Blow]:
    return [blow for at, call in enumerate(clean.calls, 1) for blow in _blows_at(at, call)]


def _blows_at(at: int, call: Call) -> Iterator[Blow]:
    for code in ERRORS:
        if call.can_fail_with(code):
            yield Blow(Strike.FAIL, at, code)
    if call.can_fail_with(errno.ENOSPC):
        yield Blow(Strike.KEEP_FAILING, at, errno.ENOSPC)
    if call.name in ("write", "pwrite64"):
        yield Blow(Strike.SHORT, at)


def judge(scene: Scene, blow: Blow, ended: Ended) -> list[str]:
    """What is broken after an error, and after the same was done again without it."""
    operation, place = scene.operation, scene.place
    found = [*_end(scene, blow, ended), *scene.at_once()]
    if not operation.deletes:
        found += [f"a good snapshot went: {name}" for name in sorted(scene.good_at_first - scene.good_names())]
    again = scene.run(operation.act)
    if again not in operation.ends | operation.restarts:
        found.append(f"without the cause it ended with {again}: {place.said[-300:]}")
    found += scene.after_a_start()
    if not (operation.caught_up or operation.done)(place):
        found.append("not done although the cause is gone")
    return found


def _end(scene: Scene, blow: Blow, ended: Ended) -> list[str]:
    """What is wrong with the way the struck run ended."""
    said, done = scene.place.said, scene.operation.done(scene.place)
    found = []
    if ended.code not in DOCUMENTED:
        found.append(f"ended with {ended.code}: {said[-400:]}")
    if "Traceback" in said:
        found.append(f"a traceback: {said[-600:]}")
    if done or ended.struck is None:
        return found
    if (
        ended.code == 0
        and not scene.operation.is_service
        and not (scene.operation.asked or (lambda _: done))(scene.place)
    ):
        found.append(f"silent: not done, and ended with 0: {said[-300:]}")
    told = (*_IN_SQLITE, "changes_left_pending") if _is_refused_lease(ended, blow) else _IN_SQLITE
    if blow.code and os.strerror(blow.code) not in said and not any(text in said for text in told):
        found.append(f"does not say what failed, and ended with {ended.code}: {said[-400:]}")
    if not any(name in said for name in (".json", "data", "agent.yaml", "catalog", ".lock", ".: ")):
        found.append(f"does not say where it failed: {said[-300:]}")
    if scene.operation.is_service and _loud(said) and not _trouble(scene):
        found.append(f"told of {_loud(said)}, counted nothing")
    return found


def _is_refused_lease(ended: Ended, blow: Blow) -> bool:
    """Whether only the owner gets a lease here: no error, but a file that has to be still for longer."""
    return blow.code == errno.EACCES and ended.struck is not None and ended.struck.name == "setlease"


def _loud(said: str) -> list[str]:
    """The events of the log that tell of an error."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line["event"] for line in lines if line.get("level") in ("warning", "error") and "error" in line]


def _trouble(scene: Scene) -> float:
    path = scene.place.side / "metrics"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if any(name in line for name in _TROUBLE) and line[0] != "#"
    )


if __name__ == "__main__":
    sys.exit(walk_from_command_line(__doc__, "struck with errors", blows, judge))
