"""Copies that an older system left beside the data: found, graded, and adopted where it is certain whose they are.

They stay where they are, untouched; what is adopted is a copy of them.  A copy that does not say when it was taken is
adopted as suspect: it can be chosen, and is never chosen by itself.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from agent.adoption import CLOCK_SLACK, adopted_grade
from agent.checks import check
from agent.config import Config
from agent.core.copies import OLD_FOLDERS, parse_copy, without_old_folder
from agent.core.model import FileState, Grade, Ownership, Reason, Shape, Snapshot
from agent.disk.capture import CHUNK_BYTES, IN_MEMORY_MAX_BYTES, NotADataFileError, open_data_file
from agent.disk.draft import Draft
from agent.disk.presence import is_there
from agent.disk.staging import StagedFile, StagingFolder, open_root
from agent.disk.walk import Found, Skipped, walk_data_files
from agent.workspace import Workspace

_KEPT = (Grade.GOOD, Grade.SUSPECT)


class OlderCopy(Struct, frozen=True):
    """A file called like a copy; `rel` is the data file it is one of, None where that is not certain.

    `taken_at` is the time of its name, or else that of its last change.
    """

    root: str
    name: str  # relative to `root`
    rel: str | None
    taken_at: datetime
    is_dated: bool
    size_bytes: int
    is_guarded: bool = False  # it counts as a data file itself

    @property
    def path(self) -> str:
        return os.path.join(self.root, self.name)


class Adoption(Struct):
    """What became of the copies: how many were adopted, by grade, and why others were left alone, by path.

    `newest_good` is the path of the newest good one of each data file.
    """

    adopted: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    newest_good: dict[str, str] = field(default_factory=dict)


def find_copies(config: Config, is_known: Callable[[str], bool]) -> Iterator[OlderCopy | Skipped]:
    """Yield every file in and beside the data folder that is called like a copy of a data file.

    `is_known` tells of a rel whether that data file is there, or was.  What could not be looked into beside the data
    folder is told by its path; in it, a walk over the data files tells the same.

    Raises:
        OSError: the data folder cannot be walked.
    """

    def owner(rel: str) -> str | None:
        return rel if config.is_data_file(rel) and is_known(rel) else None

    def is_copy(path: str) -> bool:
        name = parse_copy(path)
        return name is not None and path not in config.named_files()

    for entry in walk_data_files(config.data_dir, is_copy, lambda folder: not config.may_hold_data_files(folder)):
        if isinstance(entry, Found) and (name := parse_copy(entry.rel)) is not None:
            outside = without_old_folder(name.rel)
            rel = owner(name.rel) or (owner(outside) if outside else None)
            if rel is None and outside is None and name.taken_at is not None and config.is_data_file(name.rel):
                rel = name.rel  # the file itself is lost: its name and its folder are told by the copy
            if rel is not None or name.taken_at is not None:
                yield _seen(config.data_dir, entry, rel, name.taken_at, is_guarded=config.is_data_file(entry.rel))
    for folder in _beside(config):
        for entry in walk_data_files(folder, is_copy, lambda below: below.startswith((".", "_"))):
            if isinstance(entry, Found) and (name := parse_copy(entry.rel)) is not None:
                yield _seen(folder, entry, owner(name.rel), name.taken_at)
            elif isinstance(entry, Skipped) and entry.hides_files:
                yield replace(entry, rel=os.path.join(folder, entry.rel))


def _seen(
    root: str, entry: Found, rel: str | None, taken_at: datetime | None, *, is_guarded: bool = False
) -> OlderCopy:
    changed_at = datetime.fromtimestamp(max(0, entry.signature.mtime_ns) / 1e9, UTC)
    is_dated, at = taken_at is not None, taken_at or changed_at
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    return OlderCopy(root, entry.rel, rel, at, is_dated, entry.signature.size_bytes, is_guarded)


def _beside(config: Config) -> Iterator[str]:
    """The folders beside the data folder that hold copies by their name, but for those of an agent."""
    home, own = os.path.dirname(config.data_dir), (config.data_dir, config.backup_dir, config.temp_dir)
    for name in sorted(OLD_FOLDERS):
        folder = os.path.join(home, name)
        real = os.path.realpath(folder)
        is_ours = any(os.path.commonpath([real, os.path.realpath(path)]) == real for path in own)
        is_an_agents = os.path.exists(os.path.join(folder, ".agent", "format"))
        if os.path.isdir(folder) and not (os.path.islink(folder) or is_ours or is_an_agents):
            yield folder


class Adopter:
    """Grades the copies of one workspace, and adopts them."""

    def __init__(self, ws: Workspace, progress: Callable[[], None] = lambda: None) -> None:
        self._ws, self._progress = ws, progress
        self._done = Adoption()

    def run(self, *, dry_run: bool = False) -> Adoption:
        """Adopt what can be; a second time there is nothing to do.

        Raises:
            OSError: the data folder cannot be walked, or the backup folder not be written; a later run goes on.
        """
        copies: dict[str, list[OlderCopy]] = {}
        for copy in find_copies(self._ws.config, self._is_known):
            if isinstance(copy, Skipped):
                self._done.left[copy.rel] = f"it cannot be looked into: {copy.error or copy.reason}"
            elif copy.rel is None:
                self._done.left[copy.path] = "there is no data file that it can be told to be a copy of"
            elif copy.is_guarded:
                self._done.left[copy.path] = "it is guarded as data of its own; name it in watch.exclude if it is none"
            else:
                copies.setdefault(copy.rel, []).append(copy)
        for rel in sorted(copies):
            self._adopt(rel, sorted(copies[rel], key=lambda copy: (copy.taken_at, copy.path)), dry_run=dry_run)
        return self._done

    def _is_known(self, rel: str) -> bool:
        there = is_there(os.path.join(self._ws.config.data_dir, rel))
        return there or self._ws.catalog.file(rel) is not None or self._ws.catalog.newest(rel) is not None

    def _adopt(self, rel: str, copies: Sequence[OlderCopy], *, dry_run: bool) -> None:
        """The copies of one data file, the oldest first: each is compared with the good one before it."""
        reference: Shape | None = None
        for copy in copies:
            with self._ws.store.staging() as staging:
                try:
                    draft = self._draft(copy, rel, staging, reference)
                except (OSError, NotADataFileError) as error:
                    self._done.left[copy.path] = f"it cannot be read: {error}"
                    continue
                try:
                    if draft.grade is Grade.GOOD:
                        reference = draft.shape or reference
                        self._done.newest_good[rel] = copy.path
                    self._take(copy, draft, staging, dry_run=dry_run)
                finally:
                    assert isinstance(draft.content, StagedFile)
                    draft.content.discard()
            self._progress()
        if not dry_run:
            self._know(rel)

    def _take(self, copy: OlderCopy, draft: Draft, staging: StagingFolder, *, dry_run: bool) -> None:
        if draft.grade not in _KEPT:
            self._done.left[copy.path] = f"it is {draft.grade}"
            return
        if self._has(draft, is_dated=copy.is_dated):
            return
        if not dry_run:
            published = self._ws.store.publish([draft], staging)[0]
            if not isinstance(published, Snapshot):
                self._done.left[copy.path] = f"it could not be adopted: {published.error}"
                return
            self._ws.catalog.add_snapshots([published])
        self._done.adopted[draft.grade] = self._done.adopted.get(draft.grade, 0) + 1

    def _has(self, draft: Draft, *, is_dated: bool) -> bool:
        """Whether these bytes are kept already: from that second, or, where the copy bears no time, from any."""
        same = [s for s in self._ws.catalog.snapshots(draft.rel) if s.digest == draft.digest]
        return any(not is_dated or abs((s.taken_at - draft.taken_at).total_seconds()) < 1 for s in same)

    def _draft(self, copy: OlderCopy, rel: str, staging: StagingFolder, reference: Shape | None) -> Draft:
        plain = staging.create()
        try:
            digest, ownership = self._read(copy, plain)
            size = os.fstat(plain.fd).st_size
            source = os.pread(plain.fd, size, 0) if size <= IN_MEMORY_MAX_BYTES else Path(plain.path)
            result = check(source, self._ws.config.rule_for(rel).check)
        except BaseException:
            plain.discard()
            raise
        grade, now = adopted_grade(result, reference, self._ws, rel), self._ws.clock.utc()
        is_ahead = copy.taken_at > now + CLOCK_SLACK
        if grade is Grade.GOOD and (is_ahead or not copy.is_dated):
            grade = Grade.SUSPECT
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        return Draft(rel, plain, digest, ownership, grade, Reason.ADOPTED, result.shape, min(copy.taken_at, now))

    def _read(self, copy: OlderCopy, plain: StagedFile) -> tuple[str, Ownership]:
        """Copy the bytes; return their digest and who owned them."""
        root_fd = open_root(copy.root)
        try:
            fd = open_data_file(root_fd, copy.name)
        finally:
            os.close(root_fd)
        hasher, left = hashlib.sha256(), self._ws.config.watch.max_file_size_bytes
        try:
            status = os.fstat(fd)
            while chunk := os.read(fd, CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise OSError("larger than watch.max_file_size")  # one way out
                hasher.update(chunk)
                plain.write(chunk)
        finally:
            os.close(fd)
        return hasher.hexdigest(), Ownership(status.st_uid, status.st_gid, status.st_mode & 0o777)

    def _know(self, rel: str) -> None:
        """A file that is there was good before, so that it is healed; one that is not is not missed for its copies."""
        ws = self._ws
        good = ws.catalog.newest(rel, Grade.GOOD)
        is_alive = is_there(os.path.join(ws.config.data_dir, rel))
        if good is not None and is_alive and ws.catalog.file(rel) is None:
            at = good.taken_at
            ws.catalog.save_files([FileState(rel, Grade.GOOD, at, last_good_at=at, last_snapshot_at=at)])
