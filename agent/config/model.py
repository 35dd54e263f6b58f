"""The settings of the agent: every section, absolute paths, and how each data file is treated by them."""

import os
from functools import cached_property
from typing import Annotated, Any

from msgspec import Struct, field
from msgspec.structs import asdict, force_setattr, replace

from agent.config.sections import (
    Backup,
    Bot,
    FileEntry,
    Log,
    Metrics,
    Notify,
    OnCorrupt,
    OnInvalid,
    OnMissing,
    Recovery,
    Seconds,
    Section,
    Suspect,
    Text,
    Verify,
    Watch,
    doc,
)
from agent.config.selection import Selection, compile_globs, is_glob, normal
from agent.core.model import CheckSpec


class FileRule(Struct, frozen=True, kw_only=True):
    """How one data file is treated: its entry in `files`, merged with the defaults."""

    path: str | None  # of the entry, as a `rel` is spelled; None for a file that no entry matches
    required: bool
    check: CheckSpec
    on_corrupt: OnCorrupt
    on_invalid: OnInvalid
    on_missing: OnMissing
    suspect: Suspect


class Config(Section, frozen=True, dict=True):
    """Everything that can be set. A relative path is relative to the folder of the config file."""

    data_dir: Annotated[Text, doc("The folder of the bot's data files.")] = "./data"
    backup_dir: Annotated[str, doc("Where snapshots are kept; default: backups in data_dir.", min_length=1)] = ""
    temp_dir: Annotated[
        str, doc("Staging, on the file system of data_dir; default: temp in data_dir.", min_length=1)
    ] = ""
    state_dir: Annotated[
        str, doc("Locks and catalog, on a local disk; default: .agent in backup_dir.", min_length=1)
    ] = ""
    shutdown_timeout_s: Annotated[Seconds, doc("Time to capture pending files when asked to stop.", ge=1)] = 10.0
    watch: Annotated[Watch, doc("Which files are looked after, and when a change counts as finished.")] = field(
        default_factory=Watch
    )
    backup: Annotated[Backup, doc("How snapshots are stored, and how much room they may take.")] = field(
        default_factory=Backup
    )
    recovery: Annotated[Recovery, doc("What is done about damage.")] = field(default_factory=Recovery)
    verify: Annotated[Verify, doc("How often everything is read back.")] = field(default_factory=Verify)
    bot: Annotated[Bot | None, doc("Commands that stop and start the bot around a heal.")] = None
    files: Annotated[tuple[FileEntry, ...], doc("Rules for single files or globs.")] = ()
    notify: Annotated[Notify, doc("Who is told, beside log and metrics.")] = field(default_factory=Notify)
    metrics: Annotated[Metrics, doc("The page that Prometheus reads.")] = field(default_factory=Metrics)
    log: Annotated[Log, doc("What is written to standard error.")] = field(default_factory=Log)

    def __post_init__(self) -> None:
        # Folders that were left out follow from the others; a frozen struct is filled in before anyone sees it.
        force_setattr(self, "backup_dir", self.backup_dir or os.path.join(self.data_dir, "backups"))
        force_setattr(self, "temp_dir", self.temp_dir or os.path.join(self.data_dir, "temp"))
        force_setattr(self, "state_dir", self.state_dir or os.path.join(self.backup_dir, ".agent"))

    def rule_for(self, rel: str) -> FileRule:
        """Return how the file at `rel` is treated: by the entry with exactly this path, else by the first glob."""
        exact, globs, default = self._rules
        if rel in exact:
            return exact[rel]
        return next((rule for matches, rule in globs if matches(rel)), default)

    def is_data_file(self, rel: str) -> bool:
        """Say whether the file at `rel` is looked after; false for everything that is the agent's own."""
        return self.selection.is_data_file(rel)

    def may_hold_data_files(self, rel_dir: str) -> bool:
        """Say whether a walk has to enter the folder at `rel_dir`; False spares it all that lies below."""
        return self.selection.may_hold_data_files(rel_dir)

    def named_files(self) -> tuple[str, ...]:
        """Return the files that the config names outright, in its order."""
        return tuple(normal(entry.path) for entry in self.files if not is_glob(entry.path))

    @cached_property
    def selection(self) -> Selection:
        """The globs, compiled."""
        return Selection(
            include=self.watch.include,
            exclude=self.watch.exclude,
            required=[entry.path for entry in self.files if entry.required and is_glob(entry.path)],
            named=self.named_files(),
            reserved=self.own_folders,
        )

    @cached_property
    def own_folders(self) -> tuple[str, ...]:
        """Our folders inside `data_dir`, relative to it, as they are spelled and as the file system sees them."""
        folders = [self.backup_dir, self.temp_dir, self.state_dir]
        former = os.path.join(self.data_dir, "backups")  # the default, left behind when backup_dir was moved
        if os.path.exists(os.path.join(former, ".agent", "format")):
            folders.append(former)
        spelled = {os.path.relpath(folder, self.data_dir) for folder in folders}
        real = {os.path.relpath(os.path.realpath(folder), os.path.realpath(self.data_dir)) for folder in folders}
        return tuple(sorted(rel for rel in spelled | real if rel.split("/")[0] not in (os.curdir, os.pardir)))

    @cached_property
    def _rules(self) -> tuple[dict[str, FileRule], list[tuple[Any, FileRule]], FileRule]:
        """The merged rules, one for each entry: exact ones by path, globs in order, and the one for all others."""
        rules = [(entry.path, self._merged(entry)) for entry in self.files]
        return (
            {normal(path): rule for path, rule in rules if not is_glob(path)},
            [(compile_globs([path]).fullmatch, rule) for path, rule in rules if is_glob(path)],
            replace(self._merged(FileEntry(path="*")), path=None),
        )

    def _merged(self, entry: FileEntry) -> FileRule:
        default = self.recovery
        differing = asdict(entry.suspect) if entry.suspect else {}
        schema = entry.schema if isinstance(entry.schema, dict) else None  # a path was replaced by its content on load
        return FileRule(
            path=normal(entry.path),
            required=entry.required,
            check=CheckSpec(parser=entry.parser, schema=schema),
            on_corrupt=entry.on_corrupt or default.on_corrupt,
            on_invalid=entry.on_invalid or default.on_invalid,
            on_missing=entry.on_missing or ("restore" if entry.required else default.on_missing),
            suspect=replace(default.suspect, **{key: value for key, value in differing.items() if value is not None}),
        )
