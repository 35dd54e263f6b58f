"""A document that parses can still have collapsed: this compares its outline with that of the last good state."""

from msgspec import Struct

from agent.core.model import Problem, Shape
from agent.core.problem import ProblemKind


class SuspectThresholds(Struct, frozen=True):
    """How much may be gone at once before a person should look.

    Fewer than `min_fraction` of the records or bytes raises suspicion, where there were at least `min_records` or
    `min_bytes`: small files halve every day.
    """

    enabled: bool = True
    min_fraction: float = 0.5
    min_records: int = 5
    min_bytes: int = 1024


def find_collapse(now: Shape, last_good: Shape, thresholds: SuspectThresholds) -> tuple[Problem, ...]:
    """Return why `now` looks like a loss against `last_good`; empty when nothing speaks for one.

    The first of these that applies is returned alone, for it explains the others: emptied (null, or no records where
    there were some), another root type.  Otherwise fewer records, fewer bytes, or both.
    """
    if not thresholds.enabled:
        return ()
    if _is_empty(now) and not _is_empty(last_good):
        before = last_good.root if last_good.records is None else f"{last_good.records} records"
        return (Problem(ProblemKind.EMPTIED, f"emptied: {before} before, nothing now"),)
    if now.root != last_good.root:
        return (
            Problem(ProblemKind.ROOT_CHANGED, f"the root is {_article(now.root)}, it was {_article(last_good.root)}"),
        )
    problems = []
    if now.records is not None and last_good.records is not None:
        fewest = thresholds.min_fraction * last_good.records
        if last_good.records >= thresholds.min_records and now.records < fewest:
            message = f"{now.records} records, {last_good.records} before"
            problems.append(Problem(ProblemKind.FEWER_RECORDS, message))
    smallest = thresholds.min_fraction * last_good.size_bytes
    if last_good.size_bytes >= thresholds.min_bytes and now.size_bytes < smallest:
        message = f"{now.size_bytes} bytes, {last_good.size_bytes} before"
        problems.append(Problem(ProblemKind.FEWER_BYTES, message))
    return tuple(problems)


def _is_empty(shape: Shape) -> bool:
    return shape.root == "null" or shape.records == 0


def _article(root: str) -> str:
    return root if root == "null" else f"an {root}" if root[0] in "ao" else f"a {root}"
