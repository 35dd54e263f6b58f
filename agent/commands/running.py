"""How the agent that runs differs from what the caller's command works by."""

import os

from agent.commands.caller import CONFIG_NAME
from agent.config.fingerprint import fingerprint
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.disk.lock import daemon_about, daemon_pid


def doubts_of_daemon(state_dir: str, config: str | None) -> list[tuple[str, str, str]]:
    """Return aspect, what is wrong, and the next step of each; `config` is the file that the command works by."""
    about = daemon_about(state_dir)
    if "config" not in about:
        return []
    doubts, theirs = [], about["config"]
    if not _same(theirs, config):
        named = display(theirs) if theirs else "no config file"
        what = f"the running agent works by {named}, this command by {display(config) if config else 'none'}"
        doubts.append(("running config", what, _step(state_dir, theirs, config)))
    elif theirs and _was_changed(theirs, about.get("fingerprint")):
        what = f"{display(theirs)}, or a schema that it names, was changed after the agent read it"
        doubts.append(("running config", what, f"{step_after_new_config(state_dir, theirs)}, or reload its service"))
    if about.get("metrics"):
        what = "the running agent serves no metrics: another program had the port when it started"
        doubts.append(("metrics", what, "set metrics.listen to a free port, or `off`, and restart the agent"))
    return doubts


def step_after_new_config(state_dir: str, path: str) -> str | None:
    """Return what makes the agent that runs work by the config that was written to `path`; None without an agent."""
    pid = daemon_pid(state_dir)
    if pid is None:
        return None
    about = daemon_about(state_dir)
    theirs = about.get("config")
    reads_it = _same(theirs, path) if theirs or "config" not in about else _would_be_found(pid, path)
    return f"kill -HUP {pid}" if reads_it else f"restart the agent with --config {shell_word(path)}"


def _step(state_dir: str, theirs: str | None, ours: str | None) -> str:
    if theirs:
        return f"say --config {shell_word(theirs)}, or restart the agent with the config that is meant"
    return step_after_new_config(state_dir, ours or "") or ""


def _was_changed(path: str, was: str | None) -> bool:
    now = fingerprint(path, os.environ)
    return None not in (was, now) and was != now


def _would_be_found(pid: int, path: str) -> bool:
    """Whether the process, which has no config, finds this one where it stands."""
    try:
        home = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False
    return os.path.join(home, CONFIG_NAME) == os.path.realpath(path)


def _same(one: str | None, other: str | None) -> bool:
    return (one and os.path.realpath(one)) == (other and os.path.realpath(other))
