"""How far a long command is, on a terminal only, from its second second on."""

import sys
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TypeVar

_T = TypeVar("_T")
_QUIET_S = 1.0
_EVERY_S = 0.2


class Progress:
    """One line on standard error that is written over, and gone at the end; nothing where that is no terminal."""

    def __init__(self, doing: str, total: int | None = None) -> None:
        self._doing, self._total, self._done = doing, total, 0
        self._next = monotonic() + _QUIET_S if sys.stderr.isatty() else float("inf")
        self._shown = False

    def step(self) -> None:
        self._done += 1
        now = monotonic()
        if now < self._next:
            return
        self._next, self._shown = now + _EVERY_S, True
        of = f" of {self._total:,}" if self._total is not None else ""
        sys.stderr.write(f"\r{self._doing}: {self._done:,}{of} ")
        sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def with_progress(items: Sequence[_T], doing: str) -> Iterator[_T]:
    """Yield `items`, telling how many are done."""
    progress = Progress(doing, len(items))
    try:
        for item in items:
            yield item
            progress.step()
    finally:
        progress.end()
