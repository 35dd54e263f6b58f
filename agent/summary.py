"""What a migration did, or would do: written down beside the originals, and told to a person."""

import json
from collections.abc import Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import asdict

from agent.outcome import Ending, Outcome

_FINE = (Ending.PUBLISHED, Ending.UNCHANGED, Ending.HEALED, Ending.FORGOTTEN)


class Summary(Struct):
    """Files are told by their `rel`."""

    originals_in: str | None = None  # relative to the backup folder
    originals: int = 0
    files: int = 0
    good: int = 0  # as they were found
    adopted: dict[str, int] = field(default_factory=dict)  # older backups, by grade
    beside: dict[str, int] = field(default_factory=dict)  # those of them that lay beside the data, or would be adopted
    left_beside: dict[str, str] = field(default_factory=dict)  # such that were left alone, by path, and why
    repaired: dict[str, str] = field(default_factory=dict)  # what was changed
    restored: dict[str, str] = field(default_factory=dict)  # the snapshot
    left: dict[str, str] = field(default_factory=dict)  # how it is, for a person to act
    errors: dict[str, str] = field(default_factory=dict)  # what kept one that is left from being mended
    hidden: dict[str, str] = field(default_factory=dict)  # folders and files that no walk came to, and why
    snapshots: int = 0  # taken now
    verified: int = 0  # snapshots and originals whose digest was read back
    unverified: list[str] = field(default_factory=list)  # those that did not come back whole

    def is_nothing(self) -> bool:
        return not (self.files or self.adopted or self.beside or self.hidden)

    def is_complete(self) -> bool:
        """Whether every file was met and every copy came back: else it is to be done again."""
        return not (self.unverified or self.hidden)

    def note(self, outcome: Outcome) -> None:
        """This is how a file ended at the gate."""
        if outcome.ending is Ending.PUBLISHED:
            self.snapshots += 1
        if outcome.ending is Ending.HEALED and outcome.snapshot is not None:
            self.restored[outcome.rel] = outcome.snapshot.name
        elif outcome.ending is Ending.HEALED:
            self.repaired[outcome.rel] = outcome.detail
        if outcome.ending in _FINE:
            self.left.pop(outcome.rel, None)
            self.errors.pop(outcome.rel, None)
            return
        self.left[outcome.rel] = str(outcome.grade or outcome.ending)
        if outcome.error is not None:
            self.errors[outcome.rel] = str(outcome.error)

    def as_text(self, digests: Mapping[str, bytes]) -> Iterator[bytes]:
        """Yield the page for the folder of the originals in pieces; `digests` are theirs, and may be very many."""
        yield json.dumps(asdict(self), indent=2).removesuffix("\n}").encode() + b',\n  "sha256": {'
        lines = (f"\n    {json.dumps(rel)}: {json.dumps(digest.hex())}" for rel, digest in digests.items())
        yield from (("," * (number > 0) + line).encode() for number, line in enumerate(lines))
        yield b"\n  }\n}\n" if digests else b"}\n}\n"
