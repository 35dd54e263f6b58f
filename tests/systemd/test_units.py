"""The units as files: systemd accepts them, they are tight, each line of hardening says why, all tell the same paths."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
UNITS = PROJECT / "systemd"
AGENTS = ["backup-agent.service", "backup-agent@.service"]
DROP_INS = ["bot.service.d/backup-agent.conf", "instance.service.d/backup-agent.conf"]
PROGRAM = "/opt/backup-agent/bin/backup-agent"
EXPOSURE_MAX = 1.5
needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def directives(name: str) -> list[tuple[str, str]]:
    """Return key and value of each directive line, in order and with repeats."""
    lines = (UNITS / name).read_text().splitlines()
    return [(key, value) for key, _, value in (line.partition("=") for line in lines if re.match(r"\w+=", line))]


def installed(folder: Path) -> Path:
    """Copy the units to where a bot's unit finds them; the program is one that exists on this machine."""
    shutil.copytree(UNITS, folder, dirs_exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace(PROGRAM, shutil.which("true") or "/bin/true"))
    for bot in ("bot", "instance"):
        (folder / f"{bot}.service").write_text("[Service]\nExecStart=/bin/sleep infinity\n")
    return folder


@needs_systemd_analyze
@pytest.mark.parametrize(
    "unit", ["backup-agent.service", "backup-agent@alpha.service", "bot.service", "instance.service"]
)
def test_unit_is_accepted_by_systemd_without_a_word(unit: str, tmp_path: Path) -> None:
    folder = installed(tmp_path)
    (folder / "backup-agent@alpha.service").write_text((folder / "backup-agent@.service").read_text())

    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", str(folder / unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (verify.returncode, verify.stdout + verify.stderr) == (0, "")


@needs_systemd_analyze
@pytest.mark.parametrize("unit", AGENTS)
def test_agent_unit_is_hardly_exposed(unit: str, tmp_path: Path) -> None:
    security = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed(tmp_path) / unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    exposure = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", security.stdout)

    assert exposure, security.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize("unit", AGENTS)
def test_every_service_directive_of_the_agent_has_its_reason_above_it(unit: str) -> None:
    _, _, service = (UNITS / unit).read_text().partition("[Service]\n")
    lines = service.partition("[Install]")[0].splitlines()

    without = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if re.match(r"\w+=", line) and not above.startswith("# ") and not line.startswith(("User=", "ExecStart="))
    ]

    assert without == []


def test_instance_unit_differs_from_the_single_one_by_the_name_of_the_bot_alone() -> None:
    single, instance = (directives(name) for name in AGENTS)

    named = [(key, value) for key, value in instance if "%i" in value]

    assert [(key, value.replace("%i", "bot")) for key, value in instance if key != "Description"] == [
        pair for pair in single if pair[0] != "Description"
    ]
    assert {key for key, _ in named} == {"Description", "RequiresMountsFor", "User", "ExecStart", "ReadWritePaths"}


def test_instance_drop_in_differs_from_the_single_one_by_the_name_of_the_bot_alone() -> None:
    single, instance = (directives(name) for name in DROP_INS)

    assert [
        (key, value.replace("backup-agent@%N.service", "backup-agent.service").replace("%N", "bot"))
        for key, value in instance
    ] == single


def test_bot_waits_for_its_agent_but_does_not_fall_with_it() -> None:
    wanted = dict(directives("bot.service.d/backup-agent.conf"))

    assert wanted["Wants"] == wanted["After"] == "backup-agent.service"
    assert not wanted.keys() & {"Requires", "Requisite", "BindsTo", "PartOf"}
    assert wanted["ExecStartPre"].startswith(f"-{PROGRAM} check --heal ")


def test_polkit_rule_names_the_bot_of_the_unit_and_two_verbs() -> None:
    rule = (UNITS / "50-backup-agent.rules").read_text()

    compared = re.findall(r'(?:subject\.(\w+)|action\.lookup\("(\w+)"\)|action\.(id)) == "([^"]+)"', rule)

    user = dict(directives("backup-agent.service"))["User"]
    assert [("".join(where), what) for *where, what in compared] == [
        ("id", "org.freedesktop.systemd1.manage-units"),
        ("user", user),
        ("unit", "bot.service"),
        ("verb", "stop"),
        ("verb", "start"),
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/systemd.md"])
def test_documentation_names_the_program_and_files_that_exist(page: str) -> None:
    text = (PROJECT / page).read_text()

    programs = set(re.findall(r"/opt/backup-agent/bin/[\w-]+", text))
    files = set(re.findall(r"(?<![\w/-])systemd/[\w@./-]+\.(?:service|rules|conf)", text))

    assert programs <= {PROGRAM, "/opt/backup-agent/bin/pip"}
    assert {name for name in files if not (PROJECT / name).is_file()} == set()


def test_documentation_shows_the_drop_in_for_home_folders_that_the_trial_installs() -> None:
    tried = (PROJECT / "tests" / "systemd" / "inside" / "starting.py").read_text()
    page = (PROJECT / "docs" / "systemd.md").read_text()

    lines = re.findall(r"^   (\w+=(?!.*(?:run --config)).*/home/anna.*|ProtectHome=.*)$", page, re.MULTILINE)

    assert lines
    assert [line for line in lines if line not in tried] == []
