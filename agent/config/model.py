"""The settings of the agent: plain numbers, absolute paths, frozen.  Their docs are what the editor's schema shows.

Each attribute is the YAML key of the same name; one that counts seconds has `_s` after it, one that counts bytes
`_bytes`.  The values written here are the only defaults there are.
"""

import os
from functools import cached_property
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import asdict, force_setattr, replace

from agent.config.selection import Selection, compile_globs, is_glob, normal
from agent.config.units import parse_address
from agent.core.model import CheckSpec, Parser
from agent.core.notice import FAILURES, NoticeKind


def _doc(text: str, *, unset: str | None = None, **limits: Any) -> Meta:
    """Describe one key; `unset` is the word that stands for None in the file."""
    return Meta(description=text, extra={"unset": unset} if unset else None, **limits)


Seconds = Annotated[float, Meta(extra={"unit": "duration"})]
Bytes = Annotated[int, Meta(extra={"unit": "size"})]
Text = Annotated[str, Meta(min_length=1)]
Argv = Annotated[tuple[Text, ...], Meta(min_length=1)]

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
CountFromOne = Annotated[int, Meta(ge=1, le=1_000_000)]
Fraction = Annotated[float, Meta(ge=0, le=1)]

OnCorrupt = Literal["restore", "alert"]
OnInvalid = Literal["repair", "restore", "alert"]
OnMissing = Literal["alert", "restore"]


class Section(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename=lambda name: name.removesuffix("_s"),
):
    """A group of keys."""


class Watch(Section, frozen=True):
    """Which files are looked after, and when a change counts as finished."""

    include: Annotated[
        tuple[Text, ...],
        _doc("Globs of the data files, relative to data_dir: * stays in one folder, **/ is any number of folders."),
    ] = ("**/*.json",)
    exclude: Annotated[
        tuple[Text, ...], _doc("Globs of files left alone; one that matches a folder covers everything in it.")
    ] = ()
    debounce_s: Annotated[Seconds, _doc("A changed file is looked at when it has been quiet for this long.")] = 2.0
    max_delay_s: Annotated[Seconds, _doc("... and this long after its first change at the latest.")] = 30.0
    rescan_s: Annotated[
        Seconds, _doc("Time between two walks that find what no event told; large trees stretch it.", ge=1)
    ] = 30.0
    mode: Annotated[
        Literal["auto", "events", "polling"],
        _doc("auto takes kernel events where they arrive and falls back to polling where they do not."),
    ] = "auto"
    max_file_size_bytes: Annotated[Bytes, _doc("A larger file is reported as unreadable and not backed up.", ge=1)] = (
        field(name="max_file_size", default=2 * 1024**3)
    )


class Retention(Section, frozen=True):
    """How many good snapshots of each file are kept; what any one rule keeps, stays."""

    keep_last: Annotated[Count, _doc("The newest ones.")] = 10
    keep_intervals: Annotated[Count, _doc("One for each of the newest backup.interval spans.")] = 12
    keep_within_s: Annotated[Seconds | None, _doc("Every one that is younger than this.", unset="none")] = None
    keep_hourly: Annotated[Count, _doc("One for each of the newest hours.")] = 24
    keep_daily: Annotated[Count, _doc("One for each of the newest days.")] = 7
    keep_weekly: Annotated[Count, _doc("One for each of the newest weeks.")] = 0
    keep_monthly: Annotated[Count, _doc("One for each of the newest months.")] = 0
    keep_yearly: Annotated[Count, _doc("One for each of the newest years.")] = 0
    minimum_good: Annotated[
        CountFromOne, _doc("This many good ones stay, whatever the other rules and the space budget say.")
    ] = 1
    keep_replaced_s: Annotated[
        Seconds, _doc("What a restore by hand took the place of, and what it put there, stay this long.")
    ] = 604_800.0
    keep_deleted_s: Annotated[
        Seconds | None, _doc("How long the snapshots of a file that is gone are kept.", unset="forever")
    ] = None


class Backup(Section, frozen=True):
    """How snapshots are stored, and how much room they may take."""

    interval_s: Annotated[Seconds, _doc("The finest span of rotation, see retention.keep_intervals.", ge=1)] = 300.0
    compression: Annotated[
        Literal["none", "gzip", "zstd"], _doc("none keeps snapshots as plain files that cp restores.")
    ] = "none"
    packing: Annotated[
        bool, _doc("Old snapshots hold only what differs from a full copy nearby; takes compression: zstd.")
    ] = False
    retention: Annotated[Retention, _doc("How many good snapshots of each file are kept.")] = field(
        default_factory=Retention
    )
    max_total_size_bytes: Annotated[
        Bytes | None, _doc("All snapshots together; beyond it the oldest are thinned out.", unset="none")
    ] = field(name="max_total_size", default=None)
    min_free_bytes: Annotated[Bytes | None, _doc("Free space to be left on the disk of backup_dir.", unset="none")] = (
        field(name="min_free", default=None)
    )
    keep_suspect: Annotated[CountFromOne, _doc("Suspect snapshots kept for each file.")] = 20
    keep_quarantined: Annotated[CountFromOne, _doc("Damaged states kept for each file.")] = 20


class Suspect(Section, frozen=True):
    """When a state that parses is held back because it collapsed against the last good one."""

    enabled: Annotated[bool, _doc("Compare each state with the last good one.")] = True
    min_fraction: Annotated[
        Fraction, _doc("Suspect below this part of the records or bytes of the last good state.")
    ] = 0.5
    min_records: Annotated[Count, _doc("Records are compared when there were at least this many.")] = 5
    min_bytes: Annotated[Bytes, _doc("Bytes are compared when there were at least this many.")] = 1024


class Recovery(Section, frozen=True):
    """What is done about damage."""

    on_corrupt: Annotated[OnCorrupt, _doc("A file that cannot be parsed.")] = "restore"
    on_invalid: Annotated[
        OnInvalid, _doc("A file that breaks its schema; repair mends the fields and keeps newer data.")
    ] = "repair"
    on_missing: Annotated[
        OnMissing, _doc("A file that is gone; a required one is restored unless its rule says not.")
    ] = "alert"
    heal_attempts: Annotated[
        CountFromOne, _doc("Heals of one damage that keeps coming back, before the agent stops and alerts.")
    ] = 3
    clobber_window_s: Annotated[
        Seconds, _doc("Damage that is back within this time was written by the bot, from its memory.")
    ] = 60.0
    missing_grace_s: Annotated[Seconds, _doc("A file counts as missing when it has been gone for this long.")] = 5.0
    swap_grace_s: Annotated[Seconds, _doc("Wait for a write of the bot that races a restore.", le=1)] = 0.005
    suspect: Annotated[Suspect, _doc("When a file that parses is held back as collapsed.")] = field(
        default_factory=Suspect
    )


class Bot(Section, frozen=True):
    """The commands that stop and start the bot around a heal; argument lists, no shell."""

    stop: Annotated[Argv, _doc("Stops the bot and returns when it is stopped.")]
    start: Annotated[Argv, _doc("Starts the bot.")]
    timeout_s: Annotated[Seconds, _doc("Limit of each of the two commands.", ge=1)] = 90.0


class Notify(Section, frozen=True):
    """Who is told, beside log and metrics; secrets belong in the environment: ${VAR}."""

    urls: Annotated[
        tuple[Text, ...], _doc("Addresses for Apprise (extra notify): discord://, mailto://, ntfy:// and others.")
    ] = ()
    command: Annotated[
        Argv | None, _doc("A program that is told on its standard input, as one line of JSON; no shell.")
    ] = None
    events: Annotated[tuple[NoticeKind, ...], _doc("Which events are told; healed is not among them unless named.")] = (
        FAILURES
    )
    min_interval_s: Annotated[
        Seconds, _doc("The same event of the same file is told once in this time; 20 events in all.")
    ] = 600.0

    def __repr__(self) -> str:
        return "Notify(...)"  # the addresses hold secrets


class Verify(Section, frozen=True):
    """How often everything is read back: live files and all snapshots."""

    every_s: Annotated[
        Annotated[Seconds, Meta(ge=1)] | None,
        _doc("Time between two verifications, by the agent itself; off: never.", unset="off"),
    ] = 86400.0
    drill: Annotated[bool, _doc("Restore every file aside, too, and compare.")] = True


class SuspectOverrides(Section, frozen=True):
    """What differs from recovery.suspect for these files."""

    enabled: Annotated[bool | None, _doc("As recovery.suspect.enabled.")] = None
    min_fraction: Annotated[Fraction | None, _doc("As recovery.suspect.min_fraction.")] = None
    min_records: Annotated[Count | None, _doc("As recovery.suspect.min_records.")] = None
    min_bytes: Annotated[Bytes | None, _doc("As recovery.suspect.min_bytes.")] = None


class FileEntry(Section, frozen=True):
    """A rule for one file or for the files of a glob; what it leaves out is as for every other file."""

    path: Annotated[
        Text, _doc("A path relative to data_dir, or a glob. An exact path beats globs, else the first wins.")
    ]
    required: Annotated[bool, _doc("The file must exist: when it is missing, it is restored.")] = False
    parser: Annotated[
        Parser, _doc("Whose eyes judge the file: node, python, or strict for what both of them read.")
    ] = Parser.STRICT
    schema: Annotated[
        dict[str, Any] | Text | None,
        _doc("JSON Schema 2020-12, in place or as the path of a JSON or YAML file relative to this one."),
    ] = None
    on_corrupt: Annotated[OnCorrupt | None, _doc("As recovery.on_corrupt.")] = None
    on_invalid: Annotated[OnInvalid | None, _doc("As recovery.on_invalid.")] = None
    on_missing: Annotated[OnMissing | None, _doc("As recovery.on_missing; a required file is restored.")] = None
    suspect: Annotated[SuspectOverrides | None, _doc("What differs from recovery.suspect.")] = None


class Metrics(Section, frozen=True):
    """The page that Prometheus reads."""

    listen: Annotated[str, _doc("HOST:PORT, or off.")] = "127.0.0.1:9184"
    max_file_labels: Annotated[
        Count,
        _doc("Files with a label of their own, beside those named in files; the rest are counted by rule."),
    ] = 100

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None when switched off."""
        return None if self.listen == "off" else parse_address(self.listen)


class Log(Section, frozen=True):
    """What is written to standard error."""

    format: Annotated[Literal["auto", "json", "console"], _doc("auto is console on a terminal and json elsewhere.")] = (
        "auto"
    )
    level: Annotated[Literal["debug", "info", "warning", "error"], _doc("The least grave lines that are written.")] = (
        "info"
    )


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

    data_dir: Annotated[Text, _doc("The folder of the bot's data files.")] = "./data"
    backup_dir: Annotated[str, _doc("Where snapshots are kept; default: backups in data_dir.", min_length=1)] = ""
    temp_dir: Annotated[
        str, _doc("Staging, on the file system of data_dir; default: temp in data_dir.", min_length=1)
    ] = ""
    state_dir: Annotated[
        str, _doc("Locks and catalog, on a local disk; default: .agent in backup_dir.", min_length=1)
    ] = ""
    shutdown_timeout_s: Annotated[Seconds, _doc("Time to capture pending files when asked to stop.", ge=1)] = 10.0
    watch: Annotated[Watch, _doc("Which files are looked after, and when a change counts as finished.")] = field(
        default_factory=Watch
    )
    backup: Annotated[Backup, _doc("How snapshots are stored, and how much room they may take.")] = field(
        default_factory=Backup
    )
    recovery: Annotated[Recovery, _doc("What is done about damage.")] = field(default_factory=Recovery)
    verify: Annotated[Verify, _doc("How often everything is read back.")] = field(default_factory=Verify)
    bot: Annotated[Bot | None, _doc("Commands that stop and start the bot around a heal.")] = None
    files: Annotated[tuple[FileEntry, ...], _doc("Rules for single files or globs.")] = ()
    notify: Annotated[Notify, _doc("Who is told, beside log and metrics.")] = field(default_factory=Notify)
    metrics: Annotated[Metrics, _doc("The page that Prometheus reads.")] = field(default_factory=Metrics)
    log: Annotated[Log, _doc("What is written to standard error.")] = field(default_factory=Log)

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
