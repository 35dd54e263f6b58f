"""What a repair changed in a JSON document: as data, in words that quote no text of the bot, as a patch (RFC 6902)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.core.json_places import Path
from agent.core.json_text import root_type
from agent.core.naming import display

_NUMBER_MAX = 40  # characters of a number that are shown


class How(StrEnum):
    """Where the new value of a field comes from."""

    COERCED = "coerced"
    FROM_SNAPSHOT = "from_snapshot"
    DEFAULT = "default"
    REMOVED = "removed"
    RECORD_FROM_SNAPSHOT = "record_from_snapshot"


_IN_WORDS = {
    How.COERCED: "written as the type that its schema wants",
    How.FROM_SNAPSHOT: "taken from the restore point",
    How.DEFAULT: "the schema's default",
    How.REMOVED: "removed",
    How.RECORD_FROM_SNAPSHOT: "the whole record taken from the restore point",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One value that a repair replaced, added (`before` is None) or removed (`after` is None), as JSON text."""

    at: Path
    how: How
    before: bytes | None = field(repr=False)
    after: bytes | None = field(repr=False)

    @property
    def pointer(self) -> str:
        """The JSON pointer (RFC 6901) of the value."""
        return pointer_to(self.at)


def pointer_to(path: Path) -> str:
    """Return the JSON pointer (RFC 6901) of `path`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def explain(changes: Sequence[Change]) -> list[str]:
    """Return one printable line for each change: where, from what to what, and by which right.

    Numbers and truth values are shown, because what became of a balance is what people ask first; of everything
    else, and of a text that spelt a number, only the type.
    """
    return [
        f"{display(change.pointer)}: {_shown(change, change.before)} -> {_shown(change, change.after)}"
        f" ({_IN_WORDS[change.how]})"
        for change in changes
    ]


def patch_text(changes: Sequence[Change]) -> bytes:
    """Return the changes as one JSON Patch document (RFC 6902), an operation a line, values spelt as in the files.

    The changes stand side by side: none lies inside another, and none moves an index.
    """
    operations = []
    for change in changes:
        kind = "remove" if change.after is None else "add" if change.before is None else "replace"
        head = f'{{"op": "{kind}", "path": {json.dumps(change.pointer)}'.encode()
        operations.append(head + (b"" if change.after is None else b', "value": ' + change.after) + b"}")
    return b"[" + b",".join(b"\n  " + operation for operation in operations) + b"\n]\n"


def _shown(change: Change, text: bytes | None) -> str:
    if text is None:
        return "nothing"
    root = root_type(text[0])
    secret = change.how is How.COERCED and root_type((change.before or b'"')[0]) == "string"
    if root in ("number", "boolean") and not secret and len(text) <= _NUMBER_MAX:
        return text.decode()
    return root
