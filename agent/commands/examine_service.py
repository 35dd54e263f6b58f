"""Whether the agent runs, and whether the bot waits for it, as far as systemd knows."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

from agent.commands.finding import Case, Finding, ok, warn
from agent.commands.running import doubts_of_daemon

_BOOTED = "/run/systemd/system"  # sd_booted(3)
_UNIT = "backup-agent.service"
_LIMIT_S = 10.0
_DROP_IN = "install the drop-in for the bot's unit, see docs/systemd.md"


def examine_service(case: Case) -> Iterator[Finding]:
    """Yield what is found of the daemon and its unit."""
    if case.daemon is None:
        yield warn("agent", "not running", "backup-agent run")
    else:
        yield ok("agent", f"running as process {case.daemon}")
    for aspect, what, step in doubts_of_daemon(case.config.state_dir, case.config_path):
        yield warn(aspect, what, step)
    yield _unit(case)


def _unit(case: Case) -> Finding:
    if shutil.which("systemctl") is None or not os.path.isdir(_BOOTED):
        return ok("unit", "not under systemd")
    name = _unit_of(case.daemon) or _UNIT
    told = _show(name)
    if told.get("LoadState") != "loaded":
        return ok("unit", "not under systemd: no unit of the agent was found")
    if not told.get("Type", "").startswith("notify"):
        return warn(
            "unit", f"{name} does not wait for readiness (Type={told.get('Type', '')})",
            "set Type=notify, so that a bot that starts after it starts on checked data",
        )  # fmt: skip
    after = set(told.get("Before", "").split())
    wanting = set(f"{told.get('WantedBy', '')} {told.get('RequiredBy', '')}".split())
    services = sorted(unit for unit in after & wanting if unit.endswith(".service"))
    if not services:
        return warn("unit", f"{name}: no bot waits for it", _DROP_IN)
    return ok("unit", f"{name}: {', '.join(services)} starts after its gate and stops before it")


def _unit_of(daemon: int | None) -> str | None:
    """The unit that the daemon runs in, from its control group (cgroups(7))."""
    if daemon is None:
        return None
    try:
        with open(f"/proc/{daemon}/cgroup", encoding="utf-8", errors="replace") as stream:
            found = re.findall(r"/([^/\n]*backup-agent[^/\n]*\.service)$", stream.read(), re.MULTILINE)
    except OSError:
        return None
    return found[-1] if found else None


def _show(unit: str) -> dict[str, str]:
    """Return what systemd says of the unit; nothing where it does not answer."""
    names = ("LoadState", "Type", "Before", "WantedBy", "RequiredBy")
    words = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT_S, check=False)  # noqa: S603  # no shell; a fixed program
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
