"""What many versions of one file take on the disk, for the agent and for the tools beside it.

    python benchmarks/packing.py
    python benchmarks/packing.py --versions 20 --tools git borg

A JSON file of 2 MB, of which 1 % of the records change from each version to the next.  Everything that a tool or the
agent put beside the bytes (indexes, journals) counts too: it is the size of the whole store, in blocks of the disk.
"""

import argparse
import gzip
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bot import MB, Document, write_by_rename
from daemon import Daemon
from pairs import Report, options, tell
from tools import TOOLS, Place, Tool, stamp
from tools import run as run_tool

DEBOUNCE_S = 0.02
AT_MOST_MB = 4.0  # for a hundred versions, packed
FILE = "users.json"
KEEP = "retention: {keep_last: 100000}"
OURS = {
    "backup-agent, plain": f"{{{KEEP}}}",
    "backup-agent, zstd": f"{{{KEEP}, compression: zstd}}",
    "backup-agent, packing": f"{{{KEEP}, compression: zstd, packing: true}}",
}


def main() -> None:
    parser = options(__doc__, pairs=1)
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--size", type=float, default=2.0, help="size of the file in MB (%(default)s)")
    parser.add_argument("--tools", nargs="*", default=[tool.name for tool in TOOLS[2:]], help="whom to run beside")
    parser.add_argument("--ways", nargs="*", default=list(OURS), choices=OURS, help="of the agent")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    report = Report(f"{arguments.versions} versions of a file of {arguments.size:g} MB on the disk", arguments)
    folder = arguments.scratch / "packing"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    versions = _versions(arguments.versions, int(arguments.size * MB))
    _each(report, folder, versions)
    for tool in TOOLS:
        if tool.name.split()[0] in {name.split()[0] for name in arguments.tools}:
            _tool(report, folder, tool, versions)
    for name in arguments.ways:
        _ours(report, folder, name, OURS[name], versions)
    shutil.rmtree(folder)
    report.finish()


def _versions(count: int, size: int) -> list[bytes]:
    document, texts = Document(size), []
    for _ in range(count):
        texts.append(document.data())
        document.change()
    return texts


def on_disk_mb(folder: Path) -> float:
    """Return the room that everything below `folder` takes."""
    return sum(path.lstat().st_blocks for path in folder.rglob("*")) * 512 / MB


def _each(report: Report, folder: Path, versions: Sequence[bytes]) -> None:
    """Every version on its own."""
    ways: dict[str, Callable[[bytes], bytes]] = {"plain copies": bytes, "gzip each": gzip.compress}
    if shutil.which("zstd"):
        ways["zstd each"] = lambda data: subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout  # fmt: skip
    for name, way in ways.items():
        tell(name)
        store = folder / name
        store.mkdir()
        for number, data in enumerate(versions):
            (store / f"{number}").write_bytes(way(data))
        _add(report, folder, name, store)


def _add(report: Report, folder: Path, name: str, store: Path, at_most: float | None = None) -> None:
    subprocess.run(["sync", "-f", folder], check=True)  # delayed allocation has no blocks yet
    report.add(name, "MB", [on_disk_mb(store)], at_most=at_most)


def _tool(report: Report, folder: Path, tool: Tool, versions: Sequence[bytes]) -> None:
    if not tool.is_installed:
        report.note(f"{tool.name} is not installed and was left out.")
        return
    base = folder / tool.program
    place = Place(base / "data", base / "data" / FILE, base / "store")
    place.data.mkdir(parents=True)
    for number, data in enumerate(versions):
        tell(f"{tool.name}: version {number + 1} of {len(versions)}")
        write_by_rename(place.changed, data)
        run_tool(tool.save(place, stamp()) if number else tool.begin(place), folder)
    before_mb = on_disk_mb(place.store)
    if commands := tool.finish(place):
        run_tool(commands, folder)
        report.note(f"{tool.name}: {before_mb:.1f} MB before it was told to collect its garbage.")
    _add(report, folder, tool.name, place.store)


def _ours(report: Report, folder: Path, name: str, backup: str, versions: Sequence[bytes]) -> None:
    base = folder / name.replace(", ", "-")
    (base / "data").mkdir(parents=True)
    path = base / "data" / FILE
    write_by_rename(path, versions[0])
    settings = f"watch: {{debounce: {DEBOUNCE_S * 1000:.0f}ms}}\nbackup: {backup}\n"
    try:
        daemon = Daemon(report.arguments.agent, base, settings)
        daemon.await_ready()
    except TimeoutError:
        report.note(f"{name}: this agent does not know how to.")
        return
    with daemon:
        for number, data in enumerate(versions[1:], start=2):
            tell(f"{name}: version {number} of {len(versions)}")
            mark = daemon.mark()
            write_by_rename(path, data)
            daemon.await_event("snapshot_published", file=FILE, since=mark)
    if "packing" in name:
        began = time.monotonic()
        _pack(report.arguments.agent, base)
        report.note(f"{name}: `prune --yes` packed what the daemon had not yet in {time.monotonic() - began:.1f} s.")
    _forget_originals(daemon.backups)
    _add(report, folder, name, daemon.backups, AT_MOST_MB if "packing" in name else None)
    _check(report.arguments.agent, base, versions)


def _pack(agent: str, base: Path) -> None:
    """Every old snapshot is packed now; the daemon by itself takes a tenth of a core for it."""
    subprocess.run([agent, "prune", "--yes", "--config", str(base / "config.yaml")], check=True, capture_output=True)


def _forget_originals(store: Path) -> None:
    """The copy that a first start keeps is no version; every other tool begins with an empty store."""
    shutil.rmtree(store / "_migration", ignore_errors=True)


def _check(agent: str, base: Path, versions: Sequence[bytes]) -> None:
    """Each version comes back as it was."""
    said = subprocess.run(
        [agent, "verify", "--config", str(base / "config.yaml")], capture_output=True, text=True, check=False
    )
    kept = len(list((base / "data" / "backups").glob("users_backup_*")))
    if said.returncode or kept != len(versions):
        raise AssertionError(f"{kept} of {len(versions)} snapshots, and verify said: {said.stdout}{said.stderr}")


if __name__ == "__main__":
    main()
