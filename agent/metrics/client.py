"""The parts of prometheus_client that are used here, without the rest of it."""

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

_PACKAGE = "prometheus_client"
if _PACKAGE not in sys.modules and (_spec := importlib.util.find_spec(_PACKAGE)) is not None:
    # The package itself loads a web server, a push client and TLS, which nothing here uses: 3.5 MiB resident.  Behind
    # an empty package its parts load alone; the entry is taken back below, so whoever imports it later has all of it.
    sys.modules[_PACKAGE] = ModuleType(_PACKAGE)
    sys.modules[_PACKAGE].__path__ = list(_spec.submodule_search_locations or ())

from prometheus_client.metrics import Counter, Gauge, Histogram, disable_created_metrics  # noqa: E402 (see above)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric  # noqa: E402
from prometheus_client.openmetrics.exposition import generate_latest  # noqa: E402
from prometheus_client.process_collector import ProcessCollector  # noqa: E402
from prometheus_client.registry import Collector, CollectorRegistry  # noqa: E402

if not hasattr(sys.modules[_PACKAGE], "__file__"):
    del sys.modules[_PACKAGE]

disable_created_metrics()  # type: ignore[no-untyped-call]  # for the whole process: the library knows no other way

__all__ = [
    "Collector",
    "CollectorRegistry",
    "Counter",
    "Gauge",
    "GaugeMetricFamily",
    "Histogram",
    "Metric",
    "ProcessCollector",
    "openmetrics_text",
    "plain_text",
]


def openmetrics_text(metrics: Collector) -> bytes:
    """Return the text of all metrics in the OpenMetrics format 1.0.0."""
    text: bytes = generate_latest(metrics)  # type: ignore[no-untyped-call]  # the library types only half of itself
    return text


def plain_text(metrics: Collector) -> bytes:
    """Return the text of all metrics in the Prometheus format 0.0.4.

    The library's own writer of this format lives in the module that is left out above.  The two formats differ, for
    what is used here, in the family name of counters and in the mark at the end.
    """
    return openmetrics_text(_PlainNames(metrics)).removesuffix(b"# EOF\n")


class _PlainNames(Collector):
    """The same metrics as the older format calls them: there `_total` belongs to the counter's own name."""

    def __init__(self, metrics: Collector) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for family in self._metrics.collect():
            if family.type == "counter":
                family.name += "_total"
            yield family
