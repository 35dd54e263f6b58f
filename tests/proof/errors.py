"""Every system call fails while a file changes and another one is healed: `python tests/proof/errors.py [-k WORD]`.

strace(1) makes one kind of call of the running agent fail, first every time, then (with --each) once at each turn.
What must hold meanwhile: nothing is restored that was not damaged, no good snapshot goes, what is published is whole,
the agent lives, and either the work was done all the same or a line and a metric tell of it.  Without the failure
everything is caught up with.  One line per case; the exit code is 1 when one of them fails.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rig import Agent, Place, digest_of, wait_until
from scene import DAMAGE, Scene, document, trouble_count

HOLD_S = 2.5  # for how long the calls fail
CATCH_UP_S = 75.0  # the longest pause between two tries is a minute
FAILURES = [
    ("openat", "EMFILE"), ("openat", "EACCES"), ("openat", "EIO"), ("openat", "ENOSPC"),
    ("read", "EIO"), ("pread64", "EIO"), ("write", "ENOSPC"), ("write", "EIO"), ("pwrite64", "ENOSPC"),
    ("pwrite64", "EIO"), ("fsync", "EIO"), ("fsync", "ENOSPC"), ("fdatasync", "EIO"), ("syncfs", "EIO"),
    ("renameat2", "EIO"), ("renameat2", "ENOSPC"), ("renameat2", "EACCES"), ("renameat2", "EINVAL"),
    ("linkat", "EACCES"), ("unlinkat", "EIO"), ("unlinkat", "EACCES"), ("mkdirat", "ENOSPC"), ("mkdir", "ENOSPC"),
    ("fchmod", "EPERM"), ("fchown", "EPERM"), ("newfstatat", "EIO"), ("newfstatat", "EACCES"), ("fstat", "EIO"),
    ("getdents64", "EIO"), ("statfs", "EIO"), ("fstatfs", "EIO"), ("ftruncate", "ENOSPC"), ("fcntl", "ENOLCK"),
    ("fcntl", "EAGAIN"), ("fcntl", "EINVAL"), ("fadvise64", "EIO"), ("flock", "ENOLCK"), ("lseek", "EIO"),
]  # fmt: skip


@contextmanager
def failing(agent: Agent, scene: Scene, call: str, error: str, when: str) -> Iterator[Path]:
    """`call` of the agent fails with `error` in the block; the lent file tells of each time it did."""
    told = scene.place.side / "strace.out"
    command = ["strace", "-f", "-qq", "-p", str(agent.child.pid), "-o", str(told)]
    command += ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: told.exists() and _is_traced(agent.child.pid), limit_s=5)
        yield told
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)


def _is_traced(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return all("TracerPid:\t0" not in task.read_text() for task in tasks)


def told_of_trouble(agent: Agent) -> float:
    return (
        trouble_count(agent)
        + agent.total("backup_agent_heals_total", result="failed")
        + agent.total("backup_agent_captures_total", result="unreadable")
        + agent.total("backup_agent_refresh_failures_total")
    )


def good_copies(scene: Scene) -> set[str]:
    return {path.name for stem in ("users", "bank") for path in scene.place.copies(stem=stem)}


def prove(scene: Scene, call: str, error: str, when: str) -> str:
    """Return how many calls failed, as words; raise AssertionError when a promise is broken."""
    port = scene.settings()
    bank, good_bank = scene.place.data / "bank.json", document(50)
    scene.write("users.json", document(1))
    scene.write("bank.json", good_bank)
    with scene.agent(port) as agent:
        before, quiet = good_copies(scene), told_of_trouble(agent)

        def is_done() -> bool:
            return bank.read_bytes() == good_bank and scene.place.digests()[-1] == digest_of(document(2))

        with failing(agent, scene, call, error, when) as told:
            scene.write("users.json", document(2))
            bank.write_bytes(DAMAGE)
            time.sleep(HOLD_S)
            wait_until(lambda: told_of_trouble(agent) > quiet or is_done(), limit_s=HOLD_S, every_s=0.2)
            assert agent.child.poll() is None, f"ended with {agent.child.poll()}: {scene.lines()[-3:]}"
            assert bank.read_bytes() in (DAMAGE, good_bank), "the damaged file is neither old nor new"
            assert scene.place.users.read_bytes() == document(2), "a good file was touched"
            assert before <= good_copies(scene), "a good snapshot went"
            scene.whole()
        failed = told.read_text(errors="replace").count("(INJECTED)")
        done = is_done()
        trouble = told_of_trouble(agent) - quiet
        loud = [line for line in scene.lines() if line.get("level") in ("warning", "error")]
        loud = [line for line in loud if line.get("hint") or line.get("error")]
        if not done:
            assert trouble > 0, f"undone after {failed} failures, and no metric tells: {scene.lines()[-4:]}"
            assert loud or call == "write", f"undone, and no line tells: {scene.lines()[-4:]}"
        scene.protected(document(2), limit_s=CATCH_UP_S)
        scene.shows(good_bank, "bank.json", limit_s=CATCH_UP_S)
        scene.write("users.json", document(3))
        scene.protected(document(3), limit_s=CATCH_UP_S)
        scene.whole()
        assert before <= good_copies(scene), "a good snapshot went"
        code = agent.stop()
        assert code == 0, f"ended with {code}"
    with scene.agent(port):
        pass  # what a failure left behind is swept at the next start
    leftovers = [str(p) for p in scene.place.data.rglob("backup-agent-*.tmp")]
    assert not leftovers, f"left behind: {leftovers}"
    return f"{failed} failed, {'done all the same' if done else f'told {trouble:.0f} times'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="WORD", default="", help="only the calls and errors whose name holds WORD")
    parser.add_argument("--each", type=int, metavar="N", default=0, help="fail the 1st, 2nd ... Nth call, once each")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    args = parser.parse_args(arguments)
    if shutil.which("strace") is None:
        print("skip: needs strace")
        return 0
    turns = [str(turn) for turn in range(1, args.each + 1)] or ["1+"]
    ran = failed = 0
    with tempfile.TemporaryDirectory(prefix="errors-") as parent:
        os.chmod(parent, 0o755)
        for call, error in FAILURES:
            for when in turns:
                if args.k not in f"{call} {error}":
                    continue
                ran += 1
                began = time.monotonic()
                with Place.scratch(None if args.keep else Path(parent), keep=args.keep) as place:
                    try:
                        how, word = prove(Scene(place, set()), call, error, when), "ok  "
                    except Exception:
                        how, word, failed = traceback.format_exc(limit=-2), "FAIL", failed + 1
                        if args.keep:
                            how += f"kept in {place.root}\n"
                print(f"{word} {call} {error} {when} ({time.monotonic() - began:.1f} s): {how}", flush=True)
    print(f"{ran - failed} of {ran} cases hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
