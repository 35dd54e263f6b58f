"""What stands against a migration: looked for before anything is changed."""

import errno
import os
from collections.abc import Iterator

from agent.config import Config
from agent.core.errors import AgentError
from agent.core.naming import display
from agent.disk.presence import is_there
from agent.disk.walk import walk_in_batches
from agent.older_copies import OlderCopy, find_copies
from agent.rotation import free_bytes

_SHOWN_MAX = 10
_REFUSED = os.strerror(errno.EACCES)
_NO_TRIAL = (errno.EOPNOTSUPP, errno.EISDIR)  # files without a name: not on this file system


class MigrationRefusedError(AgentError):
    """Permissions or space are not as they must be; `str()` lists what; nothing was changed."""


def refuse_unfit(config: Config) -> None:
    """Return when permissions and space allow a migration.

    Raises:
        MigrationRefusedError: they do not, or the disk does not tell.
    """
    wrong: list[str] = []
    try:
        for obstacle in _obstacles(config):
            wrong += [obstacle] if obstacle not in wrong else []
    except OSError as error:
        wrong.append(f"{display(str(error.filename or config.data_dir))}: {error.strerror}")
    if wrong:
        more = len(wrong) - _SHOWN_MAX
        told = "; ".join(wrong[:_SHOWN_MAX]) + (f"; and {more} more" if more > 0 else "")
        raise MigrationRefusedError(
            f"the migration was not begun: {told}",
            hint="put this right and run `backup-agent migrate`; nothing was changed",
        )


def _obstacles(config: Config) -> Iterator[str]:
    sizes, user = [0], os.geteuid()
    folders: set[str] = set()
    for folder, found, skipped, _ in walk_in_batches(
        config.data_dir, config.is_data_file, lambda d: not config.may_hold_data_files(d)
    ):
        for entry in skipped:
            if entry.hides_files:
                why = f" ({entry.error.strerror})" if entry.error is not None else ""
                yield f"the folder {display(entry.rel or '.')} cannot be read{why}"
        for rel, status in found:
            sizes.append(status.st_size)
            if user and user != status.st_uid:
                yield f"{display(rel)} belongs to user {status.st_uid}: run this as that user"
            elif why := _refusal(os.path.join(config.data_dir, rel), os.R_OK):
                yield f"{display(rel)} cannot be read ({why})"
        folders.update([folder] if found else [])
    for rel in sorted(folders):
        if why := _refusal(os.path.join(config.data_dir, rel), os.W_OK | os.X_OK):
            yield f"the folder {display(rel or '.')} cannot be written to ({why})"
    for folder in (config.backup_dir, config.state_dir, config.temp_dir):
        if why := _refusal(_existing(folder), os.W_OK | os.X_OK):
            yield f"{display(folder)} cannot be written to ({why})"
    copies = find_copies(config, lambda rel: is_there(os.path.join(config.data_dir, rel)))
    older = sum(copy.size_bytes for copy in copies if isinstance(copy, OlderCopy) and copy.rel is not None)
    # The originals, the first snapshots and the adopted copies; beside the data, one file at a time.
    for folder, need in ((config.backup_dir, 2 * sum(sizes) + older + (config.backup.min_free_bytes or 0)),
                         (config.temp_dir, max(sizes))):  # fmt: skip
        free = free_bytes(_existing(folder))
        if free < need:
            yield f"{display(folder)} needs {need:,} bytes, {free:,} are free"


def _refusal(path: str, mode: int) -> str:
    """Why the file cannot be read, or nothing be made in the folder; empty when it can.

    access(2) tells Python no reason, so a refusal is tried out: with a file that has no name and is gone at once.
    """
    if os.access(path, mode):
        return ""
    try:
        os.close(os.open(path, os.O_TMPFILE | os.O_WRONLY if mode & os.W_OK else os.O_RDONLY | os.O_NONBLOCK, 0o600))
    except OSError as error:
        return _REFUSED if error.errno in _NO_TRIAL else error.strerror or _REFUSED
    return ""


def _existing(folder: str) -> str:
    """The folder itself, or the one in which it would be made."""
    while not os.path.isdir(folder) and folder != (parent := os.path.dirname(folder)):
        folder = parent
    return folder
