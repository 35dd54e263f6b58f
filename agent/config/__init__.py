"""The settings: one YAML file, read and judged as a whole, handed on as plain values.

`sections` and `model` say what can be set, `selection` which files that covers, `consistency` what must not contradict
itself.  `source` and `reader` turn text into the model, with a place for every problem.
"""

import os
import re
from collections.abc import Mapping

from msgspec.structs import replace

from agent.config.consistency import findings
from agent.config.editor import config_json_schema
from agent.config.model import Config, FileRule
from agent.config.reader import NodeReader
from agent.config.schemas import load_schema
from agent.config.sections import Bot, FileEntry, Log, Metrics, Retention, Suspect
from agent.config.source import SIZE_MAX_BYTES, ConfigProblem, InvalidConfigError, compose
from agent.core.errors import ConfigError

__all__ = [
    "Bot",
    "Config",
    "ConfigProblem",
    "FileRule",
    "InvalidConfigError",
    "Log",
    "Metrics",
    "Retention",
    "Suspect",
    "config_json_schema",
    "load_config",
]

_OWN_FOLDERS = ("backup_dir", "temp_dir", "state_dir")


def load_config(path: str | None, data_dir: str | None, environ: Mapping[str, str]) -> Config:
    """Return the settings of the file at `path`, or the defaults if there is none, with every folder absolute.

    A relative folder is relative to the one `path` lies in, without a file to the working directory.  `data_dir`, as
    given on the command line, takes the place of the file's own and is relative to the working directory.
    `environ` fills in `${VAR}`.

    Raises:
        ConfigError: the file cannot be read (then it is plain), or it has problems, all of which it then lists
            (`InvalidConfigError`).
    """
    reader = NodeReader(file=path, environ=environ)
    node = None if path is None else compose(_content(path), file=path)
    config = (node and reader.read(Config, node)) or Config()
    folder = os.path.dirname(os.path.abspath(path)) if path is not None else os.getcwd()
    config = _with_schemas(_with_absolute_folders(config, folder, data_dir, reader), folder, reader)
    wrong = {problem.key_path for problem in reader.problems}
    for finding in findings(config):
        keys = [_as_written(key, reader) for key in finding.keys]
        if wrong.isdisjoint(keys):
            reader.complain(keys[0], finding.message, finding.hint)
    if reader.problems:
        problems = dict.fromkeys(reader.problems)  # two rules may name one faulty schema
        raise InvalidConfigError(
            sorted(problems, key=lambda p: (p.file != path, p.file or "", p.line or 0, p.column or 0))
        )
    return config


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(SIZE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        hint = "name it with `--config FILE`, or let `backup-agent init` write one"
        raise ConfigError(f"there is no config file {path}", hint=hint) from error
    except OSError as error:
        hint = "it must be a file that the user of the agent may read"
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}", hint=hint) from error


def _with_absolute_folders(config: Config, folder: str, data_dir: str | None, reader: NodeReader) -> Config:
    def absolute(written: str) -> str:
        return os.path.abspath(os.path.join(folder, os.path.expanduser(written)))

    # A folder that the file leaves out is emptied here, so that it follows from the others anew.
    own = {key: absolute(getattr(config, key)) if key in reader.nodes else "" for key in _OWN_FOLDERS}
    return replace(config, data_dir=absolute(config.data_dir) if data_dir is None else os.path.abspath(data_dir), **own)


def _with_schemas(config: Config, folder: str, reader: NodeReader) -> Config:
    def loaded(index: int, entry: FileEntry) -> FileEntry:
        if entry.schema is None:
            return entry
        at = _as_written(f"files[{index}].schema", reader)
        return replace(entry, schema=load_schema(entry.schema, at=at, folder=folder, reader=reader))

    return replace(config, files=tuple(loaded(index, entry) for index, entry in enumerate(config.files)))


def _as_written(key_path: str, reader: NodeReader) -> str:
    """Return a key path of the config as one of the file, where items that could not be read are counted too."""
    match = re.fullmatch(r"(.+)\[([0-9]+)\](.*)", key_path)
    if match is None or match[1] not in reader.kept:
        return key_path
    return f"{match[1]}[{reader.kept[match[1]][int(match[2])]}]{match[3]}"
