"""What a data folder holds before any agent guards it; nothing is made or changed by looking."""

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, field

from agent.checks import check
from agent.commands.progress import Progress
from agent.commands.wording import counted, size, user_name
from agent.config import Config
from agent.core.copies import parse_foreign
from agent.core.model import CheckResult, Grade
from agent.core.naming import display, parse_name
from agent.disk.capture import IN_MEMORY_MAX_BYTES
from agent.disk.walk import Found, Skipped, walk_data_files
from agent.older_copies import find_copies

_NAMED_MAX = 20


class Seen(Struct, frozen=True):
    """One data file as it is; `records` is None where that has no meaning."""

    rel: str
    size_bytes: int
    grade: Grade
    records: int | None = None
    problem: str = ""


class Survey(Struct):
    """`old_backups` are copies that an older system left in `backup_dir`, `strays` those in and beside the data folder;
    `lookalikes` of these would count as data files.  `owner` is the user who owns the folder."""

    data_dir: str
    owner: str
    owner_is_us: bool
    has_temp: bool
    is_guarded: bool
    files: list[Seen] = field(default_factory=list)
    old_backups: int = 0
    strays: list[str] = field(default_factory=list)  # relative to the data folder where they lie in it
    lookalikes: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def good(self) -> list[Seen]:
        return [seen for seen in self.files if seen.grade is Grade.GOOD]


def survey(config: Config) -> Survey:
    """Return what is in the data folder of `config`.

    Raises:
        OSError: it cannot be listed.
    """
    owner = os.stat(config.data_dir).st_uid
    found = Survey(
        config.data_dir,
        user_name(owner),
        owner == os.geteuid(),
        has_temp=os.path.isdir(config.temp_dir),
        is_guarded=os.path.isdir(config.state_dir),
    )
    _find_strays(config, found)
    entries = walk_data_files(config.data_dir, config.is_data_file, lambda rel: not config.may_hold_data_files(rel))
    progress = Progress("looking")
    try:
        for entry in entries:
            if isinstance(entry, Skipped):
                found.skipped.append(entry)
            elif entry.rel not in found.lookalikes:
                found.files.append(_look(config, entry))
            progress.step()
    finally:
        progress.end()
    found.files.sort(key=lambda seen: (seen.rel.count("/"), seen.rel))  # what matters lies at the top, mostly
    found.old_backups = _count_copies(config)
    return found


def _find_strays(config: Config, found: Survey) -> None:
    for copy in find_copies(config, lambda rel: os.path.lexists(os.path.join(config.data_dir, rel))):
        if isinstance(copy, Skipped):
            found.skipped.append(copy)
            continue
        found.strays.append(copy.name if copy.root == config.data_dir else copy.path)
        if copy.is_guarded:
            found.lookalikes.append(copy.name)
    found.strays.sort()


def _is_copy(rel: str) -> bool:
    return parse_name(rel) is not None or parse_foreign(rel) is not None


def _look(config: Config, entry: Found) -> Seen:
    """One plain read: a file that is being written at this moment may look damaged, which does no harm here."""
    size_bytes = entry.signature.size_bytes
    path = os.path.join(config.data_dir, entry.rel)
    if size_bytes > config.watch.max_file_size_bytes:
        return Seen(entry.rel, size_bytes, Grade.UNREADABLE, problem="larger than watch.max_file_size")
    try:
        result = _checked(config, entry.rel, path, size_bytes)
    except OSError as error:
        return Seen(entry.rel, size_bytes, Grade.UNREADABLE, problem=error.strerror or str(error))
    records = result.shape.records if result.shape else None
    return Seen(entry.rel, size_bytes, result.grade, records, str(result.problems[0]) if result.problems else "")


def _checked(config: Config, rel: str, path: str, size_bytes: int) -> CheckResult:
    spec = config.rule_for(rel).check
    if size_bytes > IN_MEMORY_MAX_BYTES:
        return check(Path(path), spec)
    with open(path, "rb", opener=_opener) as stream:
        return check(stream.read(IN_MEMORY_MAX_BYTES + 1), spec)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _count_copies(config: Config) -> int:
    """How many copies of an older system lie where snapshots will."""
    if not os.path.isdir(config.backup_dir) or os.path.isdir(config.state_dir):
        return 0
    walk = walk_data_files(config.backup_dir, _is_copy, lambda _: False)
    return sum(isinstance(entry, Found) for entry in walk)


def told(found: Survey) -> Iterator[str]:
    """Yield what a person should know of a folder."""
    yield f"{display(found.data_dir)}: {counted(len(found.files), 'data file')}, owned by {found.owner}"
    for seen in found.files[:_NAMED_MAX]:
        what = counted(seen.records, "record") if seen.records is not None else ""
        parts = [part for part in (size(seen.size_bytes), what, str(seen.grade), seen.problem) if part]
        yield f"  {display(seen.rel)}: {', '.join(parts)}"
    rest = found.files[_NAMED_MAX:]
    if rest:
        bad = sum(seen.grade is not Grade.GOOD for seen in rest)
        yield f"  and {len(rest):,} more, {bad:,} of them not good"
    if found.old_backups:
        yield f"  {counted(found.old_backups, 'backup')} of an older system: the agent adopts what is good of them"
    if found.strays:
        strays, first = counted(len(found.strays), "older backup"), display(found.strays[0])
        yield f"  {strays} beside the data, such as {first}: no data; the first start adopts what is certain"
    if found.has_temp:
        yield "  temp: is there, and may hold what is being written"
    if found.is_guarded:
        yield "  an agent has guarded this folder before"
    for entry in found.skipped[:_NAMED_MAX]:
        yield f"  {display(entry.rel)}: would not be looked after ({entry.reason.value.replace('_', ' ')})"
    if not found.owner_is_us:
        yield f"  note: run the agent as {found.owner}: only the owner of a file gets the kernel's leases"
    yield ""
