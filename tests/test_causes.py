import pytest

from agent.causes import error_fields, refusal_of
from agent.core.errors import ReadBackError, SpaceBudgetError

FULL = OSError(28, "No space left on device", "/backups")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FULL, "disk_full"),
        (OSError(122, "Disk quota exceeded"), "disk_full"),
        (OSError(5, "Input/output error"), "io"),
        (ReadBackError("x", hint="y"), "read_back"),
        (SpaceBudgetError("x", hint="y"), "budget"),
    ],
)
def test_refusal_bears_its_reason(error: Exception, reason: str) -> None:
    assert refusal_of(error) == reason
    assert error_fields(error)["hint"]


def test_error_names_its_code_and_its_path() -> None:
    assert error_fields(FULL)["error"] == "ENOSPC (No space left on device): /backups"
