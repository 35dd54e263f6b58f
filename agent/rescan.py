"""The truth behind the events: which data files differ from what was last looked at, and which are gone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from agent.core.model import FileState, Grade, Signature
from agent.disk.walk import Skipped, walk_in_batches
from agent.slices import Steps, to_the_end
from agent.workspace import Workspace

_signature = attrgetter("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")  # equal to `signature_of`, and sooner there
_UNSEEN = 0  # the fingerprint of a file that has to be looked at, whatever its signature


@dataclass(slots=True)
class Findings:
    """What one whole walk found.  `skipped` are entries that bear the name of a data file and cannot be one."""

    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    files: int = 0

    def hidden(self) -> tuple[str, ...]:
        """Return what the walk could not look into: the beginnings of all rels there, each with a slash after it."""
        return tuple(f"{s.rel}/" if s.rel else "" for s in self.skipped if s.hides_files)


class Rescan:
    """Compares walks with what is known; one small number in memory per data file."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._known = {
            rel: _fingerprint(signature) if signature and grade is not Grade.MISSING else _UNSEEN
            for rel, grade, signature in ws.catalog.signatures()
        }

    def __len__(self) -> int:
        return len(self._known)

    def files(self) -> list[str]:
        """Return the files that are known."""
        return list(self._known)

    def learn(self, state: FileState) -> None:
        """This is how the file was last looked at."""
        settled = state.signature is not None and state.grade is not Grade.MISSING
        self._known[state.rel] = _fingerprint(state.signature) if settled and state.signature else _UNSEEN

    def forget(self, rel: str) -> None:
        self._known.pop(rel, None)

    def recheck(self, rels: Iterable[str]) -> None:
        """Have these files looked at whether they changed or not."""
        for rel in rels:
            if rel in self._known:
                self._known[rel] = _UNSEEN

    def walk(self) -> Findings:
        """Return what differs now.

        Raises:
            FileNotFoundError, NotADirectoryError: the data folder is not there: nothing is known of any file.
        """
        return to_the_end(self.steps())

    def steps(self) -> Steps[Findings]:
        """As `walk`; a file that is learned meanwhile may be told of once more."""
        findings = Findings()
        config, known = self._ws.config, self._known
        met: set[str] = set()
        with self._ws.data_root() as root_fd:
            for found, skipped in walk_in_batches(
                root_fd, config.selection.is_data_file, lambda folder: not config.may_hold_data_files(folder)
            ):
                for rel, status in found:
                    met.add(rel)
                    if known.get(rel) != (hash(_signature(status)) or 1):
                        findings.changed.append(rel)
                findings.skipped += skipped
                yield
            findings.files = len(met)
            findings.missing = list(self._gone(met, findings.hidden()))
            if not findings.missing:
                self._ws.know_root(root_fd)
        return findings

    def _gone(self, met: set[str], hiding: tuple[str, ...]) -> Iterator[str]:
        """The known files that were not met, but for those an unreadable folder may hide."""
        required = {rel for rel in self._ws.config.named_files() if self._ws.config.rule_for(rel).required}
        for rel in sorted((self._known.keys() | required) - met):
            if not f"{rel}/".startswith(hiding) and self._ws.config.is_data_file(rel):
                yield rel


def _fingerprint(signature: Signature) -> int:
    return hash(signature) or 1
