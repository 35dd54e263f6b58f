"""What the documents say is so: their commands run, their configs load, their metrics and links exist."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.cli import build_parser
from agent.commands.demo_damages import DAMAGES
from agent.config import load_config
from agent.metrics import Metrics

ROOT = Path(__file__).parent.parent
DOCUMENTS = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))]  # fmt: skip
BLOCK_LIMIT_S = 120.0

# Blocks that no test runs, by document and the beginning of the block, with the reason.
NOT_RUN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q . "): "it guards until stopped; see below",
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q -e"): ".ci/run runs this very line",
    ("README.md", "backup-agent demo"): "tests/commands/test_demo.py runs it",
    ("docs/systemd.md", ""): "it takes root and a booted systemd; tests/systemd/trial.py does the same in a container",
}
LANGUAGES = {"sh", "text", "yaml", "ini", "promql", ""}


@dataclass(frozen=True)
class Block:
    document: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        return not any(self.document == name and self.text.startswith(start) for name, start in NOT_RUN)


def blocks_of(document: str) -> list[Block]:
    """The fenced blocks, also those of list items."""
    fences = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [Block(document, f[2], re.sub(rf"^{f[1]}", "", f[3], flags=re.MULTILINE)) for f in fences]


def blocks(language: str) -> list[Block]:
    return [block for document in DOCUMENTS for block in blocks_of(document) if block.language == language]


def exposition() -> str:
    metrics = Metrics("0")
    metrics.limit_file_labels(named=[], others_max=1)
    metrics.set_file_times("users.json", 1.0, 1.0)
    return metrics.expose()[1].decode()


def verbs() -> set[str]:
    (subparsers,) = [a for a in build_parser()._actions if a.choices]
    return set(subparsers.choices or ())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_what_it_is(document: str) -> None:
    assert {block.language for block in blocks_of(document)} <= LANGUAGES


def test_every_exception_from_running_is_needed() -> None:
    for name, start in NOT_RUN:
        assert any(b.document == name and b.text.startswith(start) for b in blocks("sh")), (name, start)


@pytest.mark.parametrize("document", sorted({b.document for b in blocks("sh") if b.is_run}))
def test_every_command_of_a_document_succeeds_in_its_order(document: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "config.example.yaml", tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks_of(document):
        if block.language != "sh" or not block.is_run:
            continue
        code, said = run_block(block.text, tmp_path, {**os.environ, "PATH": path})
        assert code == 0, f"{block.text}\n{said}"


def run_block(text: str, folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output; what the block left running when it failed is ended, and holds nothing up."""
    with tempfile.TemporaryFile("w+") as said:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environ, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = shell.wait(BLOCK_LIMIT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        said.seek(0)
        return code, said.read()


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda b: b.document)
def test_every_config_in_a_document_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block.text)

    assert load_config(str(path), None, {})


def test_readme_is_tested_by_the_line_it_tells() -> None:
    """`.ci/run` takes the line that this pattern finds, so it must find exactly one."""
    pattern = re.search(r"grep -E '(.*)' README.md", (ROOT / ".ci/run").read_text())

    assert pattern is not None
    assert len(re.findall(pattern[1], (ROOT / "README.md").read_text(), re.MULTILINE)) == 1


def test_readme_shows_the_demo_as_it_is() -> None:
    shown = next(b.text for b in blocks("text") if "side by side" in b.text)

    assert all(damage.title in shown for damage in DAMAGES)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_metric_named_in_a_document_is_exported(document: str) -> None:
    named = set(re.findall(r"\bbackup_agent_\w*[a-z]\b", (ROOT / document).read_text()))

    assert named <= set(re.findall(r"^(\w+)", exposition(), re.MULTILINE))


@pytest.mark.parametrize("block", blocks("promql"), ids=lambda b: b.document)
def test_every_label_of_an_alert_is_exported(block: Block) -> None:
    chosen = re.findall(r'(backup_agent_\w+)\{(\w+)(!?=)"(\w+)"\}', block.text)

    assert chosen
    for metric, label, _, value in chosen:
        assert re.search(rf'^{metric}\{{(.*,)?{label}="{value}"', exposition(), re.MULTILINE), (metric, label, value)


@pytest.mark.parametrize("block", blocks("promql"), ids=lambda b: b.document)
def test_every_alert_is_an_expression_that_prometheus_takes(block: Block, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    expressions = [line for line in block.text.splitlines() if line and not line.startswith("#")]
    rules = "".join(f"  - alert: A{n}\n    expr: '{expr}'\n" for n, expr in enumerate(expressions))
    path = tmp_path / "rules.yaml"
    path.write_text(f"groups:\n- name: readme\n  rules:\n{rules}")

    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(expressions)} rules found" in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_verb_named_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    spans = [block.text for block in blocks_of(document)] + re.findall(r"`([^`\n]+)`", text)
    named = {verb for span in spans for verb in re.findall(r"(?:^|[\s/`])backup-agent ([a-z]+)\b", span)}

    assert named <= verbs()


def test_every_verb_is_in_the_readme() -> None:
    rows = "\n".join(
        line.split("|")[1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")
    )

    assert {verb for verb in verbs() if f"`{verb}" not in rows} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_file_leads_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text())

    assert [link for link in links if ":" not in link and not (ROOT / document).parent.joinpath(link).exists()] == []


def test_readme_leads_to_the_full_config() -> None:
    assert "(config.example.yaml)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("document", ["docs/design.md"])
def test_every_module_named_in_the_design_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    prose = re.sub(r"^## Where later parts go.*", "", text, flags=re.DOTALL | re.MULTILINE)
    named = re.findall(r"`((?:core|disk|checks|commands|config|metrics|web)/\w+)`", prose)

    assert named
    assert [name for name in named if not (ROOT / "agent" / f"{name}.py").exists()] == []
