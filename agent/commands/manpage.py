"""The manual page, made from the parser; `docs/make_manual.py` writes it."""

from collections.abc import Iterator

from agent.commands.tree import Command, Option, every_command

_CODES = (
    ("0", "All is well."),
    ("1", "An error; a line beginning with hint: on standard error has the next step."),
    ("2", "Wrong usage, or a config that cannot be used."),
    ("3", "Problems were found, or are left."),
    ("4", "There is nothing to restore from."),
)


def manual_page(root: Command) -> str:
    """Return the page for section 1 in the man macros (groff_man(7)), the same on every machine."""
    return "\n".join(_page(root)) + "\n"


def _page(root: Command) -> Iterator[str]:
    yield '.\\" Made from the parser by docs/make_manual.py'
    yield '.TH BACKUP\\-AGENT 1 "" "backup\\-agent" "User Commands"'
    yield ".SH NAME"
    yield f"backup\\-agent \\- {_escaped(root.description[0].lower() + root.description[1:].rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield ".B backup\\-agent"
    yield "COMMAND [options]"
    yield ".SH DESCRIPTION"
    yield from _text(
        "It runs beside a bot, keeps a snapshot of every good state of its JSON files, and when a file breaks, it puts "
        "the newest good state back.  All commands but run work beside a running agent and without one."
    )
    yield ".SH COMMANDS"
    for command in every_command(root):
        if command.path and not command.words:
            yield from _section(command)
    yield ".SH EXIT STATUS"
    for code, meaning in _CODES:
        yield from (".TP", f".B {code}", *_text(meaning))
    yield ".SH ENVIRONMENT"
    yield from (".TP", ".B BACKUP_AGENT_CONFIG", "The config file, where no")
    yield from (".B \\-\\-config", "names one.")
    yield ".SH SEE ALSO"
    yield from _text("README.md, config.example.yaml and docs/systemd.md of the project.")


def _section(command: Command) -> Iterator[str]:
    shown = " ".join(["backup-agent", *command.path, *(argument.shown for argument in command.arguments)])
    yield f'.SS "{_escaped(shown)}"'
    yield from _text(command.description)
    for option in (*command.arguments, *command.options):
        if option.names != ("-h", "--help"):
            yield from (".TP", _named(option), *_text(option.help))
    if command.epilog:
        yield from (".PP", ".EX", *map(_line, command.epilog.splitlines()), ".EE")


def _named(option: Option) -> str:
    """The line that names an option or argument, in bold what is typed as it stands."""
    names = ", ".join(option.names)
    if not names:
        return f".I {_escaped(option.value)}"
    return f'.BI "{_escaped(names)}" " {_escaped(option.value)}"' if option.value else f'.B "{_escaped(names)}"'


def _text(text: str) -> Iterator[str]:
    yield from (_line(line) for line in text.splitlines())


def _line(line: str) -> str:
    escaped = _escaped(line)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    return (
        text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("~", "\\(ti").replace("^", "\\(ha")
    )
