"""How often: repeated work that keeps within its share of a core, and pauses that grow while something fails."""

_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 60.0
_SOON_FACTOR = 20.0  # work that is asked for early still leaves the core alone for this many times its cost
_SOON_MIN_S = 0.2


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
