"""Which old snapshots of one file are packed, and against which reference; one step at a time.

A reference is a copy of one state that is no snapshot.  A packed snapshot holds what differs from its reference, so
each leans on the one nearest to it in time.  A new reference is made of a snapshot when what those on its side of the
nearest one take together is more than that reference takes: at that point one more costs less than going on.  The
younger half of the group then leans on the new one, which is the nearer, so that a reference comes to stand in the
middle of its group.

References lean on a reference that is a full copy, a root, in the same way and by the same rule; roots lean on nothing,
so there are never more than two between a snapshot and its bytes.  Snapshots come and go without their reference; it
goes when nothing leans on it.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

UNPACKED_NEWEST = 3  # good snapshots that stay as they are: the ones restored in a hurry
GROUP_MAX = 16  # that lean on one side of a reference: with it, they are lost together
SIZE_MAX_BYTES = 64 * 1024 * 1024  # of the plain bytes: both states are held in memory, by a process of its own
STORED_MIN_BYTES = 8 * 1024  # below, a file system saves nothing
_WORTH = 0.7  # of its own size: a packed form that is larger says that the file is another one now
_FULL = 1.0  # of the size of what they lean on


class Reference(Struct, frozen=True):
    """A copy of the state that was taken at `taken_at`; a root leans on nothing."""

    name: str
    taken_at: datetime
    stored_bytes: int
    leans_on: str | None = None


class Member(Reference, frozen=True):
    """A good snapshot; `leans_on` names the reference of a packed one.  One that may not pack stays as it is."""

    may_pack: bool = True


class Pack(Struct, frozen=True):
    """The snapshot, or a reference, is to lean on the reference."""

    what: Reference
    reference: Reference


class MakeReference(Struct, frozen=True):
    """A reference is to be made of the snapshot's state, leaning on a root or a root itself."""

    what: Member
    root: Reference | None


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
    roots = [r for r in references if r.leans_on is None]
    for reference in references:
        if reference.leans_on is not None and (root := _nearer(reference, roots, unfit)) is not None:
            return Pack(reference, root)
    for member in reversed(newest_first[UNPACKED_NEWEST:]):
        if not member.may_pack or (member.name, member.name) in unfit:
            continue
        if member.leans_on is not None:
            nearer = _nearer(member, references, unfit)
            step: Step | None = Pack(member, nearer) if nearer is not None else None
        else:
            step = _first_step_for(member, newest_first, references, unfit)
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
    stay = [r for r in references if r.name in needed or r.taken_at in about_to]
    roots = {r.leans_on for r in stay}
    return [r for r in references if r not in stay and r.name not in roots]


def is_worth(packed_bytes: int, own_bytes: int) -> bool:
    """Whether a packed form saves enough against the snapshot compressed on its own."""
    return packed_bytes < _WORTH * own_bytes


def _nearer(what: Reference, choice: Sequence[Reference], unfit: Collection[tuple[str, str]]) -> Reference | None:
    """Return the reference that something packed is to lean on instead of the one it does; None to leave it so."""
    now = next((r for r in choice if r.name == what.leans_on), None)
    nearest = _nearest(what, choice)
    if now is None or nearest is None or (what.name, nearest.name) in unfit:
        return None  # what its reference is lost to cannot be unpacked
    return nearest if _gap(what, nearest) < _gap(what, now) else None


def _first_step_for(
    member: Member, members: Sequence[Member], references: Sequence[Reference], unfit: Collection[tuple[str, str]]
) -> Step | None:
    nearest = _nearest(member, references)
    tried = nearest is not None and (member.name, nearest.name) in unfit
    if nearest is not None and not _gap(member, nearest):
        return None if tried else Pack(member, nearest)
    if nearest is not None and not tried and not _is_full(nearest, member, members):
        return Pack(member, nearest)
    root = _nearest(member, [r for r in references if r.leans_on is None])
    if root is None or (member.name, root.name) in unfit or _is_full(root, member, references):
        root = None
    return MakeReference(member, root)


def _nearest(what: Reference, choice: Sequence[Reference]) -> Reference | None:
    return min(choice, key=lambda r: (_gap(what, r), r.name), default=None)


def _gap(one: Reference, other: Reference) -> timedelta:
    return abs(one.taken_at - other.taken_at)


def _is_full(reference: Reference, new: Reference, others: Sequence[Reference]) -> bool:
    """Whether what leans on the reference, on the side of the new one, takes so much that a new group should begin."""
    is_younger = new.taken_at > reference.taken_at
    side = [
        other.stored_bytes
        for other in others
        if other.leans_on == reference.name and (other.taken_at > reference.taken_at) == is_younger
    ]
    return len(side) >= GROUP_MAX or sum(side) > _FULL * reference.stored_bytes
