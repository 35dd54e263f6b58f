"""What the model's disk shows, and what its agent was told to do."""

from dataclasses import dataclass, field

from agent.core.decide import HealPolicy
from agent.core.model import Grade, Shape
from agent.core.retention import RetentionPolicy

FILES = ("users.json", "guilds.json", "deep/er/economy.json", "_suspect/odd.json", "z")


@dataclass(frozen=True)
class Content:
    """The bytes of a file, as far as the core asks: what a check says of them, their digest and outline."""

    digest: str
    grade: Grade  # good, invalid or corrupt
    shape: Shape | None


@dataclass
class Live:
    """A file on the disk: what it shows, since when, and whether a writer has it open."""

    content: Content | None = None
    version: int = 0
    changed_at: float = -1e9  # monotonic
    is_open: bool = False
    restless_until: float = -1e9  # written without pause until then
    is_untold: bool = False  # the event of the last change was lost


@dataclass
class Settings:
    """The config, as a reload may change it."""

    debounce_s: float = 2.0
    max_delay_s: float = 30.0
    policy: HealPolicy = field(default_factory=HealPolicy)
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    total_max: int | None = None
