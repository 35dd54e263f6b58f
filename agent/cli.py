"""Arguments in, exit code out.

0 all is well; 1 an error; 2 wrong usage or config; 3 problems found or left; 4 nothing to restore from.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from agent import __version__
from agent.commands.caller import pasteable, remember_caller
from agent.core.errors import AgentError

VERBS = (
    "run", "init", "doctor", "demo", "check", "status", "list", "snapshot", "show", "diff", "restore", "repair",
    "migrate", "accept", "pin", "prune", "verify", "forget", "pause", "config", "schema", "completion",
)  # fmt: skip  # one module of agent.commands each
_IN_MODULE = {"unpin": "pin", "forget-record": "forget", "resume": "pause"}
_SHOWS_ALL = ("completion",)


_MEANT = {
    "history": "list", "versions": "list", "ls": "list", "undo": "restore", "rollback": "restore",
    "revert": "restore", "recover": "restore", "backup": "snapshot", "save": "snapshot", "cat": "show",
}  # fmt: skip  # what people call a verb elsewhere
_MEANT_OPTIONS = {"--record": "--key", "--id": "--key", "--time": "--at", "--date": "--at", "--when": "--at"}


class _Parser(argparse.ArgumentParser):
    """One that a wrong option is answered by: the verb's own, not that of the whole program."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.set_defaults(verb_parser=self)

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """End with the usage, and the option that may have been meant."""
        known = list(self._option_string_actions)
        word = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
        meant = [_MEANT_OPTIONS[word]] if _MEANT_OPTIONS.get(word) in known else []
        near = meant or (difflib.get_close_matches(word, known, n=1) if word else [])
        self.error(f"unrecognized arguments: {' '.join(words)}{f'; did you mean {near[0]}?' if near else ''}")


def build_parser(verbs: Sequence[str] = VERBS) -> argparse.ArgumentParser:
    """Return the parser of the command line, knowing `verbs`."""
    parser = _Parser(
        prog="backup-agent",
        description="Keeps a bot's data files from being lost.",
        epilog="Exit codes: 0 fine, 1 error, 2 wrong usage or config, 3 problems found or left, "
        "4 nothing to restore from.",
    )
    parser.add_argument("--version", action="version", version=f"backup-agent {__version__}")
    parser.set_defaults(command_line=parser)  # for the command that makes completion scripts of it
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for verb in verbs:
        importlib.import_module(f"agent.commands.{verb}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an `AgentError` becomes two lines on standard error and its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args, unknown = build_parser(_needed(words)).parse_known_args(words)
    if unknown:
        args.verb_parser.refuse(unknown)
    remember_caller(getattr(args, "config", None), getattr(args, "data_dir", None))
    try:
        return int(args.run(args))
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)
        print(f"hint: {pasteable(error.hint)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _needed(words: Sequence[str]) -> Sequence[str]:
    """The commands to load: the one that is named, so that the daemon stays small and an answer comes soon."""
    module = _IN_MODULE.get(words[0], words[0]) if words else ""
    if module in VERBS and module not in _SHOWS_ALL:
        return (module,)
    if not words or module in VERBS:
        return VERBS
    meant = [_MEANT[words[0]]] if words[0] in _MEANT else []
    for name in meant or difflib.get_close_matches(words[0], (*VERBS, *_IN_MODULE), n=1):
        print(f"did you mean `backup-agent {name}`?", file=sys.stderr)
    return VERBS


if __name__ == "__main__":
    sys.exit(main())
