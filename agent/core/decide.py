"""What follows from what was seen: one pure function per question, a decision as data."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct

from agent.core.model import FileState, Grade, HealAction, Snapshot


class LeftWhy(StrEnum):
    """Why a damaged or missing file is left as it is, with a person to act."""

    NEVER_GOOD = "never_good"
    POLICY = "policy"
    GAVE_UP = "gave_up"
    NO_RESTORE_POINT = "no_restore_point"
    PAUSED = "paused"  # a person works by hand; looked at again when the pause ends
    MASS = "mass"  # most files, or the folder itself, went at once: an unmount or a deploy


class Publish(Struct, frozen=True):
    """Keep this state as a snapshot, or as a suspect one aside; `rolled_back_to` is an older snapshot it equals."""

    grade: Grade
    rolled_back_to: str | None = None


class Unchanged(Struct, frozen=True):
    """The newest snapshot of this grade holds the very same bytes."""


class Wait(Struct, frozen=True):
    """The file may still be in the middle of a change: look again when it is quiet.

    `told`: it has been so for too long to say nothing.
    """

    told: bool = False


class Heal(Struct, frozen=True):
    """Bring the file back; the first action that can be done is."""

    actions: tuple[HealAction, ...]
    attempt: int  # 1 for the first heal of this damage


class LeaveAlone(Struct, frozen=True):
    """Keep a copy of the damaged bytes, touch nothing, tell a person."""

    why: LeftWhy


Decision = Publish | Unchanged | Wait | Heal | LeaveAlone


class HealPolicy(Struct, frozen=True):
    """The operator's wishes for one file."""

    on_corrupt: str = "restore"
    on_invalid: str = "repair"
    on_missing: str = "alert"
    attempts_max: int = 3
    clobber_window: timedelta = timedelta(seconds=60)


class Circumstances(Struct, frozen=True):
    """When and how the look was had.

    `quiet`: nothing changed for the debounce, and nobody has the file open for writing.  `overdue`: it waits for
    longer than the maximal delay.  `at_gate`: no bot runs yet.  `paused`: a person works by hand.
    """

    now: datetime
    quiet: bool
    at_gate: bool = False
    overdue: bool = False
    beside_writer: bool = False
    paused: bool = False


def decide(
    grade: Grade,
    digest: str,
    past: FileState | None,
    snapshots: Sequence[Snapshot],
    policy: HealPolicy,
    at: Circumstances,
) -> Decision:
    """Return what to do about a state of `grade` whose bytes have `digest`.

    `snapshots` are those of the file, newest first.  Damage and collapse are believed only of a quiet file; a
    collapse that is overdue is kept aside all the same, which harms nothing if it was an instant's.

    Raises:
        ValueError: `grade` tells of no bytes: a missing file is for `decide_missing`, an unreadable one is not healed.
    """
    if grade in (Grade.MISSING, Grade.UNREADABLE):
        raise ValueError(f"nothing was seen of a file that is {grade}")
    if grade is Grade.GOOD:
        return _decide_good(digest, [s for s in snapshots if s.grade is Grade.GOOD])
    overdue_collapse = grade is Grade.SUSPECT and at.overdue and not at.beside_writer
    if not at.quiet and not overdue_collapse:
        return Wait(told=at.overdue)
    if grade is Grade.SUSPECT:
        newest = next((s for s in snapshots if s.grade is Grade.SUSPECT), None)
        return Unchanged() if newest and newest.digest == digest else Publish(Grade.SUSPECT)
    wish = policy.on_invalid if grade is Grade.INVALID else policy.on_corrupt
    actions: tuple[HealAction, ...] = (HealAction.REPAIR, HealAction.RESTORE)
    if grade is Grade.INVALID and wish == "restore":
        actions = (HealAction.RESTORE,)
    return _decide_heal(grade, wish, actions, past, snapshots, policy, at)


def decide_missing(
    past: FileState | None, snapshots: Sequence[Snapshot], policy: HealPolicy, at: Circumstances, *, mass: bool
) -> Decision:
    """Return what to do about a file that is gone for longer than an atomic replace takes.

    `mass` says that most files, or the folder itself, went at once.
    """
    if mass:
        return LeaveAlone(LeftWhy.MASS)
    return _decide_heal(Grade.MISSING, policy.on_missing, (HealAction.RESTORE,), past, snapshots, policy, at)


def _decide_good(digest: str, good: Sequence[Snapshot]) -> Decision:
    if good and good[0].digest == digest:
        return Unchanged()
    older = next((s.name for s in good[1:] if s.digest == digest), None)
    return Publish(Grade.GOOD, rolled_back_to=older)


def _decide_heal(
    grade: Grade,
    wish: str,
    actions: tuple[HealAction, ...],
    past: FileState | None,
    snapshots: Sequence[Snapshot],
    policy: HealPolicy,
    at: Circumstances,
) -> Decision:
    if not any(s.grade is Grade.GOOD for s in snapshots):
        return LeaveAlone(LeftWhy.NEVER_GOOD)
    if wish == "alert":
        return LeaveAlone(LeftWhy.POLICY)
    done = heals_in_window(past, grade, policy.clobber_window, at.now)
    if done >= policy.attempts_max and not at.at_gate:
        return LeaveAlone(LeftWhy.GAVE_UP)
    if at.paused:
        return LeaveAlone(LeftWhy.PAUSED)
    return Heal(actions, attempt=done + 1)


def heals_in_window(past: FileState | None, grade: Grade, window: timedelta, now: datetime) -> int:
    """Return how many heals of a damage of `grade` were undone; 0 when the last one held for longer than `window`.

    Once given up, the count stands until the file was seen good again.
    """
    if past is None or past.healed_at is None or past.healed_grade is not grade:
        return 0
    if past.gave_up or now - past.healed_at <= window:
        return past.heals
    return 0


def is_mass_absence(missing_count: int, known_count: int) -> bool:
    """Whether so many of the known files are gone that it looks like an unmount or a deploy, not like a loss."""
    return missing_count >= 3 and 2 * missing_count > known_count


def restore_candidates(snapshots: Sequence[Snapshot], *, at: datetime | None = None) -> list[Snapshot]:
    """Return the snapshots a restore may use, best first: good ones, newest first, not newer than `at`."""
    good = [s for s in snapshots if s.grade is Grade.GOOD and (at is None or s.taken_at <= at)]
    return sorted(good, key=lambda s: (s.taken_at, s.name), reverse=True)
