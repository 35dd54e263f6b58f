"""The floor: what `floor.c`, the least that a durable copy can be, takes on the same file system."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What one run of the floor took, told by itself, so without the start of its process."""

    wall_s: float
    processor_s: float


class Floor:
    """The compiled program, and a folder that it copies into."""

    def __init__(self, scratch: Path) -> None:
        self.binary = compiled("floor", scratch)
        self.folder = scratch / "floor-copies"
        self.folder.mkdir(exist_ok=True)

    def copy(self, *files: Path, whole: bool = False) -> Cost:
        """Copy `files` durably; `whole`: with one flush of the file system."""
        said = subprocess.run(self.command(*files, whole=whole), capture_output=True, text=True, check=True).stdout
        wall_ns, processor_ns = map(int, said.split())
        return Cost(wall_ns / 1e9, processor_ns / 1e9)

    def command(self, *files: Path, whole: bool = False) -> list[str]:
        return [str(self.binary), *(["-s"] if whole else []), str(self.folder), *map(str, files)]


def compiled(name: str, scratch: Path) -> Path:
    """Return the program of `name`.c; it is made when the source is newer."""
    source, binary = Path(__file__).with_name(f"{name}.c"), scratch / name
    if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
        return binary
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit(f"{name} is a small C program and there is no C compiler: install one (Debian: apt install gcc)")
    scratch.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-O2", "-o", str(binary), str(source)], check=True)
    return binary
