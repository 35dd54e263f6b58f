"""The witness of a run: looks at the live file between the writes and says what must not be there.

Bot, damager and observer take the same side lock, so at every look one event came last: a write that the bot finished,
or a damage.  After a finished write the live file shows exactly that; after a damage it shows the damage or, once
healed, a state the bot finished.  A sight that goes away by itself within a second is a glimpse, not a loss: an agent
that undoes a swap because the bot's write raced it shows the good copy for an instant.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from rig import Place, SideLock, digest_of

LOOK_EVERY_S = 0.015
GLIMPSE_LIMIT_S = 1.0


@dataclass(frozen=True)
class Event:
    """One line of a log.  `kind`: finished, issued, torn (by the bot's own overlapping writes), foreign, damage."""

    kind: str
    sha256: str
    start_ns: int
    end_ns: int
    delay_us: int = 0
    what: str = ""

    @property
    def is_damage(self) -> bool:
        return self.kind in ("damage", "torn")


class Tail:
    """Reads the whole lines that were added to a log since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def __call__(self) -> list[Event]:
        try:
            with self.path.open("rb") as log:
                log.seek(self.offset)
                text = log.read()
        except FileNotFoundError:
            return []
        text = text[: text.rfind(b"\n") + 1]
        self.offset += len(text)
        return [event_of(json.loads(line)) for line in text.splitlines()]


def event_of(line: dict[str, object]) -> Event:
    times = {key: int(str(line[key])) for key in ("start_ns", "end_ns")}
    if "by" in line:
        return Event("damage", str(line["sha256"]), **times, what=f"{line['kind']} by {line['by']}")
    delay_us = int(str(line.get("delay_us", 0)))
    return Event(str(line["kind"]), str(line["sha256"]), **times, delay_us=delay_us, what=f"version {line['version']}")


@dataclass
class Observer:
    """Looks about sixty times a second until it is stopped; `violations` are sentences."""

    place: Place
    violations: list[str] = field(default_factory=list)
    glimpses_s: list[float] = field(default_factory=list)
    heals: list[tuple[Event, float]] = field(default_factory=list)  # the damage, and how long it stood
    events: list[Event] = field(default_factory=list)
    states: set[str] = field(default_factory=set)  # digests of what the bot wrote, whole
    copies: dict[str, tuple[str, int]] = field(default_factory=dict)  # good snapshot → digest, first seen at
    set_aside: int = 0  # whole states in quarantine: a write that raced a heal and is superseded, or judged falsely
    last: Event | None = None
    complained: bool = False
    healed: str | None = None  # digest that took the place of the last damage

    def __post_init__(self) -> None:
        self.logs = [Tail(self.place.side / "acks.jsonl"), Tail(self.place.side / "damages.jsonl")]
        self.damaged_bytes = b""
        self.guard = threading.Lock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "Observer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def watch(self) -> None:
        try:
            while not self.over.wait(LOOK_EVERY_S):
                self.look()
        except Exception as error:  # a dead witness must not pass for a satisfied one
            self.violations.append(f"the observer died: {error!r}")
            raise

    def look(self) -> None:
        """Take one look, under the side lock, so that no write is in progress."""
        with self.guard:
            with SideLock(self.place.side):
                self.read_logs()
                self.judge()
            self.note_copies()

    def read_logs(self) -> None:
        new = sorted((event for log in self.logs for event in log()), key=lambda event: event.end_ns)
        self.events += new
        for event in new:
            if event.kind in ("finished", "issued"):
                self.states.add(event.sha256)
            if event.kind == "foreign":
                self.violations.append(
                    f"lost: after {event.what} the file showed something the bot had not just written"
                )
            if event.kind != "issued":
                self.last, self.healed, self.complained = event, None, False

    def judge(self) -> None:
        since: float | None = None
        while self.last is not None and not self.complained:
            complaint = self.complaint_about(self.live())
            if complaint is None:
                if since is not None:
                    self.glimpses_s.append(time.monotonic() - since)
                return
            since = since or time.monotonic()
            if time.monotonic() - since > GLIMPSE_LIMIT_S:
                self.violations.append(complaint)
                self.complained = True  # say it once; the next write starts afresh
            time.sleep(0.0005)

    def live(self) -> bytes | None:
        try:
            return self.place.users.read_bytes()
        except FileNotFoundError:
            self.violations.append("the live file was absent")
            return None

    def complaint_about(self, live: bytes | None) -> str | None:
        """Return what is wrong with these bytes after the last event, or None."""
        assert self.last is not None
        seen = digest_of(live or b"")
        if seen == self.last.sha256:
            self.damaged_bytes = live or b""
            self.healed = None  # the damage may be back: then it is not healed
            return None
        if not self.last.is_damage:
            return f"lost: {self.last.what} was finished, {self.name_of(seen)} is live"
        if seen not in self.states:
            return f"after {self.last.what} something unknown is live ({len(live or b'')} bytes)"
        if self.healed is None:
            self.healed = seen
            self.heals.append((self.last, (time.monotonic_ns() - self.last.end_ns) / 1e9))
            return self.complaint_about_heal(live or b"", seen)
        return None if seen == self.healed else f"healed twice: {self.name_of(self.healed)}, then {self.name_of(seen)}"

    def complaint_about_heal(self, live: bytes, seen: str) -> str | None:
        """A heal keeps the newest: what the damaged bytes still held whole, or else the newest good snapshot."""
        self.note_copies()
        newest = self.copies[max(self.copies)][0] if self.copies else ""
        if seen == newest or (live and self.damaged_bytes.startswith(live)):
            return None
        self.violations.append(
            f"after {self.last and self.last.what} healed to {self.name_of(seen)}, newest snapshot is {self.name_of(newest)}"
        )
        return None

    def name_of(self, sha256: str) -> str:
        """Return which write a digest belongs to, in words."""
        known = [event.what for event in self.events if event.sha256 == sha256]
        return known[0] if known else f"an unknown state {sha256[:12]}"

    def note_copies(self) -> None:
        for path in self.place.copies():
            if path.name not in self.copies:
                try:
                    self.copies[path.name] = (digest_of(path.read_bytes()), time.monotonic_ns())
                except FileNotFoundError:
                    continue  # rotated away between the two looks

    def is_whole(self) -> bool:
        """Return whether the live file shows a finished state: nothing happened to it, or it was healed."""
        with self.guard:
            return self.last is None or not self.last.is_damage or self.healed is not None

    def snapshot_lag_s(self) -> float | None:
        """Return how long after the last finished write its snapshot was seen, None while there is none."""
        with self.guard:
            assert self.last is not None
            seen = [at for digest, at in self.copies.values() if digest == self.last.sha256]
            return max(0.0, (min(seen) - self.last.end_ns) / 1e9) if seen else None

    def finished(self) -> list[Event]:
        return [event for event in self.events if event.kind == "finished"]

    def audit(self) -> None:
        """Judge every copy the agent left, when all logs are complete."""
        self.look()
        for name, (digest, _) in self.copies.items():
            if digest not in self.states:
                self.violations.append(f"snapshot {name} is not a state the bot finished writing")
        for path in self.place.copies("suspect"):
            self.violations.append(f"{path.name}: held as suspect, though the bot never lost a record")
        for path in self.place.copies("quarantined"):
            if digest_of(path.read_bytes()) in self.states:
                self.set_aside += 1
