"""What must be true between settings that are each well formed.  One function per subject, one finding per problem."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agent.config.model import Config
from agent.config.selection import compile_globs, is_glob, is_reserved, normal
from agent.config.units import UnfitError, format_duration


class Finding(NamedTuple):
    """A contradiction: told at the first of `keys`, and moot when one of them has a problem of its own."""

    keys: tuple[str, ...]
    message: str
    hint: str


def findings(config: Config) -> Iterator[Finding]:
    """Yield everything that contradicts itself; `config` holds absolute folders."""
    yield from _times(config)
    yield from _folders(config)
    yield from _packing(config)
    yield from _retention(config)
    yield from _listen(config)
    yield from _globs(config)
    yield from _files(config)


def _times(config: Config) -> Iterator[Finding]:
    watch = config.watch
    if watch.debounce_s > watch.max_delay_s:
        limit = format_duration(watch.max_delay_s)
        yield Finding(
            ("watch.debounce", "watch.max_delay"), f"is longer than watch.max_delay ({limit})", f"write at most {limit}"
        )


def _folders(config: Config) -> Iterator[Finding]:
    # As the file system sees them: two spellings of one folder are one folder.
    data, backup, temp, state = map(
        os.path.realpath, (config.data_dir, config.backup_dir, config.temp_dir, config.state_dir)
    )
    apart = "use a folder of its own, such as"
    if _within(data, backup):
        what = (
            "is data_dir itself" if backup == data else "holds data_dir, which would make the data part of the backup"
        )
        yield Finding(("backup_dir", "data_dir"), what, f"{apart} {config.data_dir}/backups")
    if temp == data:
        yield Finding(("temp_dir", "data_dir"), "is data_dir itself", f"{apart} {config.data_dir}/temp")
    elif _within(temp, backup) and not _within(data, backup):
        yield Finding(("temp_dir", "backup_dir"), "lies in backup_dir", f"{apart} {config.data_dir}/temp")
    for key, folder in (("data_dir", data), ("backup_dir", backup), ("temp_dir", temp)):
        if state == folder:
            yield Finding(("state_dir", key), f"is the same folder as {key}", f"{apart} {config.backup_dir}/.agent")


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _packing(config: Config) -> Iterator[Finding]:
    compression = config.backup.compression
    if config.backup.packing and compression != "zstd":
        yield Finding(
            ("backup.packing", "backup.compression"),
            f"packs zstd snapshots, and backup.compression is {compression}",
            "set compression: zstd, or leave packing out",
        )


def _retention(config: Config) -> Iterator[Finding]:
    keep = config.backup.retention
    counts = (keep.keep_last, keep.keep_intervals, keep.keep_hourly, keep.keep_daily, keep.keep_weekly)
    if not any((*counts, keep.keep_monthly, keep.keep_yearly, keep.keep_within_s)):
        yield Finding(
            ("backup.retention",), "every keep_ rule is 0, so nothing would be kept", "set one, e.g. keep_last: 10"
        )


def _listen(config: Config) -> Iterator[Finding]:
    try:
        _ = config.metrics.address
    except UnfitError as error:
        yield Finding(("metrics.listen",), str(error), error.hint)


def _globs(config: Config) -> Iterator[Finding]:
    patterns = [(f"watch.include[{index}]", pattern) for index, pattern in enumerate(config.watch.include)]
    patterns += [(f"watch.exclude[{index}]", pattern) for index, pattern in enumerate(config.watch.exclude)]
    for key, pattern in (*patterns, *_paths(config)):
        if os.path.isabs(pattern) or os.pardir in pattern.split("/"):
            yield Finding((key,), f"`{pattern}` leads out of data_dir", "write it relative to data_dir, without ..")
        elif not normal(pattern):
            yield Finding((key,), f"`{pattern}` names no file", "write a path or a glob such as **/*.json")
        elif re.search(r"\{[^/}]*,[^/}]*\}", pattern):
            yield Finding(
                (key,), f"`{pattern}`: braces are not alternatives here", "write one pattern for each; [{] is a brace"
            )
        elif pattern.endswith("/") and not key.startswith("watch.exclude"):
            yield Finding((key,), f"`{pattern}` is a folder", f"write {pattern}** for everything in it")
        else:
            try:
                compile_globs([pattern])
            except re.error as error:
                yield Finding((key,), f"`{pattern}` is not a glob: {error}", "correct what is in the brackets")


def _files(config: Config) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for key, path in _paths(config):
        rel = normal(path)
        if rel in first:
            yield Finding((key, first[rel]), f"`{path}` has a rule already", "make one rule of the two")
        elif not is_glob(path) and is_reserved(rel, tuple(f"{folder}/" for folder in config.own_folders)):
            yield Finding((key,), f"`{path}` is one of the agent's own files", "name a file of the bot")
        first.setdefault(rel, key)


def _paths(config: Config) -> Iterable[tuple[str, str]]:
    return [(f"files[{index}].path", entry.path) for index, entry in enumerate(config.files)]
