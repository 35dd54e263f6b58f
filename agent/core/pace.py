"""How often: repeated work that keeps within its share of a core, and pauses that grow while something fails or keeps
coming.
"""

from math import inf

_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 60.0
_SOON_FACTOR = 20.0  # work that is asked for early still leaves the core alone for this many times its cost
_SOON_MIN_S = 0.2
_GATHER_FIRST_S = 0.00025  # a small save is over by then
_GATHER_GROWTH = 0.25
_GATHER_SHARE = 0.05  # of the debounce: by so much a change may be noticed late
_GATHER_LIMITS_S = (0.02, 0.1)


class Pace:
    """The pause after one run of repeated work: its interval, stretched until the work takes at most `share`."""

    def __init__(self, interval_s: float, share: float) -> None:
        self._interval_s, self._share = interval_s, share
        self._cost_s = 0.0

    def adjust(self, interval_s: float, share: float) -> None:
        """Use another interval and share of one core from now on."""
        self._interval_s, self._share = interval_s, share

    def after(self, cost_s: float) -> float:
        """Return the seconds to wait after a run that cost `cost_s`."""
        self._cost_s = cost_s
        return max(self._interval_s, cost_s / self._share)

    @property
    def soon_s(self) -> float:
        """The shortest pause, in seconds, for a run that is wanted out of turn."""
        return max(_SOON_MIN_S, _SOON_FACTOR * self._cost_s)


class BackOff:
    """Pauses between tries of what keeps failing: 1, 2, 4 … seconds, a minute at most."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def next_s(self, key: str) -> float:
        """Return the pause before the next try of `key`, twice the one before."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        return float(min(_BACKOFF_FIRST_S * 2 ** min(count, 10), _BACKOFF_MAX_S))

    def reset(self, key: str) -> None:
        """`key` worked; its next failure is a first one."""
        self._failures.pop(key, None)


class Gathering:
    """How long news may gather before it is read again: longer and longer while it keeps coming.

    What comes after a quiet time is read at once, and again a quarter of a millisecond later.  What goes on is read
    after a quarter of the time that it has been coming, so the end of a short burst is noticed late by no more.
    """

    def __init__(self, debounce_s: float) -> None:
        least, most = _GATHER_LIMITS_S
        self._longest_s = min(max(_GATHER_SHARE * debounce_s, least), most)
        self._gap_s, self._read_at, self._began_at = 0.0, -inf, -inf

    def after(self, read_at: float) -> float:
        """Return the seconds to wait after a read at that moment, before the next one."""
        if read_at - self._read_at > self._gap_s + self._longest_s:
            self._began_at = read_at
        self._gap_s = min(max(_GATHER_FIRST_S, _GATHER_GROWTH * (read_at - self._began_at)), self._longest_s)
        self._read_at = read_at
        return self._gap_s
