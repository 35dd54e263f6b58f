"""A share of the hostile surroundings in every run; all of them, and every failing call, with `-m torture`."""

import os
import shutil
from pathlib import Path

import environments
import errors
import pytest
from rig import Place
from scene import CASES, Scene

pytestmark = pytest.mark.xdist_group("real bots")
ALWAYS = {
    "data_dir_moved_away_and_back",
    "slow_replace_within_the_grace_is_no_deletion",
    "catalog_deleted_while_running",
    "reload_with_a_bad_config_keeps_the_old_one",
    "backups_of_an_older_system_are_adopted",
}  # fmt: skip


def share(name: str, needs_root: bool) -> object:
    marks = [] if name in ALWAYS else [pytest.mark.torture]
    if needs_root:
        marks.append(pytest.mark.skipif(os.geteuid() != 0, reason="mounts or changes the owner"))
    return pytest.param(name, id=name, marks=marks)


@pytest.mark.parametrize("name", [share(name, needs_root) for name, _, needs_root in CASES])
def test_surroundings_cost_no_data(name: str, tmp_path: Path) -> None:
    if name == "any_name_is_protected_restored_and_told" and shutil.which("promtool") is None:
        pytest.skip("needs promtool")
    run = next(run for known, run, _ in CASES if known == name)
    with Place.scratch() as place:
        run(Scene(place, set()))


def test_share_names_cases_that_are_there() -> None:
    assert {name for name, _, _ in CASES} >= ALWAYS


@pytest.mark.torture
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_no_failing_call_breaks_a_promise() -> None:
    assert errors.main([]) == 0


def test_unknown_word_runs_no_case() -> None:
    assert environments.main(["-k", "no case has this name"]) == 0
