"""Every benchmark runs at a tiny size, so that none of them rots; what they measure is not judged here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
TINY = {
    "one_change.py": "--files 3 --pairs 1 --sizes 4_KB --styles rename --idle 0",
    "flush.py": "--files 2 --pairs 1",
    "heal.py": "--files 3 --pairs 1 --sizes 4_KB",
    "first_protection.py": "--files 5 --pairs 1 --big 0",
    "start.py": "--files --pairs 1",
    "memory.py": "--files 3 --seconds 0.1",
    "burst.py": "--seconds 0.5 --debounce 0.05 --max-delay 0.2 --many 0",
    "packing.py": "--versions 2 --size 0.01 --tools --ways backup-agent,_zstd",
    "peers.py": "--files 3 --pairs 1 --tools cp --svg {folder}/growth.svg",
}
HEAVIER = {
    "first_protection.py": "--files --big 0.01 --big-pairs 1",
    "start.py": "--files 50 --pairs 2",
    "burst.py": "--seconds 0 --many 3 --many-seconds 0.5 --max-delay 2",
    "packing.py": "--versions 2 --size 0.01",
    "peers.py": "--files 3 --pairs 1",
}
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the floor is a C program")


class Run:
    """One benchmark under way."""

    def __init__(self, name: str, words: str, folder: Path) -> None:
        options = [word.replace("_", " ").replace("{folder}", str(folder)) for word in words.split()]
        self._process = subprocess.Popen(
            [sys.executable, BENCHMARKS / name, *options, "--json", "--scratch", folder],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def rows(self) -> list[dict[str, object]]:
        out, err = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, out + err
        rows: list[dict[str, object]] = json.loads(out)["rows"]
        return rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All of them at once: most of their time is waiting."""
    return {name: Run(name, words, tmp_path_factory.mktemp("benchmark")) for name, words in TINY.items()}


def test_every_benchmark_is_tried() -> None:
    programs = {path.name for path in BENCHMARKS.glob("*.py") if "parse_args" in path.read_text()}

    assert programs == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_benchmark_of_tiny_size_measures_something(name: str, runs: dict[str, Run]) -> None:
    rows = runs[name].rows()

    assert rows
    assert all(row["values"] for row in rows)


@pytest.mark.torture
@pytest.mark.parametrize("name", HEAVIER)
def test_benchmark_beside_others_measures_something(name: str, tmp_path: Path) -> None:
    assert Run(name, HEAVIER[name], tmp_path).rows()
