"""Whether the disk of the snapshots is about to be full."""

from msgspec import Struct

_TIMES = 10
_FLOOR_BYTES = 100_000_000
_SHARE = 0.05
_RELIEF = 1.25  # so that a disk at the very line does not tell of its end and begin by turns


class Room(Struct, frozen=True):
    """Of one disk: what is free of how much, what is to stay free, and what one snapshot of everything takes."""

    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    once_bytes: int

    @property
    def low_bytes(self) -> int:
        """Below this it is low: no room, beside the reserve, for ten snapshots of everything, nor for 100 MB.

        On a small disk 5 % of it stand for the 100 MB.
        """
        return self.reserve_bytes + max(_TIMES * self.once_bytes, int(min(_FLOOR_BYTES, _SHARE * self.total_bytes)))

    def is_low(self, *, was_low: bool) -> bool:
        """Whether it is low; once it was, until there is a quarter more than that."""
        spare = self.low_bytes - self.reserve_bytes
        line = self.reserve_bytes + _RELIEF * spare if was_low else self.low_bytes
        return self.free_bytes < line
