"""The truth behind the events: which data files differ from what was last looked at, and which are gone."""

import contextlib
import hashlib
import marshal
import sqlite3
from collections.abc import Iterable
from operator import attrgetter

from msgspec import Struct, field

from agent.config import Config
from agent.core.model import Grade
from agent.disk.rows import KnownFolder
from agent.disk.walk import Skipped, walk_in_batches
from agent.slices import Steps, to_the_end
from agent.workspace import Workspace

_signature = attrgetter("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")  # equal to `signature_of`, and sooner there
_STEP_FOLDERS = 500
_STEP_FILES = 2000


class Findings(Struct):
    """What one whole walk found.  `skipped` are entries that bear the name of a data file and cannot be one."""

    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    files: int = 0
    gone: list[str] = field(default_factory=list)  # known and not met, whatever the reason
    agreed: list[tuple[str, int, bytes]] = field(default_factory=list)  # folders for `Catalog.know_folders`

    def hidden(self) -> tuple[str, ...]:
        """Return what the walk could not look into: the beginnings of all rels there, each with a slash after it."""
        return tuple(f"{s.rel}/" if s.rel else "" for s in self.skipped if s.hides_files)


class Rescan:
    """Compares walks with what is known.

    The catalog keeps a digest of each folder: of the names and signatures in it when they all were as the catalog
    says.  Only where a digest differs are the files compared one by one, so a walk over what did not change asks for
    no file by its name, and none is held in memory.
    """

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._unseen: set[str] = set()  # to be looked at whether they changed or not
        self._former: list[Config] = []  # whose rules have yet to be compared with those of now
        self._told: set[str] = set()  # missing ones that need not be told of again
        self._count = 0

    def __len__(self) -> int:
        """How many data files the last whole walk met."""
        return self._count

    def files(self) -> list[str]:
        """Return the files that are known."""
        return [rel for rel, _, _ in self._ws.catalog.signatures()]

    def learn(self, rel: str) -> None:
        """The file was looked at, and the catalog knows how it is."""
        self._unseen.discard(rel)
        self._told.discard(rel)

    def forget(self, rel: str) -> None:
        """The file is not missed any more; should it come back, it is new."""
        self._unseen.discard(rel)
        self._told.add(rel)

    def recheck(self, rels: Iterable[str]) -> None:
        """Have these files looked at whether they changed or not."""
        self._unseen.update(rels)

    def recheck_new_rules(self, old: Config) -> None:
        """Have the files looked at whose rule is not what it was in `old`; the next walk finds out which."""
        self._former.append(old)

    def walk(self) -> Findings:
        """Return what differs now.

        Raises:
            FileNotFoundError, NotADirectoryError: the data folder is not there: nothing is known of any file.
            sqlite3.Error: the catalog failed.
        """
        return to_the_end(self.steps())

    def steps(self) -> Steps[Findings]:
        """As `walk`; a file that is learned meanwhile may be told of once more."""
        findings, config, catalog = Findings(), self._ws.config, self._ws.catalog
        known: dict[str, KnownFolder] = {}
        seen: dict[str, int] = {}
        with self._ws.data_root() as root_fd:
            yield from self._compare_rules()
            for page in catalog.known_folders():
                known |= page
                yield
            for folder, found, skipped, is_last in walk_in_batches(
                root_fd, config.selection.is_data_file, lambda folder: not config.may_hold_data_files(folder)
            ):
                # What Python makes of whole numbers is the same in every process.
                seen.update([(rel, hash(_signature(status))) for rel, status in found])
                findings.skipped += skipped
                if is_last:
                    yield from self._compare(folder, seen, known.pop(folder, None), findings)
                    seen = {}
                yield
            for folder, before in known.items():
                yield from self._compare(folder, {}, before, findings)
                yield
            findings.missing = self._missing(findings)
            if not findings.missing:
                self._ws.know_root(root_fd)
        for start in range(0, len(findings.agreed), _STEP_FOLDERS):
            with contextlib.suppress(sqlite3.OperationalError):  # the next walk takes longer for it
                catalog.know_folders(findings.agreed[start : start + _STEP_FOLDERS])
            yield
        self._count = findings.files
        return findings

    def _compare_rules(self) -> Steps[None]:
        config = self._ws.config
        while self._former:
            old = self._former[0]
            for count, rel in enumerate(self.files(), 1):
                if old.rule_for(rel) != config.rule_for(rel):
                    self._unseen.add(rel)
                if not count % _STEP_FILES:
                    yield
            self._former.pop(0)

    def _compare(self, folder: str, seen: dict[str, int], known: KnownFolder | None, findings: Findings) -> Steps[None]:
        """Add to `findings` what differs in one folder; `seen` is used up."""
        findings.files += len(seen)
        # Those that the config leaves out are not missed: with another one nothing is known of the folder.
        digest = digest_of(seen, key=self._ws.config.selection.fingerprint)
        if known is not None and known.digest == digest:
            if self._unseen:
                findings.changed += [rel for rel in seen if rel in self._unseen]
            return
        changed: list[str] = []
        gone: list[str] = []
        for page in self._ws.catalog.signatures_in(folder) if known is not None else ():
            for rel, grade, signature in page:
                now = seen.pop(rel, None)
                if now is None:
                    gone += [rel] if self._ws.config.is_data_file(rel) else []
                elif signature is None or grade is Grade.MISSING or hash(signature) != now or rel in self._unseen:
                    changed.append(rel)
            yield
        changed += seen  # what is left of it is not known at all
        findings.changed += changed
        findings.gone += gone
        if known is not None and not changed and not gone:
            findings.agreed.append((folder, known.changes, digest))

    def _missing(self, findings: Findings) -> list[str]:
        """The known files that were not met, but for those an unreadable folder may hide; and the required ones."""
        config, hiding = self._ws.config, findings.hidden()
        required = {rel for rel in config.named_files() if config.rule_for(rel).required and config.is_data_file(rel)}
        never_seen = {rel for rel in required.difference(findings.changed) if self._ws.catalog.file(rel) is None}
        missing = never_seen.union(rel for rel in findings.gone if rel in required or rel not in self._told)
        return sorted(rel for rel in missing if not f"{rel}/".startswith(hiding))


def digest_of(seen: dict[str, int], *, key: bytes = b"") -> bytes:
    """Return the digest of what a walk saw in a folder, in this order; the same in every process."""
    text = marshal.dumps(seen, 0)  # later versions tell how often a text is used
    return hashlib.blake2b(text, digest_size=16, key=key).digest()
