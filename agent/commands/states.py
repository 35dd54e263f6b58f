"""The states of a data file that people compare and look at: the live one, a snapshot, or that of a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from agent.commands.moments import in_both_zones, parse_time
from agent.commands.names import resolve_file, resolve_snapshot
from agent.commands.session import LOOKS_MAX, Session
from agent.commands.wording import before, local_time, size
from agent.core.decide import restore_candidates
from agent.core.errors import AgentError, UsageError
from agent.core.json_places import JsonText
from agent.core.json_record import NoDocumentError, open_document
from agent.core.model import Snapshot
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.disk.capture import CHUNK_BYTES
from agent.disk.staging import StagedFile
from agent.look import one_look
from agent.outcome import Ending

LIVE = "live"
DOCUMENT_MAX_BYTES = 32 * 1024 * 1024  # taken apart in memory, many times its size


class NoStateError(AgentError):
    """There is no such state, or it lacks what was asked for; nothing was changed."""

    exit_code = 4


class UnfitStateError(AgentError):
    """The state is there, but it cannot be taken apart; nothing was changed."""


class State(Struct, frozen=True):
    """One state of one data file, in private.  `snapshot` is None for the live one.

    `is_whole` is False for a snapshot whose bytes are not those it was published with; `at` is the moment it was
    chosen for.
    """

    rel: str
    snapshot: Snapshot | None
    content: bytes | StagedFile
    digest: str
    is_whole: bool = True
    at: datetime | None = None

    @property
    def label(self) -> str:
        if self.snapshot is None:
            return "the live file"
        taken_at = self.snapshot.taken_at
        chosen = f", the newest good one at {in_both_zones(self.at)}, {before(taken_at, self.at)}" if self.at else ""
        return f"{display(self.snapshot.name)}, {local_time(taken_at)}{chosen}"

    @property
    def name(self) -> str:
        return self.snapshot.name if self.snapshot else LIVE

    @property
    def older_s(self) -> float | None:
        """How much older it is than the moment it was chosen for."""
        if self.at is None or self.snapshot is None:
            return None
        return round((self.at - self.snapshot.taken_at).total_seconds(), 3)

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else os.fstat(self.content.fd).st_size

    def chunks(self) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content
            return
        offset = 0
        while chunk := os.pread(self.content.fd, CHUNK_BYTES, offset):
            yield chunk
            offset += len(chunk)

    def document(self) -> JsonText:
        """Return the JSON document that this state holds.

        Raises:
            UnfitStateError: it holds none, or is too large to be taken apart.
        """
        if self.size_bytes > DOCUMENT_MAX_BYTES:
            raise UnfitStateError(
                f"{display(self.rel)}: {self.label} has {size(self.size_bytes)}, more than the "
                f"{size(DOCUMENT_MAX_BYTES)} that are taken apart here",
                hint=f"`backup-agent show {shell_word(self.rel)}` prints all of it, for a tool such as jq",
            )
        if self.snapshot is not None and not self.is_whole:
            raise UnfitStateError(
                f"{display(self.rel)}: {self.label} is damaged: its bytes are not those that it was published with",
                hint="`backup-agent verify` tells which others are, and why",
            )
        try:
            return open_document(b"".join(self.chunks()))
        except NoDocumentError as error:
            raise UnfitStateError(
                f"{display(self.rel)}: {self.label} is no whole JSON document in UTF-8: {error}",
                hint=f"`backup-agent list {shell_word(self.rel)}` shows good states",
            ) from error


def resolve_target(session: Session, name: str) -> tuple[str, Snapshot | None]:
    """Return the data file that a person named, or the snapshot and its data file.

    Raises:
        UsageError: it is neither.
    """
    try:
        return resolve_file(session, name), None
    except UsageError:
        with suppress(UsageError):
            snapshot = resolve_snapshot(session, name)
            return snapshot.rel, snapshot
        raise


@contextmanager
def open_state(session: Session, rel: str, which: str | None) -> Iterator[State]:
    """Lend the state of `rel` that `which` names: `live`, a snapshot, a time; None is the restore point.

    Raises:
        UsageError: `which` is none of these.
        NoStateError: there is no such state.
        UnfitStateError: the live file is being written.
    """
    if which == LIVE:
        with _live(session, rel) as state:
            yield state
        return
    snapshot, at = _chosen(session, rel, which)
    with open_snapshot(session, snapshot) as state:
        yield replace(state, at=at)


@contextmanager
def open_snapshot(session: Session, snapshot: Snapshot) -> Iterator[State]:
    """Lend what there is of `snapshot`, whole or not.

    Raises:
        NoStateError: its file is gone.
    """
    if session.ws.store.stored_size(snapshot.name) is None:
        raise NoStateError(
            f"{display(snapshot.name)} is gone: something else deletes in the backup folder",
            hint=f"`backup-agent list {shell_word(snapshot.rel)}` shows what there is",
        )
    with session.ws.store.staging() as staging:
        plain = staging.create()
        try:
            is_whole = session.ws.store.copy_into(snapshot, plain)
            yield State(snapshot.rel, snapshot, plain, snapshot.digest if is_whole else "", is_whole)
        finally:
            plain.discard()


def _chosen(session: Session, rel: str, which: str | None) -> tuple[Snapshot, datetime | None]:
    """The snapshot, and the moment it is for, where `which` is one."""
    at = None
    if which is not None:
        with suppress(UsageError):
            return resolve_snapshot(session, which, rel), None
        try:
            at = parse_time(which, session.ws.clock.utc())
        except UsageError as error:
            raise UsageError(
                f"{display(which)} is neither a snapshot of {display(rel)} nor a time in the past",
                hint=f"`{LIVE}`, a name that `backup-agent list {shell_word(rel)}` shows, a time, or an age such as 2h",
            ) from error
    candidates = restore_candidates(session.ws.catalog.snapshots(rel), at=at)
    chosen = next((s for s in candidates if session.ws.store.is_intact(s)), None)
    if chosen is None:
        then = f" from {in_both_zones(at)} or before" if at else ""
        kept = restore_candidates(session.ws.catalog.snapshots(rel)) if at else []
        then += f"; the oldest is {display(kept[-1].name)}" if kept else ""
        raise NoStateError(
            f"{display(rel)} has no whole good snapshot{then}",
            hint=f"`backup-agent list {shell_word(rel)}` shows what there is",
        )
    return chosen, at


@contextmanager
def _live(session: Session, rel: str) -> Iterator[State]:
    for _ in range(LOOKS_MAX):
        with one_look(session.ws, rel, at_gate=False) as (_, look):
            if look.capture is not None:
                yield State(rel, None, look.capture.content, look.capture.digest)
                return
            outcome = look.outcome
        if outcome is None or outcome.ending not in (Ending.BUSY, Ending.CHANGED):
            why = outcome.error or outcome.detail.replace("_", " ") if outcome else ""
            raise NoStateError(
                f"{display(rel)} is not there, or cannot be read{f': {why}' if why else ''}",
                hint=f"`backup-agent list {shell_word(rel)}` shows its snapshots",
            )
        session.settle([outcome.ending])
    raise UnfitStateError(f"{display(rel)} is being written all the time", hint="stop the bot, or name a snapshot")
