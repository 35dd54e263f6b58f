"""Who works beside the agent in a race: a person with commands, and a second agent that was started by mistake."""

import random
import signal
import subprocess
import time
from collections.abc import Sequence
from threading import Event as Flag
from threading import Lock, Thread

from rig import Place, agent_command, wait_until

COMMAND_LIMIT_S = 60.0
SECOND_AGENT_EVERY_S = 3.0


class Commands:
    """A person at work: one command after the other, for as long as they are not held."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place, self.dice = place, random.Random(seed)
        self.counts: dict[str, int] = {}
        self.pinned: set[str] = set()
        self.restores: list[list[float]] = []  # begin and end, monotonic nanoseconds
        self.violations: list[str] = []
        self.over, self.may_run, self.guard = Flag(), Flag(), Lock()
        self.thread = Thread(target=self.work, daemon=True)

    def __enter__(self) -> "Commands":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.may_run.set()
        self.thread.join()

    def hold(self) -> None:
        """No command is under way when this returns, and none begins before `go_on`."""
        self.may_run.clear()
        with self.guard:
            pass

    def go_on(self) -> None:
        self.may_run.set()

    def work(self) -> None:
        while not self.over.wait(self.dice.uniform(0, 0.3)):
            if self.may_run.wait(0.2):
                with self.guard:
                    self.one()

    def one(self) -> None:
        names = [path.name for path in self.place.copies()]
        old = self.dice.choice(names) if names else "none"
        users = str(self.place.users)
        verb, *arguments = self.dice.choice(
            [
                ["list", users], ["list"], ["check"], ["snapshot"], ["accept", users], ["restore", users],
                ["restore", users], ["restore", "--snapshot", old], ["pin", old], ["unpin", old],
            ]
        )  # fmt: skip
        span = [time.monotonic_ns(), float("inf")]
        if verb == "restore":
            self.restores.append(span)
        done = self.call(verb, arguments)
        span[1] = time.monotonic_ns()
        if done == 0 and verb == "pin":
            self.pinned.add(old)
        if verb == "unpin":
            self.pinned.discard(old)
        self.counts[verb] = self.counts.get(verb, 0) + 1

    def call(self, verb: str, arguments: Sequence[str]) -> int | None:
        """Run one command; it may refuse (a copy that was rotated away, say), but neither fall over nor hang."""
        command = agent_command(verb, "--config", str(self.place.config), *arguments)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            self.violations.append(f"`{verb} {' '.join(arguments)}` hung")
            return None
        if "Traceback" in done.stderr or done.returncode not in (0, 1, 2, 3, 4):
            self.violations.append(f"`{verb} {' '.join(arguments)}` fell over: {done.stderr[-1500:]}")
        return done.returncode

    def restored_since(self, moment_ns: float) -> bool:
        return any(end >= moment_ns for _, end in self.restores)


class SecondAgents:
    """Starts the agent again and again on the same folder: each must refuse at once and change nothing."""

    def __init__(self, place: Place) -> None:
        self.place, self.over, self.refused = place, Flag(), 0
        self.violations: list[str] = []
        self.thread = Thread(target=self.work, daemon=True)

    def __enter__(self) -> "SecondAgents":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def work(self) -> None:
        self.one()
        while not self.over.wait(SECOND_AGENT_EVERY_S):
            self.one()

    def one(self) -> None:
        """It waits a while for the folder; when the run is over sooner, it is told to stop and refuses then."""
        command = agent_command("run", "--config", str(self.place.config))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            ended = wait_until(lambda: self.over.is_set() or child.poll() is not None, limit_s=COMMAND_LIMIT_S)
            if self.over.is_set():
                child.terminate()
            elif not ended:
                self.violations.append("a second agent stayed")
                child.kill()
                return
            said = child.communicate()[0]
        if child.returncode == -signal.SIGTERM:
            return  # the run was over before it listened
        self.refused += 1
        if child.returncode != 1 or "another backup-agent" not in said:
            self.violations.append(f"a second agent ended with {child.returncode}: {said[-800:]}")
