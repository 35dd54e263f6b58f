"""What a verification read and found, and what the catalog remembers of the last ones."""

import json
from contextlib import suppress
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from agent.core.naming import display
from agent.disk.catalog import Catalog
from agent.workspace import Workspace

_NOTE = "verify"


class Trouble(StrEnum):
    """What is wrong with a file or a snapshot.  `unfit` alone is no failure: a schema has changed since."""

    ROTTEN = "rotten"
    GONE = "gone"
    UNREADABLE = "unreadable"
    NOT_GOOD = "not_good"
    NO_RESTORE_POINT = "no_restore_point"
    DRILL_FAILED = "drill_failed"
    UNFIT = "unfit"


class Finding(Struct, frozen=True):
    """One trouble: of the data file `rel`, or of its snapshot `name`."""

    kind: Trouble
    rel: str
    name: str | None
    what: str

    @property
    def is_failure(self) -> bool:
        return self.kind is not Trouble.UNFIT

    def __str__(self) -> str:
        return f"{display(self.name or self.rel)}: {self.what}"


class Report(Struct):
    """What was read, and what was found."""

    drill: bool = False
    file_count: int = 0
    snapshot_count: int = 0
    read_bytes: int = 0
    drilled_count: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def failures(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_failure]


class Results(Struct, frozen=True):
    """How the verifications of a folder ended; times are Unix times, 0 for never."""

    ended_at: float = 0.0
    verified_at: float = 0.0  # without a failure
    drilled_at: float = 0.0  # with a drill, and without a failure
    failure_count: int = 0


def last_results(catalog: Catalog) -> Results:
    """Return what the catalog remembers; nothing after it was lost."""
    with suppress(ValueError, TypeError):
        return Results(**json.loads(catalog.note(_NOTE) or "{}"))
    return Results()


def remember(ws: Workspace, report: Report) -> None:
    """The catalog knows how a verification of everything ended."""
    now = ws.clock.utc().timestamp()
    results = replace(last_results(ws.catalog), ended_at=now, failure_count=len(report.failures))
    if not report.failures:
        results = replace(results, verified_at=now, drilled_at=now if report.drill else results.drilled_at)
    ws.catalog.set_note(_NOTE, json.dumps(asdict(results)))
