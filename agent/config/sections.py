"""The keys of each section of the config, plain and frozen.  Their docs are what the editor's schema shows.

Each attribute is the YAML key of the same name; one that counts seconds has `_s` after it, one that counts bytes
`_bytes`.  The values written here are the only defaults there are.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from agent.config.units import parse_address
from agent.core.model import Parser
from agent.core.notice import FAILURES, NoticeKind


def doc(text: str, *, unset: str | None = None, **limits: Any) -> Meta:
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
        doc("Globs of the data files, relative to data_dir: * stays in one folder, **/ is any number of folders."),
    ] = ("**/*.json",)
    exclude: Annotated[
        tuple[Text, ...], doc("Globs of files left alone; one that matches a folder covers everything in it.")
    ] = ()
    debounce_s: Annotated[Seconds, doc("A changed file is looked at when it has been quiet for this long.")] = 2.0
    max_delay_s: Annotated[Seconds, doc("... and this long after its first change at the latest.")] = 30.0
    rescan_s: Annotated[
        Seconds, doc("Time between two walks that find what no event told; large trees stretch it.", ge=1)
    ] = 30.0
    mode: Annotated[
        Literal["auto", "events", "polling"],
        doc("auto takes kernel events where they arrive and falls back to polling where they do not."),
    ] = "auto"
    max_file_size_bytes: Annotated[Bytes, doc("A larger file is reported as unreadable and not backed up.", ge=1)] = (
        field(name="max_file_size", default=2 * 1024**3)
    )


class Retention(Section, frozen=True):
    """How many good snapshots of each file are kept; what any one rule keeps, stays."""

    keep_last: Annotated[Count, doc("The newest ones.")] = 10
    keep_intervals: Annotated[Count, doc("One for each of the newest backup.interval spans.")] = 12
    keep_within_s: Annotated[Seconds | None, doc("Every one that is younger than this.", unset="none")] = None
    keep_hourly: Annotated[Count, doc("One for each of the newest hours.")] = 24
    keep_daily: Annotated[Count, doc("One for each of the newest days.")] = 7
    keep_weekly: Annotated[Count, doc("One for each of the newest weeks.")] = 0
    keep_monthly: Annotated[Count, doc("One for each of the newest months.")] = 0
    keep_yearly: Annotated[Count, doc("One for each of the newest years.")] = 0
    minimum_good: Annotated[
        CountFromOne, doc("This many good ones stay, whatever the other rules and the space budget say.")
    ] = 1
    keep_replaced_s: Annotated[
        Seconds, doc("What a restore by hand took the place of, and what it put there, stay this long.")
    ] = 604_800.0
    keep_deleted_s: Annotated[
        Seconds | None, doc("How long the snapshots of a file that is gone are kept.", unset="forever")
    ] = None


class Backup(Section, frozen=True):
    """How snapshots are stored, and how much room they may take."""

    interval_s: Annotated[Seconds, doc("The finest span of rotation, see retention.keep_intervals.", ge=1)] = 300.0
    compression: Annotated[
        Literal["none", "gzip", "zstd"], doc("none keeps snapshots as plain files that cp restores.")
    ] = "none"
    packing: Annotated[
        bool, doc("Old snapshots hold only what differs from a full copy nearby; takes compression: zstd.")
    ] = False
    retention: Annotated[Retention, doc("How many good snapshots of each file are kept.")] = field(
        default_factory=Retention
    )
    max_total_size_bytes: Annotated[
        Bytes | None, doc("All snapshots together; beyond it the oldest are thinned out.", unset="none")
    ] = field(name="max_total_size", default=None)
    min_free_bytes: Annotated[Bytes | None, doc("Free space to be left on the disk of backup_dir.", unset="none")] = (
        field(name="min_free", default=None)
    )
    keep_suspect: Annotated[CountFromOne, doc("Suspect snapshots kept for each file.")] = 20
    keep_quarantined: Annotated[CountFromOne, doc("Damaged states kept for each file.")] = 20


class Suspect(Section, frozen=True):
    """When a state that parses is held back because it collapsed against the last good one."""

    enabled: Annotated[bool, doc("Compare each state with the last good one.")] = True
    min_fraction: Annotated[
        Fraction, doc("Suspect below this part of the records or bytes of the last good state.")
    ] = 0.5
    min_records: Annotated[Count, doc("Records are compared when there were at least this many.")] = 5
    min_bytes: Annotated[Bytes, doc("Bytes are compared when there were at least this many.")] = 1024


class Recovery(Section, frozen=True):
    """What is done about damage."""

    on_corrupt: Annotated[OnCorrupt, doc("A file that cannot be parsed.")] = "restore"
    on_invalid: Annotated[
        OnInvalid, doc("A file that breaks its schema; repair mends the fields and keeps newer data.")
    ] = "repair"
    on_missing: Annotated[
        OnMissing, doc("A file that is gone; a required one is restored unless its rule says not.")
    ] = "alert"
    heal_attempts: Annotated[
        CountFromOne, doc("Heals of one damage that keeps coming back, before the agent stops and alerts.")
    ] = 3
    clobber_window_s: Annotated[
        Seconds, doc("Damage that is back within this time was written by the bot, from its memory.")
    ] = 60.0
    missing_grace_s: Annotated[Seconds, doc("A file counts as missing when it has been gone for this long.")] = 5.0
    swap_grace_s: Annotated[Seconds, doc("Wait for a write of the bot that races a restore.", le=1)] = 0.005
    suspect: Annotated[Suspect, doc("When a file that parses is held back as collapsed.")] = field(
        default_factory=Suspect
    )


class Bot(Section, frozen=True):
    """The commands that stop and start the bot around a heal; argument lists, no shell."""

    stop: Annotated[Argv, doc("Stops the bot and returns when it is stopped.")]
    start: Annotated[Argv, doc("Starts the bot.")]
    timeout_s: Annotated[Seconds, doc("Limit of each of the two commands.", ge=1)] = 90.0


class Notify(Section, frozen=True):
    """Who is told, beside log and metrics; secrets belong in the environment: ${VAR}."""

    urls: Annotated[
        tuple[Text, ...], doc("Addresses for Apprise (extra notify): discord://, mailto://, ntfy:// and others.")
    ] = ()
    command: Annotated[
        Argv | None, doc("A program that is told on its standard input, as one line of JSON; no shell.")
    ] = None
    events: Annotated[tuple[NoticeKind, ...], doc("Which events are told; healed is not among them unless named.")] = (
        FAILURES
    )
    min_interval_s: Annotated[
        Seconds, doc("The same event of the same file is told once in this time; 20 events in all.")
    ] = 600.0

    def __repr__(self) -> str:
        return "Notify(...)"  # the addresses hold secrets


class Verify(Section, frozen=True):
    """How often everything is read back: live files and all snapshots."""

    every_s: Annotated[
        Annotated[Seconds, Meta(ge=1)] | None,
        doc("Time between two verifications, by the agent itself; off: never.", unset="off"),
    ] = 86400.0
    drill: Annotated[bool, doc("Restore every file aside, too, and compare.")] = True


class SuspectOverrides(Section, frozen=True):
    """What differs from recovery.suspect for these files."""

    enabled: Annotated[bool | None, doc("As recovery.suspect.enabled.")] = None
    min_fraction: Annotated[Fraction | None, doc("As recovery.suspect.min_fraction.")] = None
    min_records: Annotated[Count | None, doc("As recovery.suspect.min_records.")] = None
    min_bytes: Annotated[Bytes | None, doc("As recovery.suspect.min_bytes.")] = None


class FileEntry(Section, frozen=True):
    """A rule for one file or for the files of a glob; what it leaves out is as for every other file."""

    path: Annotated[
        Text, doc("A path relative to data_dir, or a glob. An exact path beats globs, else the first wins.")
    ]
    required: Annotated[bool, doc("The file must exist: when it is missing, it is restored.")] = False
    parser: Annotated[Parser, doc("Whose eyes judge the file: node, python, or strict for what both of them read.")] = (
        Parser.STRICT
    )
    schema: Annotated[
        dict[str, Any] | Text | None,
        doc("JSON Schema 2020-12, in place or as the path of a JSON or YAML file relative to this one."),
    ] = None
    on_corrupt: Annotated[OnCorrupt | None, doc("As recovery.on_corrupt.")] = None
    on_invalid: Annotated[OnInvalid | None, doc("As recovery.on_invalid.")] = None
    on_missing: Annotated[OnMissing | None, doc("As recovery.on_missing; a required file is restored.")] = None
    suspect: Annotated[SuspectOverrides | None, doc("What differs from recovery.suspect.")] = None


class Metrics(Section, frozen=True):
    """The page that Prometheus reads."""

    listen: Annotated[str, doc("HOST:PORT, or off.")] = "127.0.0.1:9184"
    max_file_labels: Annotated[
        Count,
        doc("Files with a label of their own, beside those named in files; the rest are counted by rule."),
    ] = 100

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None when switched off."""
        return None if self.listen == "off" else parse_address(self.listen)


class Log(Section, frozen=True):
    """What is written to standard error."""

    format: Annotated[Literal["auto", "json", "console"], doc("auto is console on a terminal and json elsewhere.")] = (
        "auto"
    )
    level: Annotated[Literal["debug", "info", "warning", "error"], doc("The least grave lines that are written.")] = (
        "info"
    )
