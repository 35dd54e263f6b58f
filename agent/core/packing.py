"""Which old snapshots of one file are packed, and against which reference; one step at a time.

A reference is a full copy of one state.  A packed snapshot holds what differs from its reference, so every snapshot
leans on the one nearest to it in time.  A new reference is made of a snapshot when what those on its side of the
nearest one take together is more than twice that reference: at that point a full copy costs less than going on.  The
younger half of the group then leans on the new one, which is the nearer, so that a reference comes to stand in the
middle of its group.  Snapshots come and go without their reference; it goes when nothing leans on it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

UNPACKED_NEWEST = 4  # good snapshots that stay as they are: the ones restored in a hurry
GROUP_MAX = 32  # snapshots on one side of a reference: what its damage may cost
SIZE_MAX_BYTES = 64 * 1024 * 1024  # of the plain bytes: both states are held in memory, by a process of its own
STORED_MIN_BYTES = 8 * 1024  # below, a file system saves nothing
_WORTH = 0.7  # of its own size: a packed form that is larger says that the file is another one now
_FULL = 2.0  # of the reference's size


@dataclass(frozen=True, slots=True)
class Member:
    """A good snapshot; `leans_on` names the reference of a packed one.  One that may not pack stays as it is."""

    name: str
    taken_at: datetime
    stored_bytes: int
    leans_on: str | None = None
    may_pack: bool = True


@dataclass(frozen=True, slots=True)
class Reference:
    """A full copy of the state that was taken at `taken_at`."""

    name: str
    taken_at: datetime
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Pack:
    """The snapshot is to lean on the reference."""

    member: Member
    reference: Reference


@dataclass(frozen=True, slots=True)
class MakeReference:
    """A reference is to be made of the snapshot's state."""

    member: Member


Step = Pack | MakeReference


def next_step(
    newest_first: Sequence[Member],
    references: Sequence[Reference],
    unfit: Collection[tuple[str, str]] = (),
) -> Step | None:
    """Return what is to be done next for one file; None when all is as it should be.

    `newest_first` are all its good snapshots.  `unfit` are pairs of a snapshot and a reference that were tried: too
    little was gained, or it failed.  A snapshot in it with its own name is left alone.
    """
    for member in reversed(newest_first[UNPACKED_NEWEST:]):
        if not member.may_pack or (member.name, member.name) in unfit:
            continue
        step = _step_for(member, newest_first, references, unfit)
        if step is not None:
            return step
    return None


def unneeded(members: Sequence[Member], references: Sequence[Reference]) -> list[Reference]:
    """Return the references that may go: nothing leans on them, nor is about to.

    `members` are all snapshots of the file, of every grade.  The state that a fresh reference was made of is packed
    against it next.
    """
    needed = {m.leans_on for m in members}
    about_to = {m.taken_at for m in members if m.leans_on is None}
    return [r for r in references if r.name not in needed and r.taken_at not in about_to]


def is_worth(packed_bytes: int, own_bytes: int) -> bool:
    """Whether a packed form saves enough against the snapshot compressed on its own."""
    return packed_bytes < _WORTH * own_bytes


def _step_for(
    member: Member, members: Sequence[Member], references: Sequence[Reference], unfit: Collection[tuple[str, str]]
) -> Step | None:
    nearest = min(references, key=lambda r: (_gap(member, r), r.name != member.leans_on, r.name), default=None)
    tried = nearest is not None and (member.name, nearest.name) in unfit
    if member.leans_on is not None:
        is_there = any(r.name == member.leans_on for r in references)  # else it cannot be unpacked
        moves = nearest is not None and nearest.name != member.leans_on and is_there and not tried
        return Pack(member, nearest) if moves and nearest is not None else None
    if nearest is not None and not _gap(member, nearest):
        return None if tried else Pack(member, nearest)
    if nearest is None or tried or _is_full(nearest, member, members):
        return MakeReference(member)
    return Pack(member, nearest)


def _gap(member: Member, reference: Reference) -> timedelta:
    return abs(member.taken_at - reference.taken_at)


def _is_full(reference: Reference, member: Member, members: Sequence[Member]) -> bool:
    is_younger = member.taken_at > reference.taken_at
    side = [
        m.stored_bytes
        for m in members
        if m.leans_on == reference.name and (m.taken_at > reference.taken_at) == is_younger
    ]
    return len(side) >= GROUP_MAX or sum(side) > _FULL * reference.stored_bytes
