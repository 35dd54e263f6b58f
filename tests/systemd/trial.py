"""The units tried in a booted systemd: `sudo python tests/systemd/trial.py [--cache DIR] [--keep] [SCENARIO ...]`.

Builds a small Debian (debootstrap, from the mirror that this machine's apt uses) and the project's wheels once, keeps
both under `--cache`, boots a throw-away copy with systemd-nspawn and no network, installs the agent in it as
docs/systemd.md says, and prints PASS or FAIL for each scenario of `inside/scenarios.py`.  Exit status 1 when one fails.
Needs root, debootstrap and systemd-container.  Journal and report stay in `--cache`/results.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
RELEASE = "bookworm"  # systemd 252 and Python 3.11: the oldest that the agent is meant for
PACKAGES = "systemd,systemd-sysv,dbus,libpam-systemd,polkitd,python3,python3-venv"
BOOT_LIMIT_S = 1200
TRIAL_UNIT = """\
[Unit]
Description=Trial of the backup agent's units
After=multi-user.target
# An orderly shutdown: the last scenario looks at what it leaves behind.
SuccessAction=poweroff
FailureAction=poweroff

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -B /trial/scenarios.py {scenarios}
StandardOutput=file:/results/output.txt
StandardError=inherit
"""


def main() -> int:
    """Return 0 when every scenario passed, 1 when one failed, 2 when the trial cannot run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="only these, by name")
    parser.add_argument("--cache", type=Path, default=Path("/var/tmp/backup-agent-trial"))
    parser.add_argument("--keep", action="store_true", help="keep the bots' folders of this run")
    chosen = parser.parse_args()
    missing = [tool for tool in ("debootstrap", "systemd-nspawn") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        print(f"error: needs root, debootstrap and systemd-nspawn (missing: {', '.join(missing) or 'root'})")
        return 2
    chosen.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    system = ensure_system(chosen.cache)
    wheels = build_wheels(chosen.cache)
    results = chosen.cache / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    bots = Path(tempfile.mkdtemp(prefix="srv-", dir=chosen.cache))
    bots.chmod(0o755)
    try:
        boot(system, wheels=wheels, results=results, bots=bots, scenarios=chosen.scenarios)
        return summarise(results, bots=bots, everything=not chosen.scenarios)
    finally:
        if not chosen.keep:
            shutil.rmtree(bots)


def ensure_system(cache: Path) -> Path:
    """Return the root folder of a small Debian; it is built on first use and never changed after that."""
    system = cache / "root"
    if not (cache / "root.complete").exists():
        shutil.rmtree(system, ignore_errors=True)
        print(f"building {system} (once)", flush=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(system), debian_mirror()]
        with (cache / "debootstrap.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        (cache / "root.complete").touch()
    return system


def debian_mirror() -> str:
    """Return the address that this machine's apt takes `RELEASE` from."""
    wanted = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    for line in subprocess.run(wanted, capture_output=True, text=True, check=True).stdout.splitlines():
        codename, _, address = line.partition(" ")
        if codename == RELEASE:
            return address
    sys.exit(f"error: apt on this machine has no source for Debian {RELEASE}")


def build_wheels(cache: Path) -> Path:
    """Return a folder with the project's wheel, built now, and those of its dependencies for Python 3.11."""
    wheels = cache / "wheels"
    for stale in wheels.glob("backup_agent-*.whl"):
        stale.unlink()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run_quietly(*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(PROJECT))
    own = next(wheels.glob("backup_agent-*.whl"))
    target = ["--python-version", "3.11", "--only-binary", ":all:", "--find-links", str(wheels)]
    run_quietly(*pip, "download", *target, "--dest", str(wheels), str(own))
    return wheels


def run_quietly(*command: str) -> None:
    """Run the command; what it says is shown only when it fails, and the trial ends then."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}error: {' '.join(command)} ended with {done.returncode}")


def boot(system: Path, *, wheels: Path, results: Path, bots: Path, scenarios: list[str]) -> None:
    """Run the scenarios inside a throw-away copy of `system`; returns when it has shut itself down."""
    unit = results / "trial.service"
    unit.write_text(TRIAL_UNIT.format(scenarios=" ".join(scenarios)))
    command = ["systemd-nspawn", "--quiet", "--boot", "--ephemeral", "--private-network", "--console=pipe"]
    if not Path("/run/systemd/system").exists():
        command += ["--register=no", "--keep-unit"]  # no systemd out here that could be asked for a scope
    command += [
        f"--directory={system}",
        f"--bind-ro={unit}:/etc/systemd/system/trial.service",
        f"--bind-ro={HERE / 'inside'}:/trial",
        f"--bind-ro={PROJECT / 'systemd'}:/units",
        f"--bind-ro={wheels}:/wheels",
        f"--bind={results}:/results",
        f"--bind={bots}:/srv",
    ]
    # trial.service is wanted by nothing: the kernel command line asks for it beside the usual target.
    command += ["--", "systemd.wants=trial.service"]
    # Cut short, it leaves a report without its end, and `summarise` says so.
    with (results / "console.txt").open("w") as console, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=BOOT_LIMIT_S, check=False
        )


def summarise(results: Path, *, bots: Path, everything: bool) -> int:
    """Print one line per scenario and a summary; 1 when one failed or the report is incomplete."""
    report = results / "report.jsonl"
    outcomes = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    complete = bool(outcomes) and outcomes[-1]["scenario"] == "end"
    outcomes = [outcome for outcome in outcomes if outcome["scenario"] != "end"]
    if everything and complete:
        outcomes.append(after_shutdown(bots / "bot"))
    for outcome in outcomes:
        print(f"{'PASS' if outcome['passed'] else 'FAIL'} {outcome['scenario']}: {outcome['detail']}")
    failed = sum(not outcome["passed"] for outcome in outcomes)
    if not complete:
        print(f"FAIL the trial did not reach its end; see {results}/output.txt and console.txt")
    print(f"{len(outcomes) - failed} passed, {failed} failed; journal: {results}/journal.txt")
    return 0 if complete and not failed else 1


def after_shutdown(home: Path) -> dict[str, object]:
    """The machine itself went down with bot and agent running: was what the bot saved last still captured?"""
    saved = (home / "data" / "users.json").read_bytes()
    last_told = json.loads((home / "seen.jsonl").read_text().splitlines()[-1])
    kept = [path for path in (home / "data" / "backups").glob("users_backup_*.json") if path.read_bytes() == saved]
    passed = last_told["event"] == "stopped" and json.loads(saved) == last_told["users"] and bool(kept)
    detail = f"bot's last word {last_told['event']}, its last save is in {[path.name for path in kept]}"
    return {"scenario": "machine_shutdown_keeps_the_last_save", "passed": passed, "detail": detail}


if __name__ == "__main__":
    sys.exit(main())
