"""The sides that take turns: a daemon for each size of tree, perhaps another program's beside it, and the floor."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from bot import CHANGED, tree_of
from pairs import Report, tell


@dataclass
class Samples:
    """What one side gave, in milliseconds, turn by turn."""

    told: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


class Named(Protocol):
    """What a side is called in the report."""

    name: str


S = TypeVar("S", bound=Named)
F = TypeVar("F")


def add_options(parser: argparse.ArgumentParser, *, files: Sequence[int], file: str) -> None:
    parser.add_argument("--files", type=int, nargs="+", default=list(files), help="sizes of the trees")
    parser.add_argument("--sizes", nargs="+", default=list(CHANGED), choices=CHANGED, help=f"sizes of the {file} file")
    parser.add_argument("--against", help="another backup-agent, measured in the same turns")


def trees(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Path]]:
    """Yield the program, the name and the folder of each side."""
    for count in arguments.files:
        for label, agent in (("", arguments.agent), (" other", arguments.against)):
            if agent:
                folder = tree_of(arguments.scratch, count, "other-tree" if label else "tree")
                yield agent, f"{count:,} files{label}", folder


def in_turns_with_floor(
    report: Report,
    what: str,
    sides: Sequence[S],
    turn: Callable[[S, Samples], None],
    floor: Callable[[], F],
    *,
    warm_up: int,
) -> tuple[dict[str, Samples], list[F]]:
    """Return what each side and the floor gave, once they are warm."""
    pairs = report.arguments.pairs
    samples: dict[str, Samples] = {}
    floors: list[F] = []
    for number in range(-min(warm_up, pairs - 1), pairs):
        tell(f"{what}: pair {number + 1} of {pairs}")
        if number <= 0:
            samples, floors = {side.name: Samples() for side in sides}, []
        for side in sides:
            turn(side, samples[side.name])
        floors.append(floor())
    return samples, floors
