"""Paired measurements: what is compared runs in turns, the ratio is taken pair by pair, and the spread is told.

A machine that others use too has slow minutes.  Both sides of a pair meet the same ones.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PAIRS = 15


def options(description: str | None, *, pairs: int = PAIRS) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has; from here on a SIGTERM stops its daemons too."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=pairs, help="how often each side runs (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print every single value too")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()) / "backup-agent-benchmarks",
        help="where files are made; large trees are kept there for the next run (%(default)s)",
    )
    beside = Path(sys.executable).with_name("backup-agent")
    parser.add_argument(
        "--agent",
        default=str(beside) if beside.exists() else shutil.which("backup-agent"),
        help="the installed backup-agent to measure (%(default)s)",
    )
    return parser


def in_turns(pairs: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run A B A B ...; return what each side gave, in order."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(pairs):
        tell(f"pair {turn + 1} of {pairs}")
        for name, side in sides.items():
            values[name].append(side())
    tell("")
    return values


def tell(text: str) -> None:
    """Progress, for whoever watches; one line that the next one replaces."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@dataclass(frozen=True)
class Row:
    """One thing measured, alone or against `base`, with what it is to reach."""

    what: str
    unit: str
    values: Sequence[float]
    base_name: str = ""
    base: Sequence[float] = ()
    at_most: float | None = None  # times the base, or in the unit where there is no base

    @property
    def ratios(self) -> list[float]:
        return [mine / other for mine, other in zip(self.values, self.base, strict=True)] if self.base else []

    @property
    def is_reached(self) -> bool:
        return self.at_most is None or statistics.median(self.ratios or self.values) <= self.at_most

    def cells(self) -> tuple[str, ...]:
        target = "" if self.at_most is None else f"<= {self.at_most:g}{' x' if self.base else ''}"
        verdict = "" if self.at_most is None else ("yes" if self.is_reached else "NO")
        base = f"{number(statistics.median(self.base))} ({self.base_name})" if self.base else ""
        ratio = spread(self.ratios) if self.base else ""
        return self.what, self.unit, spread(self.values), base, ratio, target, verdict


@dataclass
class Report:
    """What a benchmark found: a table for people, everything for machines."""

    title: str
    arguments: argparse.Namespace
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(
        self, what: str, unit: str, values: Sequence[float], *, at_most: float | None = None, **base: Sequence[float]
    ) -> None:
        """Add a row; the one keyword is the name of what it is compared with."""
        ((name, others),) = base.items() or {"": ()}.items()
        self.rows.append(Row(what, unit, list(values), name.replace("_", " "), list(others), at_most))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self) -> None:
        """Print it all."""
        tell("")
        if self.arguments.json:
            rows = [asdict(row) | {"ratios": row.ratios, "reached": row.is_reached} for row in self.rows]
            print(json.dumps({"title": self.title, "machine": machine(self.arguments), "rows": rows, "notes": self.notes}, indent=1))  # fmt: skip
            return
        print(f"\n### {self.title}\n")
        print(", ".join(f"{key} {value}" for key, value in machine(self.arguments).items()) + "\n")
        head = ("what", "unit", "median (min / quartiles / max)", "beside it", "ratio, pair by pair", "target", "reached")  # fmt: skip
        print(table(head, [row.cells() for row in self.rows]))
        print("".join(f"\n{note}" for note in self.notes) or "", flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; columns that are empty throughout are left out."""
    used = [i for i in range(len(head)) if any(row[i] for row in rows)]
    widths = {i: max(len(line[i]) for line in [head, *rows]) for i in used}
    lines = ["| " + " | ".join(line[i].ljust(widths[i]) for i in used) + " |" for line in [head, *rows]]
    lines.insert(1, "|" + "|".join("-" * (widths[i] + 2) for i in used) + "|")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Return `median (min / lower quartile .. upper quartile / max)`, or the single value."""
    if len(values) < 2:
        return " ".join(map(number, values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{number(middle)} ({number(min(values))} / {number(low)} .. {number(high)} / {number(max(values))})"


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what a reader has to know to compare."""
    here = Path(__file__).parent
    commit = _said(["git", "-C", str(here), "describe", "--always", "--dirty"])
    scratch = next(p for p in [arguments.scratch, *arguments.scratch.parents] if p.exists())
    return {
        "commit": commit or "unknown",
        "on": _said(["findmnt", "-no", "FSTYPE", "--target", str(scratch)]) or "an unknown file system",
        "cores": str(os.cpu_count()),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def _said(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
