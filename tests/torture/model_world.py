"""What happens to the files of the model: a bot, a person, faults, and time; each public method is one step."""

from datetime import UTC, datetime, timedelta

from model_agent import Agent
from model_disk import FILES, Content, Live, Settings

from agent.core.model import Grade, Shape


class World:
    """Files, clocks, and the agent that minds them.  Every public method is one step."""

    def __init__(self) -> None:
        self.mono, self.utc = 1000.0, datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.files = {rel: Live() for rel in FILES}
        self.is_mounted = True
        self.loses_events = False
        self.disk_fails = False
        self.serial = 0
        self.agent = Agent(self)

    # what a bot, a person or a fault does

    def write(self, rel: str, grade: Grade = Grade.GOOD, records: int = 10) -> None:
        """The bot saves the file at one stroke."""
        self.serial += 1
        shape = Shape(100 * records + 2, "object", records) if grade is not Grade.CORRUPT else None
        self._show(rel, Content(f"{self.serial:x}", grade, shape))

    def write_again(self, rel: str, back: int) -> None:
        """The file shows bytes that it showed before: a deploy that rolls back, or a bot that keeps its damage."""
        known = self.agent.store.kept[rel]
        if known:
            chosen = known[back % len(known)]
            grade = Grade.GOOD if chosen.grade is Grade.SUSPECT else chosen.grade
            self._show(rel, Content(chosen.digest, grade, chosen.shape))

    def open_slowly(self, rel: str) -> None:
        """A writer has begun: half a file is there, and stays until it is closed."""
        self.write(rel, Grade.CORRUPT)
        self.files[rel].is_open = True

    def close(self, rel: str) -> None:
        if self.files[rel].is_open:
            self.files[rel].is_open = False
            self.write(rel)

    def write_without_pause(self, rel: str, seconds: float) -> None:
        self.files[rel].restless_until = self.mono + seconds

    def delete(self, rel: str) -> None:
        self._show(rel, None)

    def unmount(self) -> None:
        self.is_mounted = not self.is_mounted

    def step_clock(self, seconds: float) -> None:
        self.utc += timedelta(seconds=seconds)

    def lose_events(self, losing: bool) -> None:
        self.loses_events = losing

    def break_disk(self, failing: bool) -> None:
        self.disk_fails = failing

    def restart(self) -> None:
        self.agent.stop()
        self.agent.start()

    def reload(self, settings: Settings) -> None:
        self.agent.adopt(settings)

    def pin(self, rel: str, which: int) -> None:
        self.agent.store.pin(rel, which)

    def accept(self, rel: str) -> None:
        self.agent.accept(rel)

    def rot(self, rel: str, which: int) -> None:
        """The disk spoils a snapshot."""
        self.agent.store.rot(rel, which)

    def wait(self, seconds: float) -> None:
        """Time passes; restless files change and the agent wakes whenever it wants to."""
        end = self.mono + seconds
        while True:
            wake = self.agent.wakes_at()
            for rel in FILES:
                if self.mono < self.files[rel].restless_until:
                    wake = min(wake, self.mono + 0.7)
            self._advance(max(self.mono, min(wake, end)))
            for rel, live in self.files.items():
                if self.mono < live.restless_until and self.mono - live.changed_at >= 0.7:
                    self.write(rel)
            self.agent.round()
            if self.mono >= end:
                return

    def _advance(self, to: float) -> None:
        self.utc += timedelta(seconds=to - self.mono)
        self.mono = to

    def _show(self, rel: str, content: Content | None) -> None:
        live = self.files[rel]
        live.content, live.version, live.changed_at = content, live.version + 1, self.mono
        live.is_open = live.is_open and content is not None
        live.is_untold = self.loses_events or not self.is_mounted
        if not live.is_untold:
            self.agent.note(rel)

    def put_back(self, rel: str, content: Content) -> None:
        """A heal: it makes an event like any write."""
        self._show(rel, content)
