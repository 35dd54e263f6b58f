"""Read everything back: live files, every snapshot, and in a drill what a restore would bring.  Nothing is changed.

A snapshot that is rotten is named; that its digest fails is all that keeps it from being a restore point.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from agent.checks import CHILD_ABOVE_BYTES, check
from agent.core.decide import restore_candidates
from agent.core.model import Grade, Snapshot
from agent.core.naming import display
from agent.disk.atomic import drop_cached_pages
from agent.disk.beneath import open_beneath
from agent.disk.capture import CHUNK_BYTES, digest_of
from agent.disk.codec import DamagedError
from agent.disk.references import is_whole, notes_of
from agent.disk.staging import StagedFile, open_root
from agent.look import one_look
from agent.outcome import SOON, Ending
from agent.verify_report import Finding, Report, Trouble
from agent.workspace import Workspace

_LOOKS = 3


class Stopped(Exception):  # noqa: N818  # no error: somebody wants it to end
    """The verification was told to stop in the middle of a file."""


class Verifier(Struct):
    """Verifies one file or snapshot at a step, so that whoever drives it may pause in between.

    `pause` is called before a file that is being written is looked at again.  `into` is a folder that gets what a drill
    restores; without it that is deleted at once.
    """

    ws: Workspace
    report: Report
    pause: Callable[[Sequence[Ending]], None] | None = None
    into: str | None = None
    go_on: Callable[[], bool] = lambda: True

    def steps(self, rels: Sequence[str] | None = None) -> Iterator[None]:
        """Yield after each step; `rels` limits it to these files.

        Raises (from a step):
            Stopped: `go_on` said no.
            OSError, sqlite3.Error: the folder or the catalog itself cannot be used.
        """
        for rel in filter(self.ws.config.is_data_file, self._files() if rels is None else rels):
            self._live(rel)
            yield
            if self.report.drill:
                self._drill(rel)
                yield
        pool = (
            self.ws.catalog.all_snapshots() if rels is None else (s for r in rels for s in self.ws.catalog.snapshots(r))
        )
        for snapshot in pool:
            self._snapshot(snapshot)
            yield

    def _files(self) -> Iterator[str]:
        for page in self.ws.catalog.file_pages():
            yield from (state.rel for state in page)

    def _find(self, kind: Trouble, rel: str, name: str | None, what: str) -> None:
        self.report.findings.append(Finding(kind, rel, name, what))

    # live files

    def _live(self, rel: str) -> None:
        self.report.file_count += 1
        for attempt in range(_LOOKS):
            with one_look(self.ws, rel, at_gate=False) as (_, look):
                result, outcome, past = look.result, look.outcome, look.past
                size = look.capture.signature.size_bytes if look.capture else 0
            if outcome is None or outcome.ending not in SOON or self.pause is None or attempt == _LOOKS - 1:
                break
            self.pause([outcome.ending])
        self.report.read_bytes += size
        if result is not None and result.grade is not Grade.GOOD:
            problems = "; ".join(map(str, result.problems[:2]))
            self._find(Trouble.NOT_GOOD, rel, None, f"the live file is {result.grade}: {problems}")
        elif outcome is not None and outcome.ending in (Ending.UNREADABLE, Ending.SKIPPED, Ending.REFUSED):
            why = outcome.error or outcome.detail.replace("_", " ")
            self._find(Trouble.UNREADABLE, rel, None, f"the live file cannot be read: {why}")
        elif result is None and (outcome is None or outcome.grade is Grade.MISSING) and past is not None:
            self._find(Trouble.NOT_GOOD, rel, None, "the live file is missing")

    # snapshots

    def _snapshot(self, snapshot: Snapshot) -> None:
        self.report.snapshot_count += 1
        try:
            kept = bytearray() if snapshot.size_bytes <= CHILD_ABOVE_BYTES else None
            whole = self._read(snapshot, None, kept)
        except OSError as error:
            self._find(Trouble.UNREADABLE, snapshot.rel, snapshot.name, f"the disk does not give it: {error}")
            return
        if not whole:
            self._not_whole(snapshot)
        elif kept is not None and snapshot.grade is Grade.GOOD:
            grade = check(bytes(kept), self.ws.config.rule_for(snapshot.rel).check).grade
            if grade in (Grade.INVALID, Grade.CORRUPT):
                what = f"good when it was taken, {grade} by the config of today"
                self._find(Trouble.UNFIT, snapshot.rel, snapshot.name, what)

    def _not_whole(self, snapshot: Snapshot) -> None:
        """Tell rot from what somebody deleted or rewrote meanwhile."""
        now = self.ws.catalog.snapshot_named(snapshot.name)
        if now is None:
            return
        if now.digest != snapshot.digest:
            self.report.snapshot_count -= 1
            self._snapshot(now)
        elif self.ws.store.stored_size(snapshot.name) is None:
            self._find(Trouble.GONE, snapshot.rel, snapshot.name, "something else deleted it")
        else:
            self._find(Trouble.ROTTEN, snapshot.rel, snapshot.name, self._why_rotten(snapshot))

    def _why_rotten(self, snapshot: Snapshot) -> str:
        """A packed snapshot may be whole itself: then it is its reference that the disk has to be asked about."""
        with suppress(OSError, DamagedError):
            for note in reversed(notes_of(self.ws.store.path, snapshot.name)):
                if not is_whole(self.ws.store.path, note):
                    what = display(note.reference)
                    return f"cannot be opened: {what}, which it is packed against, is damaged or gone"
        return "rotten: its bytes are not those it was published with"

    def _read(self, snapshot: Snapshot, copy: StagedFile | None, kept: bytearray | None) -> bool:
        """Whether the plain bytes, from the disk and not from memory, have their digest; they go where asked for."""
        with ExitStack() as uncached:
            uncached.enter_context(self._uncached(snapshot.name))
            with suppress(OSError, DamagedError):
                for note in notes_of(self.ws.store.path, snapshot.name):
                    uncached.enter_context(self._uncached(note.reference))
            return self.ws.store.copy_into(snapshot, _Sink(self, copy, kept))

    @contextmanager
    def _uncached(self, name: str) -> Iterator[None]:
        root_fd = open_root(self.ws.store.path)
        try:
            fd = open_beneath(root_fd, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:  # whatever it is, the reader tells
            fd = -1
        finally:
            os.close(root_fd)
        try:
            if fd >= 0:
                drop_cached_pages(fd)
            yield
        finally:
            if fd >= 0:
                drop_cached_pages(fd)  # nor does the machine's cache fill up with old snapshots
                os.close(fd)

    # drill

    def _drill(self, rel: str) -> None:
        """Restore `rel` aside, and look whether what came out is what went in."""
        try:
            with self.ws.store.staging() as staging:
                for snapshot in restore_candidates(self.ws.catalog.snapshots(rel)):
                    staged = staging.create()
                    try:
                        if self._read(snapshot, staged, None):
                            self._compare(snapshot, staged)
                            return
                    finally:
                        staged.discard()
        except OSError as error:
            self._find(Trouble.DRILL_FAILED, rel, None, f"the drill failed: {error}")
            return
        self._find(Trouble.NO_RESTORE_POINT, rel, None, "there is no whole good snapshot to restore it from")

    def _compare(self, snapshot: Snapshot, staged: StagedFile) -> None:
        os.fsync(staged.fd)
        drop_cached_pages(staged.fd)
        digests = {digest_of(staged.fd, go_on=self.go_on)}
        if not self.go_on():
            raise Stopped
        if self.into is not None:
            digests.add(_copy(staged, os.path.join(self.into, snapshot.rel)))
        if digests != {snapshot.digest}:
            self._find(
                Trouble.DRILL_FAILED, snapshot.rel, snapshot.name, "what was restored from it is not what it holds"
            )
            return
        if snapshot.size_bytes <= CHILD_ABOVE_BYTES:
            grade = check(Path(staged.path), self.ws.config.rule_for(snapshot.rel).check).grade
            if grade is Grade.CORRUPT:
                self._find(
                    Trouble.DRILL_FAILED, snapshot.rel, snapshot.name, "what was restored from it does not parse"
                )
                return
        self.report.drilled_count += 1


class _Sink:
    """Takes the bytes of a snapshot; stops in the middle when told to."""

    def __init__(self, verifier: Verifier, copy: StagedFile | None, kept: bytearray | None) -> None:
        self._verifier, self._copy, self._kept = verifier, copy, kept

    def write(self, data: bytes) -> None:
        if not self._verifier.go_on():
            raise Stopped
        self._verifier.report.read_bytes += len(data)
        if self._copy is not None:
            self._copy.write(data)
        if self._kept is not None:
            self._kept += data


def _copy(staged: StagedFile, path: str) -> str:
    """A new file `path` holds the bytes of `staged`, durably; return the digest of what the disk gives back."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "xb") as out:
        os.fchmod(out.fileno(), 0o600)
        offset = 0
        while chunk := os.pread(staged.fd, CHUNK_BYTES, offset):
            out.write(chunk)
            offset += len(chunk)
        out.flush()
        os.fsync(out.fileno())
        drop_cached_pages(out.fileno())
    with open(path, "rb") as back:
        return hashlib.file_digest(back, "sha256").hexdigest()
