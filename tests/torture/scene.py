"""One operation in a folder of its own: begin anew, strike, start again, look."""

import contextlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from calls import Blow
from invariants import copies_in, copy_violations, digest_of, kept_violations, live_violations, violations
from subject import DAMAGE, USERS, Operation, Place, crowd
from syscalls import Ended, run_traced

from agent.commands import session
from agent.core.naming import Kind
from agent.recover import Recovered
from agent.recover import recover as recover_as_it_is
from agent.workspace import Workspace

HANG_S = 60
_VANISHED = "told as vanished:"


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
        code = self.run(_start)
        found = [line for line in self.place.said.splitlines() if line.startswith(_VANISHED)]
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


def _start(place: Place) -> int:
    """What a start does before it is ready; it also says what it missed, which nobody but the agent deleted here."""

    def recover(ws: Workspace) -> Recovered:
        done = recover_as_it_is(ws)
        for snapshot in done.vanished:
            print(f"{_VANISHED} {snapshot.name}")
        return done

    session.recover = recover
    return place.agent("check", "--heal")


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
    signal.alarm(int(HANG_S * crowd()))
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
