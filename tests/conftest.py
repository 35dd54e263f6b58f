"""What every test shares: laws are judged by what they find, not by how fast a busy machine finds it."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

WHOLE_SUITE_WORKERS = 2


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests, where `-n` does not say it; 0 is this one alone.

    Much of the suite waits for real processes, so two workers pay on a single core too, and more would be in the way of
    the bots.  What was asked for by name starts sooner here, and the tortures measure: they want the machine alone.
    """
    is_whole = config.args_source is config.ArgsSource.TESTPATHS and config.option.markexpr == "not torture"
    return WHOLE_SUITE_WORKERS if is_whole else 0
