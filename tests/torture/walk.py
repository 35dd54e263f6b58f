"""Walk over every system call of an operation: prepare a folder, strike the run, start again, look.

`Scene.point` is one such step; `walk` spreads the steps of all operations over a few processes.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from invariants import copies_in, copy_violations, digest_of, kept_violations, live_violations, violations
from operations import ALL, DAMAGE, USERS, Operation, Place
from syscalls import Blow, Ended, run_traced

from agent.core.naming import Kind

HANG_S = 60
Judge = Callable[["Scene", Blow, Ended], list[str]]


@dataclass
class Scene:
    """One operation in a folder of its own, begun anew for each point from a template."""

    operation: Operation
    place: Place
    template: Path
    good_at_first: set[str] = field(default_factory=set)

    @classmethod
    @contextlib.contextmanager
    def of(cls, operation: Operation, where: Path | None) -> Iterator["Scene"]:
        scratch = Path(tempfile.mkdtemp(prefix="torture-", dir=where))
        place = Place(scratch / "root", scratch / "side")
        place.root.mkdir()
        place.side.mkdir()
        try:
            with _quiet(place):
                operation.prepare(place)
            shutil.copytree(place.root, scratch / "template", symlinks=True)
            _own_like(place.root, scratch / "template")
            scene = cls(operation, place, scratch / "template")
            scene.good_at_first = scene.good_names()
            yield scene
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def begin(self) -> None:
        """The folder is as it was prepared, and the catalog knows the inodes that it has now."""
        shutil.rmtree(self.place.root)
        shutil.copytree(self.template, self.place.root, symlinks=True)
        _own_like(self.template, self.place.root)
        _know_inodes(self.place)

    def strike(self, blow: Blow | None) -> Ended:
        """Run the operation from the beginning, with or without a blow."""
        act, place = self.operation.act, self.place
        with _alarm():
            return run_traced(
                lambda: _said(place, lambda: act(place)),
                below=str(place.root),
                blow=blow,
                from_mark=self.operation.from_mark,
            )

    def run(self, act: Callable[[Place], int]) -> int:
        """Run `act` in a child, undisturbed; return its exit code."""
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = _said(self.place, lambda: act(self.place))
            finally:
                os._exit(code)
        with _alarm():
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def good_names(self) -> set[str]:
        return {copy.name for copy in copies_in(self.place.backups) if copy.kind is Kind.BACKUP}

    def at_once(self) -> list[str]:
        """What is broken right after the blow, before anything mended it."""
        place, expected = self.place, self.operation.fault(self.place)
        copies = list(copies_in(place.backups))
        found = [*live_violations(place.data, expected), *copy_violations(copies, place.states, expected)]
        # A displaced state may still stand under a staged name; the start that follows keeps it.
        staged = {digest_of(path.read_bytes()) for path in place.data.rglob("*.tmp")}
        found += [line for line in kept_violations(place.data, copies, expected) if not _tells_of(line, staged)]
        for rel, allowed in expected.good.items():
            if not any(c.rel == rel and c.kind is Kind.BACKUP and c.digest in allowed for c in copies):
                found.append(f"good: no good copy of {rel} is whole")
        return [f"at once: {line}" for line in found]

    def after_a_start(self) -> list[str]:
        """What is broken once the agent was started again."""
        code = self.run(lambda place: place.agent("check", "--heal"))
        found = []
        if code not in self.operation.restarts:
            found.append(f"the next start ended with {code}: {self.place.said[-300:]}")
        expected = self.operation.mended(self.place)
        found += violations(self.place.data, self.place.backups, self.place.states, expected)
        return [f"after a start: {line}" for line in found]

    def drill(self) -> list[str]:
        """The newest good state of the users is really what a heal brings back."""
        allowed = self.operation.mended(self.place).good.get(USERS)
        if allowed is None:
            return []
        self.place.write(USERS, DAMAGE)
        self.run(lambda place: place.agent("check", "--heal"))
        shown = digest_of((self.place.data / USERS).read_bytes())
        return [] if shown in allowed else [f"drill: a damage was healed to {shown[:12]}: {self.place.said[-300:]}"]


@dataclass
class Tally:
    """What came of one operation, in one process or all."""

    calls: int = 0
    points: int = 0
    found: list[str] = field(default_factory=list)
    cut_short: bool = False
    seconds: float = 0.0

    def add(self, other: "Tally") -> None:
        self.calls = max(self.calls, other.calls)
        self.points += other.points
        self.found += other.found
        self.cut_short |= other.cut_short
        self.seconds += other.seconds


@dataclass(frozen=True)
class Plan:
    """`blows` makes the points of a run with so many calls; `share` takes that many of each operation by chance, 0 all."""

    blows: Callable[[Ended], Sequence[Blow]]
    judge: Judge
    seed: int
    share: int = 0
    jobs: int = 2
    where: Path | None = None
    deadline: float = float("inf")


def walk(operations: Sequence[Operation], plan: Plan, tell: Callable[[str], None]) -> Tally:
    """Walk all operations, one after the other, each in `plan.jobs` processes; return what came of all."""
    total = Tally()
    for operation in operations:
        tally = _in_parts(operation, plan)
        cut = ", cut short by the time limit" if tally.cut_short else ""
        tell(
            f"{operation.name}: {tally.calls} calls, {tally.points} points, {len(tally.found)} violations, "
            f"{tally.seconds / plan.jobs:.0f} s{cut}"
        )
        for line in tally.found:
            tell(f"  {line}")
        calls = total.calls + tally.calls
        total.add(tally)
        total.calls = calls
    return total


def _in_parts(operation: Operation, plan: Plan) -> Tally:
    """Run the parts side by side, each in a process of its own; each tells its tally as JSON through a pipe."""
    pipes = []
    for part in range(plan.jobs):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            try:
                told = json.dumps(vars(_part(operation, plan, part)))
            except BaseException:
                told = json.dumps(vars(Tally(found=[traceback.format_exc()])))
            with open(writer, "w") as out:
                out.write(told)
            os._exit(0)
        os.close(writer)
        pipes.append(reader)
    total = Tally()
    for reader in pipes:
        with open(reader) as stream:
            total.add(Tally(**json.load(stream)))
    for _ in pipes:
        os.wait()
    return total


def _part(operation: Operation, plan: Plan, part: int) -> Tally:
    began, tally = time.monotonic(), Tally()
    with Scene.of(operation, plan.where) as scene:
        scene.begin()
        clean = scene.strike(None)
        tally.calls = len(clean.calls)
        if clean.code not in operation.ends or not operation.done(scene.place):
            tally.found.append(f"undisturbed, it ended with {clean.code}: {scene.place.said[-500:]}")
            return tally
        blows = plan.blows(clean)
        if plan.share:
            blows = random.Random(plan.seed).sample(blows, min(plan.share, len(blows)))
        for blow in blows[part :: plan.jobs]:
            if time.monotonic() > plan.deadline:
                tally.cut_short = True
                break
            scene.begin()
            ended = scene.strike(blow)
            tally.points += 1
            what = f"{operation.name}, {blow.strike.name} {blow.at} {os.strerror(blow.code) if blow.code else ''} at {ended.struck}"
            try:
                tally.found += [f"{what}: {line}" for line in plan.judge(scene, blow, ended)]
            except Exception:
                tally.found.append(f"{what}: {traceback.format_exc()}")
    tally.seconds = time.monotonic() - began
    return tally


def walk_from_command_line(
    text: str, verb: str, blows: Callable[[Ended], Sequence[Blow]], judge: Judge, arguments: list[str] | None = None
) -> int:
    """Walk as the arguments say, print a line for each operation and a summary; return the exit code."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", metavar="WORD", default="", help="only the operations whose name holds WORD")
    parser.add_argument("--share", type=int, default=0, metavar="N", help="only N points in all, by chance")
    parser.add_argument("--seed", type=int, default=1, help="which points a share takes (default: 1)")
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit (default: 60)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--where", type=Path, help="folder to work in (default: the system's for temporary files)")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    deadline = began + options.minutes * 60
    chosen = [operation for operation in ALL if options.k in operation.name]
    if options.share:
        chosen = random.Random(options.seed).sample(chosen, min(options.share, len(chosen)))
    each = -(-options.share // len(chosen))
    plan = Plan(blows, judge, options.seed, each, options.jobs, options.where, deadline)
    total = walk(chosen, plan, lambda line: print(line, flush=True))
    print(
        f"{verb} at {total.points} points of {total.calls} system calls in {len(chosen)} operations "
        f"(seed {options.seed}): {len(total.found)} violations, {time.monotonic() - began:.0f} s"
    )
    return 1 if total.found else 2 if total.cut_short else 0


def _tells_of(line: str, digests: set[str]) -> bool:
    return any(digest[:12] in line for digest in digests)


def _said(place: Place, act: Callable[[], int]) -> int:
    """What `act` says goes to a file."""
    fd = os.open(place.side / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)
    try:
        code = act()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code


@contextlib.contextmanager
def _quiet(place: Place) -> Iterator[None]:
    with (place.side / "said").open("w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        yield


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """A run that hangs ends the part with a TimeoutError, and is killed with the tracer."""

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError("the run hangs")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)


def _own_like(source: Path, copy: Path) -> None:
    """Folders and files of the copy have owner and mode of the source; file times are copied already."""
    for parent, folders, files in os.walk(source):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            os.chown(copy / path.relative_to(source), status.st_uid, status.st_gid)


def _know_inodes(place: Place) -> None:
    """The catalog of a copied folder takes the new inodes for those that it knew."""
    path = place.backups / ".agent/catalog.sqlite3"
    db = sqlite3.connect(path, isolation_level=None) if path.exists() else None
    if db is None:
        return
    try:
        db.execute("PRAGMA synchronous=OFF")
        for key, folder in (("root_inode", place.data), ("backup_inode", place.backups)):
            db.execute("UPDATE meta SET value=? WHERE key=?", (str(folder.stat().st_ino), key))
        for (rel,) in db.execute("SELECT rel FROM files WHERE inode IS NOT NULL").fetchall():
            with contextlib.suppress(FileNotFoundError):
                status = (place.data / os.fsdecode(rel)).lstat()
                db.execute("UPDATE files SET inode=?, ctime_ns=? WHERE rel=?", (status.st_ino, status.st_ctime_ns, rel))
    except sqlite3.DatabaseError:
        pass  # a damaged one, on purpose
    finally:
        db.close()
