"""The pause of all healing, for work by hand: a small file in `state_dir`, so that daemon and commands agree at once.

It ends at its time by the wall clock or after its length by the steady clock, whichever comes first: a clock that is
set back cannot make it longer, one that is set forward makes it shorter.  It ends with the boot of the machine too.
"""

import contextlib
import json
import os
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from agent.disk.atomic import flush, rename_over
from agent.disk.staging import StagingFolder

PAUSE_NAME = "paused"
LONGEST = timedelta(hours=24)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_READABLE = 0o644  # a pause made by root must hold for the bot's user too


class Pause(Struct, frozen=True):
    """From `began_at` (steady clock: `began_s`) until `ends_at`, both UTC, on the boot of the machine called `boot`."""

    began_at: datetime
    began_s: float
    ends_at: datetime
    boot: str

    def holds(self, now: datetime, steady_s: float, boot: str) -> bool:
        """Whether nothing is healed at `now`, which is `steady_s` on the steady clock of the machine's `boot`."""
        length = min(self.ends_at - self.began_at, LONGEST)
        return boot == self.boot and now < self.ends_at and 0 <= steady_s - self.began_s < length.total_seconds()


def begin_pause(state_dir: str, length: timedelta, *, now: datetime, steady_s: float) -> Pause:
    """Nothing is healed from `now` on, for `length`; a pause that was there is replaced.

    Raises:
        OSError: it could not be written; the one before holds.
    """
    pause = Pause(now, steady_s, now + length, boot_id())
    told = {
        "began_at": pause.began_at.isoformat(), "began_s": steady_s,
        "ends_at": pause.ends_at.isoformat(), "boot": pause.boot,
    }  # fmt: skip
    with StagingFolder(state_dir) as folder:
        staged = folder.create()
        try:
            staged.write(json.dumps(told).encode())
            os.fchmod(staged.fd, _READABLE)
            for error in flush([staged.fd]).values():
                raise error
            rename_over(folder.fd, staged.name, folder.fd, PAUSE_NAME)
        finally:
            staged.discard()
    return pause


def end_pause(state_dir: str) -> None:
    """Healing goes on."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(state_dir, PAUSE_NAME))


def pause_in_effect(state_dir: str, *, now: datetime, steady_s: float) -> Pause | None:
    """Return the pause that holds now; None without one, after its end, and for a file that no pause wrote.

    Raises:
        OSError: there may be one, and it cannot be read: nothing may be healed on that ground.
    """
    try:
        with open(os.path.join(state_dir, PAUSE_NAME), "rb") as stream:
            pause = _parsed(stream.read(4096))
    except FileNotFoundError:
        return None
    return pause if pause is not None and pause.holds(now, steady_s, boot_id()) else None


def _parsed(data: bytes) -> Pause | None:
    try:
        told = json.loads(data)
        began_at, ends_at = (datetime.fromisoformat(told[key]).astimezone(UTC) for key in ("began_at", "ends_at"))
        return Pause(began_at, float(told["began_s"]), ends_at, str(told["boot"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def boot_id() -> str:
    """Return what tells one boot of the machine from another; empty where the system does not say."""
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""
