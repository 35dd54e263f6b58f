"""What is known of every data file, from folder, catalog and snapshots together; for the commands that list."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from agent.commands.names import find_files
from agent.commands.session import Session
from agent.core.model import FileState, Grade, Snapshot


class Entry(Struct):
    """One data file.  `state` is None when it was never looked at; `newest` is its newest snapshot of any grade."""

    rel: str
    is_there: bool
    is_missed: bool = False  # it is gone or hidden, and whoever looked last saw it there
    state: FileState | None = None
    newest: Snapshot | None = None
    newest_good: Snapshot | None = None
    counts: Counter[Grade] = field(default_factory=Counter)

    @property
    def grade(self) -> str:
        """How the file was when it was last looked at; `missing` if it is not there now, `unreadable` if hidden.

        `new` before any look, `gone` when only snapshots are left.
        """
        if self.state is not None:
            return self.state.grade.value
        return "new" if self.is_there else "gone"

    @property
    def since(self) -> datetime | None:
        """When this grade was first seen; None for what no agent has noticed yet: nobody knows when it was."""
        return self.state.since if self.state is not None and not self.is_missed else None


def take_inventory(session: Session) -> list[Entry]:
    """Return every data file that is there, was there, or left snapshots, in the order of their paths."""
    found, hiding = find_files(session)
    hides = tuple("" if outcome.rel == "." else f"{outcome.rel}/" for outcome in hiding)
    entries = {rel: Entry(rel, is_there=True) for rel in found}
    for state in session.ws.catalog.files():
        entry = entries.setdefault(state.rel, Entry(state.rel, is_there=False))
        entry.state = state
        if not entry.is_there and session.config.is_data_file(state.rel):
            is_hidden = f"{state.rel}/".startswith(hides) and state.grade is not Grade.MISSING
            grade = Grade.UNREADABLE if is_hidden else Grade.MISSING  # an error is no absence
            entry.is_missed = state.grade is not grade
            entry.state = replace(state, grade=grade)
    for snapshot in session.ws.catalog.all_snapshots():
        entry = entries.setdefault(snapshot.rel, Entry(snapshot.rel, is_there=False))
        entry.counts[snapshot.grade] += 1
        entry.newest = snapshot
        if snapshot.grade is Grade.GOOD:
            entry.newest_good = snapshot
    return [entries[rel] for rel in sorted(entries)]


def by_grade_of(entries: Iterable[Entry]) -> str:
    """Return how many files there are of each grade, but for those that are gone for good: `3 good, 1 missing`."""
    grades = Counter(entry.grade for entry in entries if entry.grade != "gone")
    return ", ".join(f"{count:,} {grade}" for grade, count in sorted(grades.items()))
