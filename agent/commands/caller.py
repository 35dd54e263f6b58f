"""Which config and folder a command is about, as its caller named them, and hints that repeat that.

Without `--config` it is `$BACKUP_AGENT_CONFIG`, else `backup-agent.yaml` where the caller stands, or in a folder above
when the caller stands in the data folder, or names a file in one.  A config that is found so is told of, and never one
of another user.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import yaml

from agent.config import Config, load_config
from agent.config.source import SIZE_MAX_BYTES, compose
from agent.core.errors import AgentError, ConfigError, UsageError
from agent.core.naming import display
from agent.core.paste import shell_word, with_options

CONFIG_VARIABLE = "BACKUP_AGENT_CONFIG"
CONFIG_NAME = "backup-agent.yaml"
_OTHER_NAMES = ("backup-agent.yml", "config.yaml", "config.yml")
_LOOK_AT_MAX_BYTES = 1024 * 1024
_options = ""  # what hints repeat: one process has one caller


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Every command finds its folder in the same ways."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"config file (default: ${CONFIG_VARIABLE}, else ./{CONFIG_NAME} if there is one)",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="the bot's data folder (default: ./data, or the config's)")


# hints


def remember_caller(config: str | None, data_dir: str | None) -> None:
    """From now on `pasteable` repeats these, as they are given here."""
    global _options  # noqa: PLW0603  # the command line is one for the whole process
    words = [("--config", config), ("--data-dir", data_dir)]
    _options = " ".join(f"{option} {shell_word(value)}" for option, value in words if value is not None)


def pasteable(text: str) -> str:
    """Return `text` with the commands in it as the caller can paste them."""
    return with_options(text, _options)


# the config


def note(text: str) -> None:
    """Tell what a person should know beside the answer."""
    print(f"note: {text}", file=sys.stderr)


def read_config(args: argparse.Namespace, tell: Callable[[str], None] = note) -> Config:
    """Return the config, and have `args.config` name its file; a guarded folder that we stand in is found as well.

    `tell` hears of a config that nobody named.

    Raises:
        UsageError, ConfigError: it cannot be used.
    """
    try:
        return _read_config(args, tell)
    except FileNotFoundError as error:  # of no file: each of those is told by what reads it
        raise UsageError(
            "the folder that this was started in is gone", hint="start it in a folder that is there"
        ) from error


def _read_config(args: argparse.Namespace, tell: Callable[[str], None]) -> Config:
    if args.config is None:
        args.config = os.environ.get(CONFIG_VARIABLE) or _found_config(args.data_dir, tell, _places(args))
    config = load_config(args.config, args.data_dir, os.environ)
    if args.config is not None or args.data_dir is not None or os.path.isdir(config.data_dir):
        return config
    for here in (above for place in _places(args) for above in _and_above(place)):
        if os.path.isdir(os.path.join(here, "backups", ".agent")):
            return load_config(None, here, os.environ)
    return config


def _places(args: argparse.Namespace) -> list[str]:
    """Return the folders that the caller may mean: where they stand, then those of the files that they name."""
    named = [getattr(args, "file", None), getattr(args, "snapshot", None), *(getattr(args, "files", None) or ())]
    paths = [os.path.abspath(name) for name in named if isinstance(name, str)]
    return [os.getcwd(), *(path if os.path.isdir(path) else os.path.dirname(path) for path in paths)]


def _found_config(data_dir: str | None, tell: Callable[[str], None], places: Sequence[str]) -> str | None:
    """Return the path of a config that lies here, and is for `data_dir` where the caller named one.

    Raises:
        UsageError: there is one, and it cannot be used unasked.
        ConfigError: likewise.
    """
    path = _path_of_found(data_dir, places)
    if path is None:
        for name in filter(_looks_like_ours, _OTHER_NAMES):
            tell(f"./{name} looks like a config of ours and is not used: say --config {name}, or call it {CONFIG_NAME}")
        return None
    _refuse_of_others(path)
    theirs = data_dir and load_config(path, None, os.environ).data_dir
    if theirs and data_dir and os.path.realpath(theirs) != os.path.realpath(data_dir):
        tell(f"{display(path)} is not used: it is for {display(theirs)}")
        return None
    tell(f"using the config {display(path)}")
    return path


def _path_of_found(data_dir: str | None, places: Sequence[str]) -> str | None:
    if os.path.lexists(CONFIG_NAME):
        return f"./{CONFIG_NAME}"
    if data_dir is not None or os.path.isdir("data"):
        return None
    candidates = ((place, os.path.join(above, CONFIG_NAME)) for place in places for above in _and_above(place))
    return next((path for place, path in candidates if os.path.lexists(path) and _is_about(path, place)), None)


def _and_above(here: str) -> Iterator[str]:
    while here != (parent := os.path.dirname(here)):
        yield here
        here = parent


def _refuse_of_others(path: str) -> None:
    """A config names commands that are run, so one of another user is not taken unasked.

    Raises:
        UsageError: it is one, or cannot be read.
    """
    try:
        owner = os.stat(path).st_uid
    except OSError as error:
        raise UsageError(
            f"{display(path)} cannot be read: {error.strerror}", hint="mend it, or name another one with --config FILE"
        ) from error
    if owner not in (0, os.geteuid()):
        raise UsageError(
            f"{display(path)} belongs to another user (id {owner}), and a config names commands that are run",
            hint=f"run this as that user, or say that you trust it: --config {shell_word(path)}",
        )


def _is_about(path: str, folder: str) -> bool:
    """Whether `folder` is the data folder of the config, or lies in it."""
    try:
        root = os.path.realpath(load_config(path, None, os.environ).data_dir)
    except AgentError:
        return False
    return os.path.commonpath([root, os.path.realpath(folder)]) == root


def _looks_like_ours(path: str) -> bool:
    """Whether the file sets nothing but keys of ours; most bots have a config.yaml of their own."""
    try:
        with open(path, "rb") as stream:
            node = compose(stream.read(SIZE_MAX_BYTES + 1), file=path)
    except (OSError, ConfigError):
        return False
    keys = {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
    return bool(keys & {"data_dir", "watch", "backup"}) and keys <= set(Config.__struct_encode_fields__)
