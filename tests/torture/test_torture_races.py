"""Seconds of everything at once in every run, minutes of it with `-m torture`."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import packing_races
import races

pytestmark = [
    pytest.mark.xdist_group("real bots"),
    pytest.mark.skipif(sys.platform != "linux" or not hasattr(os, "geteuid"), reason="leases are Linux"),
]
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace holds the calls up")


@pytest.mark.parametrize("style", ["append"])
def test_bot_among_commands_and_a_second_agent_loses_nothing(style: str) -> None:
    outcome = races.run(races.Options(style, seed=1, seconds=3))

    assert outcome.violations == []
    assert outcome.writes > 1


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("style", races.STYLES)
def test_minutes_of_everything_at_once_lose_nothing(style: str, seed: int) -> None:
    outcome = races.run(races.Options(style, seed=seed, seconds=60))

    assert outcome.violations == []
    assert outcome.heals > 0


@pytest.mark.torture
@needs_strace
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("style", races.STYLES)
def test_windows_held_open_lose_nothing(style: str, seed: int) -> None:
    outcome = races.run(races.Options(style, seed=seed, seconds=60, delays=True))

    assert outcome.violations == []


@pytest.mark.torture
@pytest.mark.parametrize("seed", [1, 2])
def test_packed_snapshots_in_many_hands_stay_whole_and_agree_with_the_catalog(seed: int) -> None:
    assert packing_races.run(seed, 60).violations == []
