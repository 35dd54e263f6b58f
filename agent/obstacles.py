"""What stands against a migration: looked for before anything is changed."""

import os
from collections.abc import Iterator

from agent.config import Config
from agent.core.errors import AgentError
from agent.core.naming import display
from agent.disk.walk import Skipped, walk_data_files
from agent.older_copies import find_copies
from agent.rotation import free_bytes

_SHOWN_MAX = 10


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
    sizes = [0]
    for entry in walk_data_files(config.data_dir, config.is_data_file, lambda d: not config.may_hold_data_files(d)):
        path = os.path.join(config.data_dir, entry.rel)
        if isinstance(entry, Skipped):
            if entry.hides_files:
                why = f" ({entry.error.strerror})" if entry.error is not None else ""
                yield f"the folder {display(entry.rel or '.')} cannot be read{why}"
            continue
        sizes.append(entry.signature.size_bytes)
        owner = os.stat(path, follow_symlinks=False).st_uid
        if os.geteuid() not in (0, owner):
            yield f"{display(entry.rel)} belongs to user {owner}: run this as that user"
        elif not os.access(path, os.R_OK):
            yield f"{display(entry.rel)} cannot be read"
        if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            yield f"the folder {display(os.path.dirname(entry.rel) or '.')} cannot be written to"
    for folder in (config.backup_dir, config.state_dir, config.temp_dir):
        if not os.access(_existing(folder), os.W_OK | os.X_OK):
            yield f"{display(folder)} cannot be written to"
    copies = find_copies(config, lambda rel: os.path.lexists(os.path.join(config.data_dir, rel)))
    older = sum(copy.size_bytes for copy in copies if copy.rel is not None)
    # The originals, the first snapshots and the adopted copies; beside the data, one file at a time.
    for folder, need in ((config.backup_dir, 2 * sum(sizes) + older + (config.backup.min_free_bytes or 0)),
                         (config.temp_dir, max(sizes))):  # fmt: skip
        free = free_bytes(_existing(folder))
        if free < need:
            yield f"{display(folder)} needs {need:,} bytes, {free:,} are free"


def _existing(folder: str) -> str:
    """The folder itself, or the one in which it would be made."""
    while not os.path.isdir(folder) and folder != (parent := os.path.dirname(folder)):
        folder = parent
    return folder
