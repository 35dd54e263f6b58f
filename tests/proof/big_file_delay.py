"""The proof that a big file holds nobody up: a bot opens a file of 500 MB again and again while it is being captured.

    python tests/proof/big_file_delay.py                # 500 MB, 20 s of opens, with and without the agent

The agent lets go of a capture at the next chunk when a writer waits, so that no open takes longer than reading one
chunk; once the opens stop, the file is snapshotted.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig import Agent, Place, wait_until

DEBOUNCE_S = 0.02  # shorter than the pause between two opens, so that captures are due all the time
COUNTER_DIGITS = 12
SNAPSHOT_LIMIT_S = 180.0


@dataclass
class Delays:
    """How long each open took, and what the agent did meanwhile."""

    opens_us: list[int]
    leases_broken: int = 0
    snapshot_s: float | None = None
    peak_mib: float = 0.0

    def __str__(self) -> str:
        ranked = sorted(self.opens_us)
        middle, late = ranked[len(ranked) // 2], ranked[len(ranked) * 99 // 100]
        return f"{len(ranked)} opens, longest {ranked[-1] / 1000:.2f} ms, 99th percentile {late / 1000:.2f} ms, median {middle / 1000:.3f} ms"


def write_big_file(path: Path, size_bytes: int) -> None:
    """Write a valid document of about this size whose first value is a counter of fixed width."""
    block = "".join(f',\n "{n:018}": {{"name": "user {n}", "cartridge": {n}}}' for n in range(10**6, 10**6 + 20_000))
    with path.open("w") as stream:
        stream.write('{\n "counter": "' + "0" * COUNTER_DIGITS + '"')
        for turn in range(size_bytes // len(block) + 1):
            stream.write(block.replace(' "000', f' "{turn:03}'))
        stream.write("\n}")


def open_repeatedly(path: Path, *, seconds: float, every_s: float) -> Iterator[int]:
    """Open the file for writing, change the counter, close; yield the microseconds that each open took."""
    offset = len('{\n "counter": "')
    deadline, turn = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        before = time.monotonic_ns()
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        yield (time.monotonic_ns() - before) // 1000
        os.pwrite(fd, f"{turn:0{COUNTER_DIGITS}}".encode(), offset)
        os.close(fd)
        turn += 1
        time.sleep(every_s)


def run(
    size_mb: int = 500,
    seconds: float = 20.0,
    every_s: float = 0.05,
    *,
    with_agent: bool = True,
    folder: Path | None = None,
) -> Delays:
    """Return the delays of one run; with the agent, also how long the snapshot took once the opens stopped."""
    with Place.scratch(folder) as place:
        write_big_file(place.users, size_mb * 10**6)
        opens = open_repeatedly(place.users, seconds=seconds, every_s=every_s)
        if not with_agent:
            return Delays(list(opens))
        port = place.configure(debounce_s=DEBOUNCE_S, watch={"max_delay": "1s"})
        with Agent(place, port) as agent:
            agent.ready()
            before = set(place.copies())
            delays = Delays(list(opens))
            delays.leases_broken = int(agent.total("backup_agent_leases_broken_total"))
            start = time.monotonic()
            # What was published while the opens went on is a state between two of them; the last one must follow.
            if wait_until(lambda: is_last_state_kept(place, before), limit_s=SNAPSHOT_LIMIT_S, every_s=0.2):
                delays.snapshot_s = time.monotonic() - start
            delays.peak_mib = agent.peak_bytes() / 2**20
            return delays


def is_last_state_kept(place: Place, before: set[Path]) -> bool:
    """Return whether a new snapshot begins as the live file does: the counter tells the states apart."""
    head = head_of(place.users)
    return any(head_of(path) == head for path in place.copies() if path not in before)


def head_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, help="megabytes")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--every", type=float, default=0.05, help="seconds between two opens")
    parser.add_argument("--folder", type=Path, help="where the scratch folder goes")
    given = parser.parse_args()
    bare = run(given.size, given.seconds, given.every, with_agent=False, folder=given.folder)
    print(f"without the agent: {bare}", flush=True)
    delays = run(given.size, given.seconds, given.every, folder=given.folder)
    print(f"with the agent:    {delays}")
    kept = (
        f"snapshotted {delays.snapshot_s:.1f} s after the last open"
        if delays.snapshot_s is not None
        else "NOT snapshotted"
    )
    print(f"leases broken {delays.leases_broken}; {kept}; agent at most {delays.peak_mib:.0f} MiB resident")
    return 0 if delays.snapshot_s is not None else 1


if __name__ == "__main__":
    raise SystemExit(main())
