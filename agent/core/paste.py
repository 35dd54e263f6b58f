"""Commands in texts for people: such that they can be pasted into a shell as they are."""

import re

from agent.core.naming import display

VERBS_WITH_CONFIG = (
    "run", "doctor", "check", "status", "list", "snapshot", "show", "diff", "restore", "repair", "migrate", "accept",
    "pin", "unpin", "prune", "verify", "forget-record", "pause", "resume", "config check",
    "schema infer",
)  # fmt: skip
_COMMAND = re.compile(rf"\bbackup-agent (?:{'|'.join(VERBS_WITH_CONFIG)})(?![\w-])(?! --(?:config|data-dir)\b)")


def with_options(text: str, options: str) -> str:
    """Return `text` with `options` behind the verb of each command of ours in it that has none of them."""
    return _COMMAND.sub(lambda found: f"{found[0]} {options}", text) if options else text


def shell_word(path: str) -> str:
    """Return how to type `path` in a command that is shown to a person; as `display` shows it where it needs quotes."""
    shown = display(path)
    plain = bool(shown) and all(c.isalnum() or c in "@%_+=:,./-" for c in shown)
    return shown if plain else "'" + shown.replace("'", "'\"'\"'") + "'"
