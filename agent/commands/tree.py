"""The command line as data: every command and option that the parser knows, for completion and the manual page."""

import argparse
from collections.abc import Iterator

from msgspec import Struct

_REPEATED = {"?": "[{}]", "*": "[{} ...]", "+": "{} ..."}


class Option(Struct, frozen=True):
    """An option or argument; `value` is what it takes, empty for a switch, and `shown` how it stands in a synopsis."""

    names: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()
    shown: str = ""


class Command(Struct, frozen=True):
    """One command.  `path` is what is typed before its options, without the program: `("config", "check")`."""

    path: tuple[str, ...]
    help: str
    description: str
    epilog: str
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]
    words: tuple["Command", ...]  # what may follow


def command_tree(parser: argparse.ArgumentParser) -> Command:
    """Return the whole command line of `parser`."""
    return _command(parser, (), "")


def _command(parser: argparse.ArgumentParser, path: tuple[str, ...], help: str) -> Command:
    options: list[Option] = []
    arguments: list[Option] = []
    words: list[Command] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            words = [_command(inner, (*path, word), helps.get(word, "")) for word, inner in action.choices.items()]
        elif action.help is not argparse.SUPPRESS:
            (options if action.option_strings else arguments).append(_option(action))
    return Command(
        path, help, parser.description or "", parser.epilog or "",
        tuple(options), tuple(arguments), tuple(words),
    )  # fmt: skip


def _option(action: argparse.Action) -> Option:
    """Defaults that differ from machine to machine are not in a help text, so that this is the same everywhere."""
    takes = action.nargs != 0
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    text = (action.help or "") % {**vars(action), "prog": "backup-agent"} if action.help else ""
    choices = tuple(map(str, action.choices)) if action.choices else ()
    shown = value if not choices else f"{{{','.join(choices)}}}"
    shown = _REPEATED.get(str(action.nargs), "{}").format(shown)
    return Option(tuple(action.option_strings), value if takes else "", text, choices, shown if takes else "")


def every_command(command: Command) -> Iterator[Command]:
    """Yield `command` and all that may follow it, in the order of the help."""
    yield command
    for word in command.words:
        yield from every_command(word)
