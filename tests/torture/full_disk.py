"""Disks that are really full: `python tests/torture/full_disk.py`.

* Every operation runs on a small tmpfs and on a small ext4 that has room for nothing more, for one block, for two, and so
  on until it succeeds: the disk is full in the middle of a batch, a rotation, a heal, a catalog.  Afterwards nothing good
  may be lost, the failure must be told, and with room again the next start must bring everything in order.
* The data folder fills up under a bot that writes in place and is cut short by it, with the agent running, its backups on
  the same disk or on another one.

Needs root to mount; `--seed` fixes which points a share takes.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "proof"))
from command_operations import COMMANDS
from cut_disk import run as command
from invariants import digest_of
from rig import agent_command, wait_until
from scene import Scene
from subject import GUILD, SETTINGS, USERS, Operation, Place, document

KINDS = ("tmpfs", "ext4")
SIZE_MIB = 12
BLOCK = 4096
BLOCKS_MAX = 400
RECOVERED_S = 90.0
OPERATIONS = {operation.name: operation for operation in COMMANDS}


@dataclass
class Tally:
    """What came of one operation on one kind of disk; `needs` is how many blocks it took to succeed."""

    points: int = 0
    needs: int = 0
    found: list[str] = field(default_factory=list)
    seconds: float = 0.0


def why_not() -> str:
    """Return why no disk can be filled here, '' when it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    return "" if shutil.which("mkfs.ext4") else "there is no mkfs.ext4"


@contextlib.contextmanager
def small_disk(kind: str, scratch: Path) -> Iterator[Path]:
    """Lend a mounted disk of a few MiB, none of them kept for root."""
    at = scratch / "small"
    at.mkdir()
    if kind == "tmpfs":
        command("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(at))
    else:
        image = scratch / "image"
        with image.open("wb") as stream:
            stream.truncate(SIZE_MIB << 20)
        command("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "4096", str(image))
        command("mount", "-o", "loop,nodelalloc", str(image), str(at))
    try:
        yield at
    finally:
        wait_until(
            lambda: subprocess.run(["umount", str(at)], check=False, capture_output=True).returncode == 0, limit_s=20
        )


def free_blocks(at: Path) -> int:
    status = os.statvfs(at)
    return status.f_bavail * status.f_frsize // BLOCK


def fill(at: Path, *, leave: int) -> Path:
    """Fill the disk but for `leave` blocks; return what to delete for room."""
    ballast = at / "ballast"
    with ballast.open("wb") as stream, contextlib.suppress(OSError):
        while (room := free_blocks(at) - leave) > 0:
            os.posix_fallocate(
                stream.fileno(), stream.seek(0, os.SEEK_END), max(1, room - 8) * BLOCK if room > 64 else BLOCK
            )
    return ballast


# every operation, with room for ever more blocks


def strike(scene: Scene, at: Path, blocks: int) -> tuple[bool, list[str]]:
    """Run with so much room; return whether it succeeded, and what is broken."""
    scene.begin()
    ballast = fill(at, leave=blocks)
    code = scene.run(scene.operation.act)
    said = scene.place.said
    succeeded = code in scene.operation.ends and scene.operation.done(scene.place)
    found = scene.at_once()
    if code in scene.operation.ends and not succeeded:
        found.append(f"announced: it ended with {code}, and what it did is not there: {said[-300:]}")
    if not succeeded and ("Traceback" in said or not said.strip()):
        found.append(f"told: it ended with {code} and said {said[-600:]!r}")
    ballast.unlink()
    found += scene.after_a_start()
    found += scene.drill()
    return succeeded, found


def walk(kind: str, operation: Operation, *, share: int, seed: int, deadline: float) -> Tally:
    """Give the operation 0, 1, 2 ... blocks until it succeeds (with `share`: so many of these points by chance)."""
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="full-disk-") as scratch, small_disk(kind, Path(scratch)) as at:
        place = Place(at / "root", Path(scratch, "side"))
        for folder in (place.root, place.side):
            folder.mkdir()
        with (place.side / "said").open("w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            operation.prepare(place)
        template = Path(scratch, "template")
        shutil.copytree(place.root, template, symlinks=True)
        scene = Scene(operation, place, template)
        tally.needs = _room_needed(scene, at)
        points: Sequence[int] = range(tally.needs + 1)
        if share:
            points = random.Random(f"{seed} {kind} {operation.name}").sample(points, min(share, len(points)))
        for blocks in points:
            if time.monotonic() > deadline:
                break
            _, found = strike(scene, at, blocks)
            tally.points += 1
            tally.found += [f"{kind}, {operation.name}, room for {blocks} blocks: {line}" for line in found]
    tally.seconds = time.monotonic() - began
    return tally


def _room_needed(scene: Scene, at: Path) -> int:
    """Return with how many blocks the operation succeeds, found by halving."""
    low, high = 0, BLOCKS_MAX
    while low < high:
        middle = (low + high) // 2
        scene.begin()
        ballast = fill(at, leave=middle)
        code = scene.run(scene.operation.act)
        enough = code in scene.operation.ends and scene.operation.done(scene.place)
        ballast.unlink()
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


# the data folder fills up under the bot


def under_the_bot(kind: str, *, elsewhere: bool) -> list[str]:
    """A bot writes in place onto a disk that fills up; return what is broken once there was room again."""
    with tempfile.TemporaryDirectory(prefix="full-disk-") as scratch, small_disk(kind, Path(scratch)) as at:
        place = Place(at / "root", Path(scratch, "side"))
        for folder in (place.root, place.side):
            folder.mkdir()
        sections = {"backup_dir": str(Path(scratch, "backups"))} if elsewhere else {}
        recovery = {"missing_grace": "1s", "heal_attempts": 1000}
        place.configure(watch={"debounce": "50ms", "rescan": "1s"}, recovery=recovery, **sections)
        backups = Path(scratch, "backups") if elsewhere else place.backups
        for rel in (USERS, SETTINGS, GUILD):
            place.write(rel, document(1))
        with (place.side / "said").open("wb") as out:
            config = str(place.root / "agent.yaml")
            agent = subprocess.Popen(agent_command("run", "--config", config), stdout=out, stderr=out)
        try:
            assert wait_until(lambda: '"service_started"' in place.said, limit_s=30), place.said[-400:]
            return _fill_under(place, at, backups, agent)
        finally:
            agent.terminate()
            agent.wait(20)


def _fill_under(place: Place, at: Path, backups: Path, agent: "subprocess.Popen[bytes]") -> list[str]:
    ballast = fill(at, leave=6)
    cut_short = 0
    for number in range(2, 14):
        for rel in (USERS, SETTINGS, GUILD):
            data = document(number, records=12 + 40 * number)
            place.know(data)
            with contextlib.suppress(OSError), (place.data / rel).open("wb") as stream:
                stream.write(data)
            cut_short += (place.data / rel).stat().st_size < len(data)
        time.sleep(0.15)
    found = [] if cut_short else ["the disk was never full: nothing was tried"]
    if agent.poll() is not None:
        return [*found, f"the agent ended: {place.said[-400:]}"]
    levels = [json.loads(line).get("level") for line in place.said.splitlines() if line.startswith("{")]
    if "error" not in levels:
        found.append("told: no error in the log")
    good = set(place.states)
    torn = [p.name for p in backups.rglob("*_backup_*.json") if digest_of(p.read_bytes()) not in good]
    found += [f"snapshot: {name} is none of the states that the bot wrote" for name in torn]
    ballast.unlink()

    def in_order() -> bool:
        live = [digest_of((place.data / rel).read_bytes()) for rel in (USERS, SETTINGS, GUILD)]
        kept = {digest_of(p.read_bytes()) for p in backups.rglob("*_backup_*.json")}
        return all(digest in good and digest in kept for digest in live)

    if not wait_until(in_order, limit_s=RECOVERED_S, every_s=0.2):
        found.append(f"not in order {RECOVERED_S:.0f} s after there was room: {place.said[-800:]}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("-k", metavar="WORD", default="", help="only the operations whose name holds WORD")
    parser.add_argument("--share", type=int, default=0, metavar="N", help="only N points of each operation, by chance")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit (default: 60)")
    args = parser.parse_args(arguments)
    if reason := why_not():
        print(f"skip: {reason}")
        return 0
    began, points, violations = time.monotonic(), 0, 0
    deadline = began + args.minutes * 60
    for kind in KINDS if args.kind == "all" else [args.kind]:
        for operation in [o for o in OPERATIONS.values() if args.k in o.name and time.monotonic() < deadline]:
            tally = walk(kind, operation, share=args.share, seed=args.seed, deadline=deadline)
            points, violations = points + tally.points, violations + len(tally.found)
            print(
                f"{kind}, {operation.name}: needs {tally.needs} blocks, {tally.points} points, "
                f"{len(tally.found)} violations, {tally.seconds:.0f} s",
                flush=True,
            )
            for line in tally.found:
                print(f"  {line}", flush=True)
        for elsewhere in (False, True) if args.k in "under the bot" else ():
            found = under_the_bot(kind, elsewhere=elsewhere)
            points, violations = points + 1, violations + len(found)
            where = "backups elsewhere" if elsewhere else "backups on it"
            print(f"{kind}, filled under the bot, {where}: {len(found)} violations", flush=True)
            for line in found:
                print(f"  {line}", flush=True)
    print(f"full disks: {points} points, seed {args.seed}, {violations} violations, {time.monotonic() - began:.0f} s")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
