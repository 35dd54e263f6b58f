"""The long proofs run when they are asked for: `pytest -m torture tests/proof`."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "torture" in str(config.option.markexpr):
        return
    for item in items:
        if item.get_closest_marker("torture"):
            item.add_marker(pytest.mark.skip(reason="minutes long; run with -m torture"))
