"""What the live file and the shelves show during a race, judged by what the bot was told is saved."""

import time
from pathlib import Path

from beside import Commands
from observer import Event, Observer
from rig import Place, digest_of

GLIMPSE_S = 0.5


class Witness(Observer):
    """The proof's observer, told that a person may put an older state in the place of a newer one, which is kept."""

    def __init__(self, place: Place, commands: Commands) -> None:
        self.commands = commands
        self.kept: set[str] = set()  # digests that were ever seen on a shelf
        self.shelved: set[Path] = set()
        self.overruled: dict[str, Event] = {}
        self.healed_at: tuple[Event, float] | None = None
        self.replaced: dict[str, Event] = {}  # damages that were healed for good
        self.newest_name = ""
        super().__init__(place)

    def complaint_about(self, live: bytes | None) -> str | None:
        complaint = super().complaint_about(live)
        assert self.last is not None
        seen = digest_of(live or b"")
        if seen == self.last.sha256:
            self.overruled.pop(seen, None)
        if complaint is None or seen not in self.kept or not self.commands.restored_since(self.last.end_ns):
            return complaint
        self.overruled[self.last.sha256] = self.last
        return None

    def judge(self) -> None:
        """A damage that stays healed is replaced; what an undo shows for an instant is not."""
        super().judge()
        if self.last is None or self.healed is None:
            self.healed_at = None
        elif self.healed_at is None or self.healed_at[0] is not self.last:
            self.healed_at = self.last, time.monotonic()
        elif time.monotonic() - self.healed_at[1] > GLIMPSE_S:
            self.replaced[self.last.sha256] = self.last

    def complaint_about_heal(self, live: bytes, seen: str) -> str | None:
        """As the proof's, but what an undo under way shows goes by itself: it is complained of only when it stays."""
        self.note_copies()
        assert self.last is not None
        newest = self.copies[max(self.copies)][0] if self.copies else ""
        was_asked_for = seen in self.kept and self.commands.restored_since(self.last.end_ns)
        if was_asked_for or seen == newest or (live and self.damaged_bytes.startswith(live)):
            return None
        self.healed = None
        self.heals.pop()
        return f"resurrected: after {self.last.what} {self.name_of(seen)} is live, the newest snapshot is {self.name_of(newest)}"

    def note_copies(self) -> None:
        super().note_copies()
        good = self.place.copies()
        if good:
            if good[-1].name < self.newest_name:
                self.violations.append(f"the newest good snapshot went: {self.newest_name}, now {good[-1].name}")
            self.newest_name = good[-1].name
        elif self.newest_name:
            self.violations.append("no good snapshot is left")
        self.kept |= {digest for digest, _ in self.copies.values()}
        for path in (*self.place.copies("suspect"), *self.place.copies("quarantined")):
            if path not in self.shelved:
                try:
                    self.kept.add(digest_of(path.read_bytes()))
                except FileNotFoundError:
                    continue  # accepted between the two looks
                self.shelved.add(path)

    def audit(self) -> None:
        """Judge what is left, when the agent is down and all logs are complete."""
        self.shelved.clear()  # what was moved aside may have been written to since
        self.look()
        for name, (digest, _) in self.copies.items():
            if digest not in self.states:
                self.violations.append(f"torn: snapshot {name} is not a state the bot finished writing")
        damaged = {event.sha256 for event in self.events if event.is_damage}
        for path in self.place.copies("suspect"):
            if digest_of(path.read_bytes()) not in self.states | damaged:
                self.violations.append(f"torn: {path.name} is neither a state of the bot nor a damage")
        for sha256, event in self.overruled.items():
            if sha256 not in self.kept:
                self.violations.append(f"lost: {event.what} was replaced by a person's restore and is kept nowhere")
        for sha256, event in self.replaced.items():
            if sha256 not in self.kept:
                self.violations.append(f"lost: the bytes of {event.what} were replaced and are kept nowhere")
