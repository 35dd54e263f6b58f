"""`completion`: scripts that make a shell complete the commands, from the parser itself."""

import argparse
import re
from collections.abc import Callable, Iterator

from agent.commands.tree import Command, Option, command_tree, every_command


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "completion",
        help="print a script that makes a shell complete the commands",
        description="Print a script that makes a shell complete commands, options and files.",
        epilog="examples:\n  backup-agent completion bash > ~/.local/share/bash-completion/completions/backup-agent\n"
        "  backup-agent completion zsh > ~/.zfunc/_backup-agent   # with fpath+=~/.zfunc before compinit\n"
        "  backup-agent completion fish > ~/.config/fish/completions/backup-agent.fish\n\nexit codes: 0 printed",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", metavar="SHELL", choices=sorted(_SCRIPTS), help="bash, fish or zsh")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(_SCRIPTS[args.shell](command_tree(args.command_line)), end="")
    return 0


# bash


def bash_script(root: Command) -> str:
    """Return a script for bash 4 or newer."""
    cases = "\n".join(_bash_cases(root))
    return f"""# bash completion of backup-agent; made by `backup-agent completion bash`
_backup_agent() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} path= words= values= files= word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $word" in
{_bash_paths(root)}
        esac
    done
    case $path in
{cases}
    esac
    case " $values " in
        *" $prev:DIR "*) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); compopt -o filenames; return ;;
        *" $prev:FILE "*) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames; return ;;
        *" $prev:WORD "*) return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    if [[ $cur != -* && $files ]]; then
        mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames
    fi
}}
complete -F _backup_agent backup-agent
"""


def _bash_paths(root: Command) -> str:
    found = [command.path for command in every_command(root) if command.path]
    lines = [f'            "{_joined(path[:-1])} {path[-1]}") path={_joined(path)} ;;' for path in found]
    return "\n".join(lines)


def _bash_cases(root: Command) -> Iterator[str]:
    for command in every_command(root):
        words = [word.path[-1] for word in command.words]
        words += [name for option in command.options for name in option.names]
        words += [choice for argument in command.arguments for choice in argument.choices]
        values = [f"{name}:{_kind(option)}" for option in command.options if option.value for name in option.names]
        files = "1" if any(_kind(argument) != "WORD" for argument in command.arguments) else ""
        sets = f'words="{" ".join(words)}" values="{" ".join(values)}" files={files}'
        yield f'        "{_joined(command.path)}") {sets} ;;'


def _joined(path: tuple[str, ...]) -> str:
    return "/".join(path)


def _kind(option: Option) -> str:
    return next((kind for kind in ("DIR", "FILE") if kind in option.value), "WORD")


# zsh


def zsh_script(root: Command) -> str:
    """Return a completion function for zsh."""
    functions = "\n".join(_zsh_function(command) for command in every_command(root))
    return f'#compdef backup-agent\n# made by `backup-agent completion zsh`\n\n{functions}\n_backup_agent "$@"\n'


def _zsh_function(command: Command) -> str:
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    if command.words:
        specs += ["'1: :->word'", "'*:: :->rest'"]
        listed = " ".join(_zsh_word(f"{_colons(word.path[-1])}:{_first_line(word.help)}") for word in command.words)
        calls = "\n".join(f"            {word.path[-1]}) {_zsh_name(word)} ;;" for word in command.words)
        after = f"""
    case $state in
        word) local -a words_here=({listed}); _describe command words_here ;;
        rest) case $line[1] in
{calls}
        esac ;;
    esac"""
    else:
        specs += [_zsh_argument(argument) for argument in command.arguments]
        after = ""
    arguments = " \\\n        ".join(["_arguments -C", *specs])
    local = "    local curcontext=$curcontext state line\n"
    return f"{_zsh_name(command)}() {{\n{local}    {arguments}{after}\n}}\n"


def _zsh_name(command: Command) -> str:
    return "_" + "_".join(("backup_agent", *command.path)).replace("-", "_")


def _zsh_option(option: Option) -> Iterator[str]:
    help = _zsh_text(option.help)
    for name in option.names:
        value = f":{_zsh_text(option.value)}:{_zsh_action(option)}" if option.value else ""
        yield _zsh_word(f"*{name}[{help}]{value}")


def _zsh_argument(argument: Option) -> str:
    return _zsh_word(f"*:{_zsh_text(argument.value)}:{_zsh_action(argument)}")


def _zsh_action(option: Option) -> str:
    if option.choices:
        return f"({' '.join(option.choices)})"
    return {"DIR": "_files -/", "FILE": "_files", "WORD": " "}[_kind(option)]


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", _first_line(text))


def _colons(text: str) -> str:
    return text.replace(":", r"\:")


def _zsh_word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# fish


_FISH_FUNCTIONS = """\
function __backup_agent_typed
    set -l typed (commandline -opc | string match -v -- '-*')
    string join -- \\n $typed[2..-1]
end
function __backup_agent_exactly
    set -l typed (__backup_agent_typed)
    test "$typed" = "$argv"
end
function __backup_agent_below
    set -l typed (__backup_agent_typed)
    set -l count (count $argv)
    test (count $typed) -ge $count; and test "$typed[1..$count]" = "$argv"
end
complete -c backup-agent -f"""


def fish_script(root: Command) -> str:
    """Return a script for fish 3 or newer."""
    lines = ["# fish completion of backup-agent; made by `backup-agent completion fish`", _FISH_FUNCTIONS]
    for command in every_command(root):
        when = " ".join(["__backup_agent_exactly" if command.words else "__backup_agent_below", *command.path])
        lines += [_fish_line(when, f"-a {word.path[-1]}", word.help) for word in command.words]
        lines += [_fish_line(when, _fish_option(option), option.help) for option in command.options]
        for argument in command.arguments:
            if argument.choices:
                lines.append(_fish_line(when, f"-a '{' '.join(argument.choices)}'", argument.help))
            elif _kind(argument) != "WORD":
                lines.append(_fish_line(when, "-F", ""))
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
    if not option.value:
        return names
    if option.choices:
        return f"{names} -x -a '{' '.join(option.choices)}'"
    return f"{names} -x -a '(__fish_complete_directories)'" if _kind(option) == "DIR" else (
        f"{names} -r -F" if _kind(option) == "FILE" else f"{names} -x"
    )  # fmt: skip


def _fish_line(when: str, what: str, help: str) -> str:
    told = f" -d {_fish_word(_first_line(help))}" if help else ""
    return f"complete -c backup-agent -n '{when}' {what}{told}"


def _fish_word(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


_SCRIPTS: dict[str, Callable[[Command], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
