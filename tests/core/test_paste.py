import pytest

from agent.cli import build_parser
from agent.commands.tree import Command, command_tree, every_command
from agent.core.paste import VERBS_WITH_CONFIG, shell_word, with_options


def test_every_command_in_a_hint_gets_the_options() -> None:
    hint = "`backup-agent accept a.json` if this is meant, else `backup-agent restore a.json`"

    told = with_options(hint, "--config b.yaml")

    assert told == (
        "`backup-agent accept --config b.yaml a.json` if this is meant, else `backup-agent restore --config b.yaml a.json`"
    )


@pytest.mark.parametrize(
    "text",
    [
        "run the newer backup-agent that wrote it",
        "let `backup-agent init` write one",
        "`backup-agent config schema` prints it",
        "backup-agent doctor --config other.yaml",
        "a backup-agent checkup",
    ],
)
def test_what_takes_no_options_or_has_them_stays(text: str) -> None:
    assert with_options(text, "--config b.yaml") == text


def test_without_options_nothing_is_added() -> None:
    assert with_options("`backup-agent status`", "") == "`backup-agent status`"


def test_the_verbs_are_those_that_the_command_line_gives_the_options_to() -> None:
    def takes_config(command: Command) -> bool:
        return any("--config" in option.names for option in command.options)

    commands = filter(takes_config, every_command(command_tree(build_parser())))

    assert {" ".join(command.path) for command in commands} == set(VERBS_WITH_CONFIG)


@pytest.mark.parametrize(
    ("path", "typed"), [("a/b-1.json", "a/b-1.json"), ("my file", "'my file'"), ("it's", "'it'\"'\"'s'"), ("", "''")]
)
def test_a_path_is_shown_as_it_is_typed(path: str, typed: str) -> None:
    assert shell_word(path) == typed
