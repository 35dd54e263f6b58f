"""What `doctor` says of one aspect."""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from agent.commands.survey import Survey
from agent.config import Config
from agent.disk.catalog import Catalog


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, with less certainty than it could
    FAIL = "fail"  # something is not protected, or not good


class Finding(Struct, frozen=True):
    """One line; `next_step` is empty where there is nothing to do."""

    aspect: str
    level: Level
    message: str
    next_step: str = ""


class Case(Struct, frozen=True):
    """What is examined: the folders of `config` at the time `now`, and what was seen in the data folder.

    `catalog` is None where no agent has worked yet; `daemon` is the process id of one that runs.
    """

    config: Config
    now: datetime
    seen: Survey
    catalog: Catalog | None
    daemon: int | None
    config_path: str | None = None  # of the file that the command works by


def ok(aspect: str, message: str) -> Finding:
    return Finding(aspect, Level.OK, message)


def warn(aspect: str, message: str, next_step: str) -> Finding:
    return Finding(aspect, Level.WARN, message, next_step)


def fail(aspect: str, message: str, next_step: str) -> Finding:
    return Finding(aspect, Level.FAIL, message, next_step)
