"""Which snapshots of one data file stay, which go, and why; decided here, carried out elsewhere.

Only good snapshots take part.  In every bucket the oldest is kept, so that one bad evening does not poison a day, and
so that a bucket's choice never changes while newer snapshots come in: planning after each snapshot leaves the same ones
as planning once at the end.  Buckets are counted from the newest, empty ones are not counted.  All times are UTC.

Snapshots dated after `now` (a clock that was wrong, a planted file) are planned by the same rules but on their own:
they can neither take a place from a real one nor grow without bound, and once their time comes they are like any other.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import TypeVar

from msgspec import Struct

from agent.core.model import Grade, Reason, Snapshot

_T = TypeVar("_T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RetentionPolicy(Struct, frozen=True):
    """How many snapshots stay, rule by rule; one that any rule keeps stays.

    `keep_replaced` is how long what a person's restore took the place of stays, and what it put there.  `keep_deleted`
    is how long all snapshots stay once their file was deleted on purpose; None means for ever.
    """

    keep_last: int = 10
    keep_intervals: int = 12
    interval: timedelta = timedelta(minutes=5)
    keep_within: timedelta | None = None
    keep_hourly: int = 24
    keep_daily: int = 7
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    minimum_good: int = 1
    keep_replaced: timedelta = timedelta(days=7)
    keep_deleted: timedelta | None = None

    def __post_init__(self) -> None:
        calendar = (self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly)
        if (
            min(self.keep_last, self.keep_intervals, *calendar) < 0
            or self.minimum_good < 1
            or self.interval <= timedelta()
        ):
            raise ValueError(f"counts start at 0, minimum_good at 1, and the interval is longer than nothing: {self}")


class Kept(Struct, frozen=True):
    """A snapshot that stays, and every reason for it in the words that `prune --dry-run` prints."""

    snapshot: Snapshot
    reasons: tuple[str, ...]


class RetentionPlan(Struct, frozen=True):
    """What stays, newest first, and what goes, oldest first: cut short, it has taken only the oldest."""

    keep: tuple[Kept, ...]
    delete: tuple[Snapshot, ...]


def plan_retention(
    snapshots: Sequence[Snapshot],
    policy: RetentionPolicy,
    *,
    now: datetime,
    held: bool = False,
    source_gone_since: datetime | None = None,
) -> RetentionPlan:
    """Return what stays and what goes of one file's `snapshots`, whose order does not matter.

    Always stay: what is pinned, what is not good (it is bounded elsewhere), and the newest `minimum_good` good ones.
    `held` (the file is damaged, missing or suspect): all stay.  `source_gone_since`, when the bot deleted the file on
    purpose: all stay until `keep_deleted` has passed, then only those that always do.
    Planning again on what stays, with the same `now`, deletes nothing.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: (snapshot.taken_at, snapshot.name), reverse=True)
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for snapshot in newest_first:
        if snapshot.pinned:
            reasons[snapshot.name].append("pinned")
        if snapshot.grade is not Grade.GOOD:
            reasons[snapshot.name].append(f"{snapshot.grade}: bounded on its own")
    good = [snapshot for snapshot in newest_first if snapshot.grade is Grade.GOOD]
    ahead = [snapshot for snapshot in good if snapshot.taken_at > now]
    freeze = _freeze(policy, now, held, source_gone_since)
    for group in (ahead, good[len(ahead) :]):
        for snapshot, reason in _floor(group, policy):
            reasons[snapshot.name].append(reason)
        if source_gone_since is None:
            for snapshot, reason in _rotation(group, policy, now):
                reasons[snapshot.name].append(reason)
        if freeze is not None:
            for snapshot in group:
                reasons[snapshot.name].append(freeze)
    for snapshot, reason in _by_hand(good, policy.keep_replaced, now) if source_gone_since is None else ():
        reasons[snapshot.name].append(reason)
    for snapshot in ahead:
        if snapshot.name in reasons:
            reasons[snapshot.name].append("dated in the future: counted apart")
    return RetentionPlan(
        keep=tuple(Kept(s, tuple(reasons[s.name])) for s in newest_first if s.name in reasons),
        delete=tuple(s for s in reversed(newest_first) if s.name not in reasons),
    )


def plan_bounded(newest_first: Sequence[_T], keep: int) -> tuple[_T, ...]:
    """Return which suspect or quarantined copies go so that `keep` stay, oldest first.

    The very first stays, because it shows the file at the moment of its collapse, and beside it the newest; with room
    for one only, the newest.
    """
    if len(newest_first) <= keep:
        return ()
    if keep <= 1:
        return tuple(reversed(newest_first[max(keep, 0) :]))
    return tuple(reversed(newest_first[keep - 1 : -1]))


def _freeze(policy: RetentionPolicy, now: datetime, held: bool, source_gone_since: datetime | None) -> str | None:
    """Return why nothing good may go at the moment, if so."""
    if held:
        return "held"
    if source_gone_since is None:
        return None
    if policy.keep_deleted is None:
        return "file is gone: kept for ever"
    if now - source_gone_since < policy.keep_deleted:
        return f"file is gone: kept for {_spelled(policy.keep_deleted)}"
    return None


def _floor(newest_first: Sequence[Snapshot], policy: RetentionPolicy) -> Iterable[tuple[Snapshot, str]]:
    for rank, snapshot in enumerate(newest_first[: policy.minimum_good], start=1):
        yield snapshot, "newest good" if rank == 1 else f"minimum good {rank}"


def _rotation(
    newest_first: Sequence[Snapshot], policy: RetentionPolicy, now: datetime
) -> Iterable[tuple[Snapshot, str]]:
    for rank, snapshot in enumerate(newest_first[: policy.keep_last], start=1):
        yield snapshot, f"last {rank}"
    if policy.keep_within is not None:
        reason = f"within {_spelled(policy.keep_within)}"
        for snapshot in newest_first:
            if abs(now - snapshot.taken_at) < policy.keep_within:
                yield snapshot, reason
    for rule, count, bucket in _buckets(policy):
        for snapshot in _oldest_of_buckets(newest_first, count, bucket):
            yield snapshot, f"{rule} {_LABELS[rule](snapshot.taken_at)}"


def _by_hand(newest_first: Sequence[Snapshot], keep: timedelta, now: datetime) -> Iterable[tuple[Snapshot, str]]:
    """Yield both ends of each restore by hand that is younger than `keep`: a person may want to go back.

    What it replaced is the state before it, whatever that was taken for, or one that was taken for the restore.
    """
    replaced: dict[str, Snapshot] = {}
    for snapshot, before in zip_longest(newest_first, newest_first[1:]):
        if abs(now - snapshot.taken_at) >= keep:
            continue
        if snapshot.reason is Reason.PRE_RESTORE:
            replaced[snapshot.name] = snapshot
        if snapshot.reason is Reason.RESTORED:
            yield snapshot, f"restored by hand, kept for {_spelled(keep)}"
            if before is not None:
                replaced[before.name] = before
    for snapshot in replaced.values():
        yield snapshot, f"replaced by hand, kept for {_spelled(keep)}"


def _buckets(policy: RetentionPolicy) -> Iterable[tuple[str, int, Callable[[datetime], Hashable]]]:
    interval = policy.interval
    yield "interval", policy.keep_intervals, lambda at: (at - _EPOCH) // interval
    yield "hourly", policy.keep_hourly, lambda at: (at.toordinal(), at.hour)
    yield "daily", policy.keep_daily, datetime.toordinal
    yield "weekly", policy.keep_weekly, lambda at: at.isocalendar()[:2]
    yield "monthly", policy.keep_monthly, lambda at: (at.year, at.month)
    yield "yearly", policy.keep_yearly, lambda at: at.year


_LABELS: dict[str, Callable[[datetime], str]] = {
    "interval": lambda at: f"{at.isoformat()[:19]}Z",
    "hourly": lambda at: f"{at.isoformat()[:13]}Z",
    "daily": lambda at: at.isoformat()[:10],
    "weekly": lambda at: "{:04}-W{:02}".format(*at.isocalendar()[:2]),
    "monthly": lambda at: at.isoformat()[:7],
    "yearly": lambda at: at.isoformat()[:4],
}


def _oldest_of_buckets(
    newest_first: Sequence[Snapshot], count: int, bucket: Callable[[datetime], Hashable]
) -> Iterable[Snapshot]:
    """Return the oldest snapshot of each of the `count` newest buckets that hold any."""
    oldest: dict[Hashable, Snapshot] = {}
    if count == 0:
        return ()
    for snapshot in newest_first:
        key = bucket(snapshot.taken_at)
        if key not in oldest and len(oldest) == count:
            break
        oldest[key] = snapshot
    return oldest.values()


def _spelled(duration: timedelta) -> str:
    """Return a duration as the config writes it, such as `2d` or `1h30m`."""
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((duration.days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
