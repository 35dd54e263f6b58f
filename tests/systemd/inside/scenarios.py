"""What the units promise, tried one by one; runs as root inside the container that `trial.py` boots.

Each scenario starts from a bot and an agent that were installed as docs/systemd.md says and are running on good
data, and states its promise in its name.  Outcomes go to /results/report.jsonl, the journal to /results/journal.txt.
"""

import json
import sys
from pathlib import Path

import running
import starting
from machine import BOT, UnmetError, install_agent, install_bot, run

RESULTS = Path("/results")


def main() -> None:
    wanted = set(sys.argv[1:])
    with (RESULTS / "report.jsonl").open("w", buffering=1) as report:

        def tell(name: str, *, passed: bool, detail: str) -> None:
            report.write(json.dumps({"scenario": name, "passed": passed, "detail": detail}) + "\n")
            print("PASS" if passed else "FAIL", name, detail, flush=True)

        install_agent()
        bot = install_bot(BOT, instance=False)
        for function in [*starting.SCENARIOS, *running.SCENARIOS]:
            if wanted and function.__name__ not in wanted:
                continue
            try:
                bot.start_afresh()
                tell(function.__name__, passed=True, detail=function(bot))
            except UnmetError as unmet:
                tell(function.__name__, passed=False, detail=str(unmet))
            (RESULTS / "journal.txt").write_text(run("journalctl", "--no-pager", "--output=short-iso-precise"))
        if not wanted:
            bot.start_afresh()  # bot and agent are running when the machine goes down
        tell("end", passed=True, detail="")


if __name__ == "__main__":
    main()
