"""Why something was not done, as a line of the log says it and as a metric counts it."""

import errno

from agent.core.errors import AgentError, ReadBackError, SpaceBudgetError
from agent.core.labels import Refusal, Skip
from agent.core.naming import display
from agent.disk.atomic import is_disk_full

_SKIPS = {skip.value: skip for skip in Skip}


def skip_of(reason: str) -> Skip:
    """Return the label for an entry that is no data file, from what the walk or the capture says of it."""
    return _SKIPS.get(reason, Skip.OTHER)


def refusal_of(error: Exception | None) -> Refusal:
    """Return the label for a snapshot that was not published because of `error`."""
    if isinstance(error, SpaceBudgetError):
        return Refusal.BUDGET
    if isinstance(error, ReadBackError):
        return Refusal.READ_BACK
    return Refusal.DISK_FULL if is_disk_full(error) else Refusal.IO


def error_fields(error: Exception | None) -> dict[str, str]:
    """Return what to say of an error: what is wrong, and the next step where there is one."""
    fields = {"error": error_text(error) or ""}
    if isinstance(error, AgentError):
        fields["hint"] = error.hint
    elif is_disk_full(error):
        fields["hint"] = "free space on that disk; it is tried again by itself"
    elif isinstance(error, OSError):
        fields["hint"] = "nothing was changed; it is tried again by itself"
    return fields


def error_text(error: Exception | None) -> str | None:
    """Return what is wrong, with the code and the path where there are such; None without an error."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {display(str(error.filename))}" if error.filename else ""
        return f"{errno.errorcode.get(error.errno, error.errno)} ({error.strerror}){where}"
    return str(error)
