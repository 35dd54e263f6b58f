"""A few seconds of the tortures that need disks of their own in every run, the whole of them with `-m torture`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cut_disk import SIZE_MIB, cuts_of, missing_tools
from held_flushes import why_not

HERE = Path(__file__).parent
pytestmark = pytest.mark.xdist_group("loop devices")
DISKS = [(fs, kind) for fs in SIZE_MIB for kind in cuts_of(fs)]


def hold(program: str, *arguments: str, at_least: int) -> None:
    """The program finds no violation, at no fewer points than that."""
    done = subprocess.run([sys.executable, HERE / program, *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    summary = done.stdout.splitlines()[-1]
    assert int(re.findall(r"\d+", summary)[0]) >= at_least, summary


def need(reason: str) -> None:
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize(("fs", "name"), [("ext4", "heal at"), ("btrfs", "rotation")])
def test_power_cut_in_an_operation_keeps_what_was_announced(fs: str, name: str) -> None:
    need(why_not() or missing_tools(fs))
    hold("power_cut.py", "--fs", fs, "--cut", cuts_of(fs)[0], "-k", name, "--share", "1", "--random", "0", at_least=2)


def test_full_disk_in_a_rotation_loses_nothing() -> None:
    need(missing_tools("ext4"))
    hold("full_disk.py", "--kind", "ext4", "-k", "rotation", "--share", "2", at_least=2)


@pytest.mark.torture
@pytest.mark.parametrize(("fs", "kind"), DISKS)
def test_power_cut_at_every_flush_and_at_random_keeps_what_was_announced(fs: str, kind: str) -> None:
    need(why_not() or missing_tools(fs))
    hold("power_cut.py", "--fs", fs, "--cut", kind, "--random", "50", "--minutes", "120", at_least=300)


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_full_disk_at_every_block_and_under_the_bot_loses_nothing(kind: str) -> None:
    need(missing_tools("ext4"))
    hold("full_disk.py", "--kind", kind, at_least=200)


@pytest.mark.torture
def test_an_hour_of_writes_lets_nothing_grow() -> None:
    hold("soak.py", "--seconds", "3600", at_least=3600)
