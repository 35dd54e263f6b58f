"""Packing, one file: old snapshots come to hold only what differs from a reference, under the names they have.

Crash-safe by order: the reference is durable and read back before anything leans on it; the packed form is durable,
was unpacked again and has the snapshot's digest before it is exchanged for the old one in a single step; a reference
goes last.  So the files alone tell how things stand, whatever the catalog knows.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from agent.core.errors import ReadBackError
from agent.core.model import Snapshot
from agent.core.naming import Kind, display, snapshot_name
from agent.core.packing import MakeReference, Pack, Step, is_worth, next_step
from agent.disk import packer
from agent.disk.codec import DamagedError
from agent.disk.references import (
    FormChangedError,
    change_form,
    identity,
    mode_of,
    open_reference,
    put_reference,
    stored_bytes,
    write_alone,
)
from agent.disk.staging import StagedFile, StagingFolder, open_root
from agent.references import drop_unneeded, look, references_lock
from agent.workspace import HELD_GRADES, Workspace


class _BusyError(Exception):
    """Someone else works on the file, or has changed it: later."""


@dataclass(slots=True)
class Packed:
    """What was done to the snapshots of one file."""

    rel: str
    count: int = 0
    references: int = 0
    freed_bytes: int = 0  # less than nothing while a reference has yet to pay
    failures: list[tuple[str, Exception]] = field(default_factory=list)


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
        while (step := _next(ws, rel, unfit)) is not None:
            try:
                _carry_out(ws, step, done, unfit, go_on)
            except ReadBackError as error:
                done.failures.append((step.member.name, error))
                unfit.add((step.member.name, step.member.name))
            yield done
    except (_BusyError, FormChangedError):
        pass  # what changed the file has it looked at again
    done.freed_bytes += drop_unneeded(ws, rel)
    yield done


def _next(ws: Workspace, rel: str, unfit: set[tuple[str, str]]) -> Step | None:
    state = ws.catalog.file(rel)
    if state is None or state.grade in HELD_GRADES:
        return None
    shelf = look(ws, rel)
    return next_step(shelf.good, shelf.references, unfit)


def _carry_out(ws: Workspace, step: Step, done: Packed, unfit: set[tuple[str, str]], go_on: Callable[[], bool]) -> None:
    snapshot = ws.catalog.snapshot_named(step.member.name)
    if snapshot is None:
        raise _BusyError
    with ws.store.staging() as staging, ExitStack() as staged:
        plain, out = _create(staging, staged), _create(staging, staged)
        was = _identity(ws, snapshot)
        if not ws.store.copy_into(snapshot, plain):
            unfit.add((snapshot.name, snapshot.name))
            done.failures.append((snapshot.name, DamagedError("its bytes are rotten: it stays as it is")))
        elif isinstance(step, MakeReference):
            _make_reference(ws, snapshot, plain, out, done, go_on)
        else:
            _pack(ws, snapshot, step, (plain, out, was), done, unfit, go_on)


def _make_reference(
    ws: Workspace, snapshot: Snapshot, plain: StagedFile, out: StagedFile, done: Packed, go_on: Callable[[], bool]
) -> None:
    name = snapshot_name(snapshot.rel, snapshot.taken_at, Kind.REFERENCE, ".zst")
    _require_digest(snapshot, packer.make_reference(plain.fd, out.fd, go_on=go_on))
    size = os.fstat(out.fd).st_size
    with _alone_with(ws, snapshot):
        put_reference(ws.store.path, out, name)
        ws.catalog.add_reference(snapshot.rel, name, size)
    done.references += 1
    done.freed_bytes -= size


def _pack(
    ws: Workspace, snapshot: Snapshot, step: Pack, files: tuple[StagedFile, StagedFile, tuple[int, int, int]],
    done: Packed, unfit: set[tuple[str, str]], go_on: Callable[[], bool],
) -> None:  # fmt: skip
    plain, out, was = files
    name = step.reference.name
    os.fchmod(out.fd, mode_of(ws.store.path, snapshot.name))
    root_fd = open_root(ws.store.path)
    try:
        with open_reference(root_fd, name) as fd:
            digest = packer.pack(plain.fd, fd, out.fd, name=name, go_on=go_on)
    except DamagedError as error:
        unfit.add((snapshot.name, name))
        done.failures.append((name, error))
        return
    finally:
        os.close(root_fd)
    _require_digest(snapshot, digest)
    size = os.fstat(out.fd).st_size
    own_bytes = snapshot.stored_bytes if step.member.leans_on is None else step.reference.stored_bytes
    if not is_worth(size, own_bytes):
        unfit.add((snapshot.name, name))
        return
    with _alone_with(ws, snapshot):
        if stored_bytes(ws.store.path, name) is None:
            raise _BusyError
        change_form(ws.store.path, out, snapshot.name, was)
        ws.catalog.set_stored(snapshot.name, size)
    done.count += 1
    done.freed_bytes += snapshot.stored_bytes - size


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


def _identity(ws: Workspace, snapshot: Snapshot) -> tuple[int, int, int]:
    try:
        return identity(ws.store.path, snapshot.name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _BusyError from error


def _require_digest(snapshot: Snapshot, digest: str) -> None:
    if digest != snapshot.digest:
        raise ReadBackError(
            f"{display(snapshot.name)}: what came back from the disk is not what was written",
            hint="check the disk (smartctl, dmesg); the snapshot is as it was",
        )


@contextmanager
def _alone_with(ws: Workspace, snapshot: Snapshot) -> Iterator[None]:
    """Nobody else works on the file of the snapshot, which is what it was; for the moment of a change.

    Raises:
        _BusyError: someone does, or it is not.
    """
    with ws.locks.session() as locks:
        if not (locks.take(snapshot.rel) and locks.take(references_lock(snapshot.rel))):
            raise _BusyError
        now = ws.catalog.snapshot_named(snapshot.name)
        if now is None or now.digest != snapshot.digest or now.pinned:
            raise _BusyError
        yield
