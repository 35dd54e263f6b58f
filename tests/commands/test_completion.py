import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import build_parser, main
from agent.commands.completion import bash_script, fish_script, zsh_script
from agent.commands.tree import command_tree, every_command

ROOT = command_tree(build_parser())
SCRIPTS = {"bash": bash_script(ROOT), "zsh": zsh_script(ROOT), "fish": fish_script(ROOT)}


def bash_completes(folder: Path, *words: str) -> list[str]:
    (folder / "script").write_text(SCRIPTS["bash"])
    (folder / "ask").write_text(
        "source ./script\ncompopt() { :; }\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _backup_agent\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    asked = ["bash", "ask", "backup-agent", *words]
    return subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["resu"], ["resume"]),
        (["config", ""], ["check", "schema", "-h", "--help"]),
        (["config", "check", "--js"], ["--json"]),
        (["schema", "in"], ["infer"]),
        (["check", "--config", "ag"], ["agent file.yaml"]),
        (["run", "--data-dir", "da"], ["data"]),
        (["check", "da"], ["data"]),
        (["completion", "z"], ["zsh"]),
        (["status", "da"], []),
    ],
)
def test_bash_completes_what_the_parser_takes(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "agent file.yaml").touch()

    assert [word for word in bash_completes(tmp_path, *words) if word] == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_in_every_script(shell: str) -> None:
    for command in every_command(ROOT):
        for word in (*command.path, *(name for option in command.options for name in option.names)):
            spelled = f"-l {word[2:]}" if shell == "fish" and word.startswith("--") else word
            assert spelled in SCRIPTS[shell], (command.path, word)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(SCRIPTS[shell])

    done = subprocess.run([shell, "-n", "script"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_verb_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == SCRIPTS["bash"]
