"""Groups of series whose labels cannot be misspelt and cannot grow without bound."""

import threading
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from agent.core.naming import display
from agent.metrics.client import Collector, CollectorRegistry, Counter, Gauge, GaugeMetricFamily, Metric

E = TypeVar("E", bound=StrEnum)


class CounterBy(Generic[E]):
    """A counter split by one label, whose values are the members of `values`."""

    def __init__(self, family: Counter, values: type[E]) -> None:
        self._children = {value: family.labels(value.value) for value in values}

    def inc(self, value: E, amount: int = 1) -> None:
        self._children[value].inc(amount)


class GaugeBy(Generic[E]):
    """A gauge split by one label, whose values are the members of `values`."""

    def __init__(self, family: Gauge, values: type[E]) -> None:
        self._children = {value: family.labels(value.value) for value in values}

    def set(self, value: E, number: float) -> None:
        self._children[value].set(number)

    def set_all(self, numbers: Mapping[E, float]) -> None:
        """Set every value; those that `numbers` leaves out become 0."""
        for value, child in self._children.items():
            child.set(numbers.get(value, 0))


class FileTimes(Collector):
    """Two timestamps for each data file; plain floats, because 1,000 pairs of the library's gauges take megabytes.

    Files named in the config always have their series.  The others get one in the order in which they come, while
    fewer than `others_max` have one.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._others_max = 100
        self._named: frozenset[str] = frozenset()
        self._times: dict[str, tuple[float, float]] = {}
        self._others_count = 0
        self._file_count = 0
        self._lock = threading.Lock()
        registry.register(self)

    def limit(self, *, named: Iterable[str], others_max: int) -> None:
        with self._lock:
            self._named = frozenset(map(display, named))
            self._others_max = others_max
            self._others_count = sum(1 for label in self._times if label not in self._named)

    def set_file_count(self, count: int) -> None:
        self._file_count = count

    def set(self, rel: str, last_good: float | None, last_snapshot: float | None) -> None:
        label = display(rel)
        with self._lock:
            if label not in self._times and label not in self._named:
                if self._others_count >= self._others_max:
                    return
                self._others_count += 1
            self._times[label] = (last_good or 0.0, last_snapshot or 0.0)

    def forget(self, rel: str) -> None:
        label = display(rel)
        with self._lock:
            if self._times.pop(label, None) is not None and label not in self._named:
                self._others_count -= 1

    def describe(self) -> Iterable[Metric]:
        """Tell the registry the names, so that no other metric takes them."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        good, snapshot, dropped = self._families()
        with self._lock:
            times = sorted(self._times.items())
            is_full = self._others_count >= self._others_max
        for label, (last_good, last_snapshot) in times:
            good.add_metric([label], last_good)
            snapshot.add_metric([label], last_snapshot)
        dropped.add_metric([], max(0, self._file_count - len(times)) if is_full else 0)
        return good, snapshot, dropped

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "backup_agent_file_last_good_timestamp_seconds",
                "When the data file was last seen in a good state, Unix time; 0: never.",
                labels=["file"],
            ),
            GaugeMetricFamily(
                "backup_agent_file_last_snapshot_timestamp_seconds",
                "When the newest snapshot of the data file was taken, Unix time; 0: never.",
                labels=["file"],
            ),
            GaugeMetricFamily(
                "backup_agent_file_labels_dropped",
                "Data files without a series of their own, because too many have one.",
                labels=[],
            ),
        )
