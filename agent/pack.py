"""Packing, one file: old snapshots come to hold only what differs from a reference, under the names they have.

Crash-safe by order: the reference is durable and read back before anything leans on it; the packed form is durable,
was unpacked again and has the snapshot's digest before it is exchanged for the old one in a single step; a reference
goes last.  So the files alone tell how things stand, whatever the catalog knows.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256

from msgspec import Struct, field

from agent.core.errors import ReadBackError
from agent.core.model import Snapshot
from agent.core.naming import REFERENCES, Kind, display, snapshot_name
from agent.core.packing import MakeReference, Member, Pack, Reference, Step, is_worth, next_step
from agent.disk import packer
from agent.disk.capture import CHUNK_BYTES
from agent.disk.codec import DamagedError, is_damage
from agent.disk.references import (
    FormChangedError,
    change_form,
    identity,
    mode_of,
    open_chain,
    put_reference,
    stored_bytes,
    write_alone,
)
from agent.disk.staging import StagedFile, StagingFolder, open_root
from agent.references import drop_unneeded, look, references_lock, references_of
from agent.workspace import HELD_GRADES, Workspace


class _BusyError(Exception):
    """Someone else works on the file, or has changed it: later."""


class Packed(Struct):
    """What was done to the snapshots of one file."""

    rel: str
    count: int = 0
    references: int = 0
    freed_bytes: int = 0  # less than nothing while a reference has yet to pay
    failures: list[tuple[str, Exception]] = field(default_factory=list)

    def fail(self, name: str, error: Exception) -> None:
        """Something stays as it is; a reference that several were to lean on is told once."""
        if name not in {told for told, _ in self.failures}:
            self.failures.append((name, error))


def pack_file(ws: Workspace, rel: str, go_on: Callable[[], bool] = lambda: True) -> Iterator[Packed]:
    """Pack what is to be packed of `rel`, yielding after each step what was done so far.

    Nothing is touched while the file is not good: its snapshots are needed as they are.

    Raises (from a step):
        PackingStopped: `go_on` said no.
        OSError, sqlite3.Error: the disk or the catalog refused; every snapshot is whole.
    """
    done = Packed(rel)
    unfit: set[tuple[str, str]] = set()
    try:
        while (step := _next(ws, rel, unfit, done)) is not None:
            try:
                _carry_out(ws, rel, step, done, unfit, go_on)
            except ReadBackError as error:
                done.fail(step.what.name, error)
                unfit.add((step.what.name, step.what.name))
            yield done
    except (_BusyError, FormChangedError):
        pass  # what changed the file has it looked at again
    done.freed_bytes += drop_unneeded(ws, rel)
    yield done


def _next(ws: Workspace, rel: str, unfit: set[tuple[str, str]], done: Packed) -> Step | None:
    state = ws.catalog.file(rel)
    if state is None or state.grade in HELD_GRADES:
        return None
    shelf = look(ws, rel)
    for name, error in shelf.unknown:
        done.fail(name, error)
    return next_step(shelf.good, shelf.references, unfit)


def _carry_out(
    ws: Workspace, rel: str, step: Step, done: Packed, unfit: set[tuple[str, str]], go_on: Callable[[], bool]
) -> None:
    name = step.what.name
    with ws.store.staging() as staging, ExitStack() as staged:
        work = _Work(ws, rel, name, _create(staging, staged), _create(staging, staged), go_on)
        try:
            work.copy()
        except DamagedError as error:
            unfit.add((name, name))
            unfit.update((name, r.name) for r in references_of(ws, rel, []))
            done.fail(name, error)
            return
        target = step.root if isinstance(step, MakeReference) else step.reference
        if target is not None:
            try:
                work.pack(target)
            except DamagedError as error:
                unfit.add((name, target.name))
                done.fail(target.name, error)
                return
            is_own = isinstance(step, Pack) and step.what.leans_on is None
            if not is_worth(work.size, step.what.stored_bytes if is_own else target.stored_bytes):
                unfit.add((name, target.name))
                return
        if isinstance(step, MakeReference):
            work.put_reference(step, target)
            done.references += 1
            done.freed_bytes -= work.size
        else:
            work.change_form(step)
            done.count += isinstance(step.what, Member) and step.what.leans_on is None
            done.freed_bytes += step.what.stored_bytes - work.size


class _Work(Struct):
    """One step: the plain bytes of a snapshot or reference, and the form that is made of them."""

    ws: Workspace
    rel: str
    name: str
    plain: StagedFile
    out: StagedFile
    go_on: Callable[[], bool]
    digest: str = ""
    was: tuple[int, int, int] = (0, 0, 0)

    @property
    def size(self) -> int:
        return os.fstat(self.out.fd).st_size

    def copy(self) -> None:
        """The plain bytes lie apart.

        Raises:
            _BusyError: the file is gone.
            DamagedError: its bytes are rotten.
        """
        snapshot = self.ws.catalog.snapshot_named(self.name)
        try:
            self.was = identity(self.ws.store.path, self.name)
            os.fchmod(self.out.fd, mode_of(self.ws.store.path, self.name))
            with self.ws.store.open(self.name) as stream:
                hasher = sha256()
                while chunk := stream.read(CHUNK_BYTES):
                    hasher.update(chunk)
                    self.plain.write(chunk)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _BusyError from error
        except Exception as error:
            if is_damage(error):
                raise DamagedError(f"it is rotten and stays as it is ({error})") from error
            raise
        self.digest = hasher.hexdigest()
        if snapshot is not None and snapshot.digest != self.digest:
            raise DamagedError("its bytes are not those that it was published with: it stays as it is")

    def pack(self, target: Reference) -> None:
        """The form is that of something packed against `target`, durable and read back.

        Raises:
            DamagedError: `target` is not whole.
        """
        root_fd = open_root(self.ws.store.path)
        with ExitStack() as opened:
            opened.callback(os.close, root_fd)
            try:
                chain = open_chain(root_fd, target.name, opened)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise _BusyError from error
            digest = packer.pack(self.plain.fd, chain, self.out.fd, name=target.name, go_on=self.go_on)
        self._require(digest)

    def put_reference(self, step: MakeReference, root: Reference | None) -> None:
        """A reference of the snapshot's state is on its shelf."""
        if root is None:
            self._require(packer.make_reference(self.plain.fd, self.out.fd, go_on=self.go_on))
        name = snapshot_name(self.rel, step.what.taken_at, Kind.REFERENCE, ".zst")
        with self._alone(root):
            self.ws.catalog.add_reference(self.rel, name, self.size)  # first: an erasure must find it whatever happens
            put_reference(self.ws.store.path, self.out, name)

    def change_form(self, step: Pack) -> None:
        """The name shows the new form."""
        with self._alone(step.reference):
            size = self.size
            change_form(self.ws.store.path, self.out, self.name, self.was)
            if isinstance(step.what, Member):
                self.ws.catalog.set_stored(self.name, size)
            else:
                self.ws.catalog.add_reference(self.rel, self.name, size)

    def _require(self, digest: str) -> None:
        if digest != self.digest:
            raise ReadBackError(
                f"{display(self.name)}: what came back from the disk is not what was written",
                hint="check the disk (smartctl, dmesg); the snapshot is as it was",
            )

    @contextmanager
    def _alone(self, target: Reference | None) -> Iterator[None]:
        """Nobody else works on the file, its snapshot is what it was, and its target is there; for a moment.

        Raises:
            _BusyError: someone does, or they are not.
        """
        with self.ws.locks.session() as locks:
            if not (locks.take(self.rel) and locks.take(references_lock(self.rel))):
                raise _BusyError
            if target is not None and stored_bytes(self.ws.store.path, target.name) is None:
                raise _BusyError
            if not self.name.startswith(f"{REFERENCES}/"):
                now = self.ws.catalog.snapshot_named(self.name)
                if now is None or now.digest != self.digest or now.pinned:
                    raise _BusyError
            yield


def unpack(ws: Workspace, snapshot: Snapshot) -> bool:
    """The snapshot stands on its own again; False when its bytes are not whole.  The caller holds the file's lock.

    Raises:
        FileNotFoundError: it is gone.
        OSError: the disk refused; it is as it was.
    """
    with ws.store.staging() as staging, ExitStack() as staged:
        plain, out = _create(staging, staged), _create(staging, staged)
        was = identity(ws.store.path, snapshot.name)
        if not ws.store.copy_into(snapshot, plain):
            return False
        os.fchmod(out.fd, mode_of(ws.store.path, snapshot.name))
        write_alone(plain, out)
        size = os.fstat(out.fd).st_size
        try:
            change_form(ws.store.path, out, snapshot.name, was)
        except FormChangedError as error:
            raise FileNotFoundError(snapshot.name) from error
        ws.catalog.set_stored(snapshot.name, size)
    return True


def _create(staging: StagingFolder, staged: ExitStack) -> StagedFile:
    file = staging.create()
    staged.callback(file.discard)
    return file
