"""Bytes in, `CheckResult` out; one module per format."""

import os
from pathlib import Path

from agent.checks.json_format import check_json, json_warnings
from agent.core.json_text import cut_short, lacks_its_end
from agent.core.model import CheckResult, CheckSpec, Grade, Problem

CHILD_ABOVE_BYTES = 4 << 20
CHILD_TIMEOUT_S = 120.0
_GLANCE_BYTES = 64


def check(
    content: bytes | os.PathLike[str],
    spec: CheckSpec,
    *,
    child_above_bytes: int = CHILD_ABOVE_BYTES,
    child_timeout_s: float = CHILD_TIMEOUT_S,
    wants_warnings: bool = True,
) -> CheckResult:
    """Return the grade of captured bytes, with places a person can find and, where they parse, their shape.

    A path names a private copy, which nobody else writes: it may be mapped.  More than `child_above_bytes` are
    checked in a child process, so that this one neither grows nor stalls nor dies with a parser.  Grades: good,
    suspect (`Parser.NODE` alone: invalid UTF-8, which Node reads with losses), invalid, corrupt, and unreadable for
    what no judge can decide.  Problems and warnings are few, and quote no data; a child warns whether it was asked to.

    Raises:
        OSError: the private copy cannot be read; that says nothing about the data.
    """
    size_bytes = len(content) if isinstance(content, bytes) else os.stat(content).st_size
    if size_bytes > child_above_bytes:
        from agent.checks.child import check_in_child

        return check_in_child(content, spec, timeout_s=child_timeout_s)
    text = content if isinstance(content, bytes) else Path(content).read_bytes()
    return check_json(text, spec, wants_warnings=wants_warnings)


def glance(content: bytes | os.PathLike[str]) -> CheckResult | None:
    """Return what `check` would grade a text that was cut short, by its ends alone; None where they leave it open.

    Only `check` tells the place, and the kind where there is another flaw before the cut.

    Raises: as `check`.
    """
    if isinstance(content, bytes):
        head, tail = content[:_GLANCE_BYTES], content[-_GLANCE_BYTES:]
    else:
        with open(content, "rb") as file:
            head = file.read(_GLANCE_BYTES)
            file.seek(-min(_GLANCE_BYTES, os.fstat(file.fileno()).st_size), os.SEEK_END)
            tail = file.read()
    if not lacks_its_end(head, tail):
        return None
    flaw = cut_short(tail)
    return CheckResult(Grade.CORRUPT, problems=(Problem(flaw.kind, flaw.message),))


def warnings_of(content: bytes, spec: CheckSpec) -> tuple[Problem, ...]:
    """Return the warnings about bytes that a check without them found good: for after what is urgent was done."""
    return json_warnings(content, spec)
