"""What a person is told of outside the log, and how often: values, and the pure rule that holds repetitions back."""

from enum import StrEnum

from msgspec import Struct, field


class NoticeKind(StrEnum):
    """What a person can be told of."""

    HEALED = "healed"
    DAMAGED = "damaged"  # and left for a person: no restore point, not wanted, not to be read
    GAVE_UP = "gave_up"
    SUSPECT = "suspect"
    DISK_LOW = "disk_low"  # before snapshots are refused for want of space, and when they are
    BOT_DOWN = "bot_down"  # stopped for a heal, and not started again
    DRILL_FAILED = "drill_failed"


FAILURES = tuple(kind for kind in NoticeKind if kind is not NoticeKind.HEALED)


class Delivery(StrEnum):
    """How a notice ended, at one receiver or before any."""

    SENT = "sent"
    FAILED = "failed"
    DROPPED = "dropped"  # the queue was full
    HELD_BACK = "held_back"  # the like was told a short while ago


class Notice(Struct, frozen=True):
    """One thing to tell: `text` is a sentence, `hint` the one next step; neither quotes data of the bot."""

    kind: NoticeKind
    text: str
    rel: str | None = None
    hint: str = ""


class Throttle(Struct):
    """Lets one notice of a kind and file through in `interval_s`, and `overall_max` of all of them."""

    interval_s: float
    overall_max: int = 20
    _last: dict[tuple[NoticeKind, str | None], float] = field(default_factory=dict)

    def lets_through(self, notice: Notice, now_s: float) -> bool:
        """Whether `notice` may be told at `now_s` (steady clock); it then counts as told."""
        self._last = {key: at for key, at in self._last.items() if now_s - at < self.interval_s}
        key = (notice.kind, notice.rel)
        if key in self._last or len(self._last) >= self.overall_max:
            return False
        if self.interval_s > 0:
            self._last[key] = now_s
        return True
