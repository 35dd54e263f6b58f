"""A bounded share of each proof in every run, the whole of them with `-m torture`.

Times are reported by the programs and not asserted here, with one exception that the tortures keep: the promised time
of the last snapshot, with a second of slack.
"""

import os
import shutil
import sys

import big_file_delay
import bots_under_damage
import damages
import early_bot
import pytest
from bots_under_damage import NAIVE, RUNTIMES, STYLES, Options

LOADED_MACHINE_S = 10.0
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="the bots of this proof run on Node")
pytestmark = [
    pytest.mark.xdist_group("real bots"),
    pytest.mark.skipif(sys.platform != "linux" or not hasattr(os, "geteuid"), reason="leases are Linux"),
]


@pytest.mark.parametrize(
    ("runtime", "style"),
    [
        pytest.param("node", "rename", marks=needs_node),
        ("python", "inplace"),
        pytest.param("node", "burst", marks=needs_node),
    ],
)
def test_bot_under_damage_loses_nothing(runtime: str, style: str) -> None:
    options = Options(runtime, style, seconds=5, debounce_s=0.1, slack_s=LOADED_MACHINE_S)

    outcome = bots_under_damage.run(options)

    assert outcome.violations == []
    assert outcome.snapshots > 1


@pytest.mark.torture
def test_proof_finds_what_read_judge_rename_loses() -> None:
    outcome = bots_under_damage.run(
        Options("python", "inplace", agent=NAIVE, seconds=20, debounce_s=0.01, slack_s=LOADED_MACHINE_S)
    )

    assert any(violation.startswith("lost:") for violation in outcome.violations)


def test_damages_are_healed_and_the_readable_is_left_alone() -> None:
    results = damages.run(["strict"], further_writes=15)

    assert {name: complaint for name, complaint in results.items() if complaint} == {}


@pytest.mark.parametrize("proof", ["gated", "ungated", "caught running"])
def test_bot_that_empties_what_it_cannot_read_is_survived(proof: str) -> None:
    assert early_bot.PROOFS[proof]("python") == ""


def test_bot_that_prunes_the_backups_gets_its_last_state_back() -> None:
    assert early_bot.pruned("python", saves=12, told=False) == ""


def test_big_file_is_snapshotted_once_its_opens_stop() -> None:
    delays = big_file_delay.run(size_mb=30, seconds=2)

    assert delays.snapshot_s is not None


@pytest.mark.torture
@pytest.mark.parametrize("debounce_s", [0.02, 2.0])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "runtime", [pytest.param(runtime, marks=needs_node if runtime == "node" else ()) for runtime in RUNTIMES]
)
def test_bot_under_a_minute_of_damage_loses_nothing(runtime: str, style: str, debounce_s: float) -> None:
    outcome = bots_under_damage.run(Options(runtime, style, debounce_s=debounce_s, slack_s=1.0))

    assert outcome.violations == []
    assert outcome.heals > 0


@pytest.mark.torture
@pytest.mark.parametrize("proof", early_bot.PROOFS)
@pytest.mark.parametrize("runtime", [pytest.param("node", marks=needs_node), "python"])
def test_bot_against_its_own_data_is_survived(runtime: str, proof: str) -> None:
    assert early_bot.PROOFS[proof](runtime) == ""


@pytest.mark.torture
@pytest.mark.parametrize("parser", damages.PARSERS)
def test_damages_are_healed_as_each_parser_sees_them(parser: str) -> None:
    results = damages.run([parser])

    assert {name: complaint for name, complaint in results.items() if complaint} == {}


@pytest.mark.torture
def test_file_of_500_mb_holds_no_open_up_and_is_snapshotted() -> None:
    delays = big_file_delay.run()

    assert delays.snapshot_s is not None
