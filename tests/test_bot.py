import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bench import DAMAGE, USERS, Bench, document, python

from agent.announce import Announcer
from agent.bot import BotCommandError, BotRun, bot_stopped, start_if_left_stopped
from agent.config.sections import Bot
from agent.core.decide import LeftWhy
from agent.core.labels import BotCommand, BotResult
from agent.core.notice import Notice, NoticeKind
from agent.metrics import Metrics
from agent.outcome import Ending
from agent.record import Recorder


class Told:
    """Commands that note their call; either may be told to fail."""

    def __init__(self, base: Path, *, stop: str = "", start: str = "", timeout_s: float = 20.0) -> None:
        self.path = base / "calls"
        note = f"open({str(self.path)!r}, 'a').write('%s ');"
        self.bot = Bot(
            stop=tuple(python(note % "stop" + stop)), start=tuple(python(note % "start" + start)), timeout_s=timeout_s
        )
        self.marker = base / "bot_stopped"

    def calls(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []


def test_bot_is_down_in_the_block_and_started_after_it(tmp_path: Path) -> None:
    told = Told(tmp_path)

    with bot_stopped(told.bot, str(tmp_path)) as run:
        inside = (told.calls(), told.marker.exists())

    assert inside == (["stop"], True)
    assert told.calls() == ["stop", "start"]
    assert run.start_error is None
    assert not told.marker.exists()


def test_bot_that_cannot_be_stopped_is_started_again_and_the_block_not_entered(tmp_path: Path) -> None:
    told = Told(tmp_path, stop="raise SystemExit(5)")
    entered = False

    with pytest.raises(BotCommandError, match="code 5"), bot_stopped(told.bot, str(tmp_path)):
        entered = True

    assert not entered
    assert told.calls() == ["stop", "start"]


def test_bot_is_started_after_an_error_in_the_block(tmp_path: Path) -> None:
    told = Told(tmp_path)

    with pytest.raises(OSError, match="no space"), bot_stopped(told.bot, str(tmp_path)):
        raise OSError("no space")

    assert told.calls() == ["stop", "start"]


@pytest.mark.parametrize("stop", ["", "raise SystemExit(5)"])
def test_failing_start_is_told_and_left_for_the_next_start(tmp_path: Path, stop: str) -> None:
    told, run = Told(tmp_path, stop=stop, start="raise SystemExit(3)"), BotRun()

    try:
        with bot_stopped(told.bot, str(tmp_path), run):
            pass
    except BotCommandError:
        assert stop

    assert "bot.start ended with code 3" in str(run.start_error)
    assert told.marker.exists()


def test_command_that_hangs_is_given_up(tmp_path: Path) -> None:
    told = Told(tmp_path, stop="import time; time.sleep(60)", timeout_s=0.5)

    with pytest.raises(BotCommandError, match="did not end within"), bot_stopped(told.bot, str(tmp_path)):
        pass


def test_command_that_does_not_exist_names_the_key(tmp_path: Path) -> None:
    bot = Bot(stop=("/nonexistent/stop",), start=("true",), timeout_s=5)

    with pytest.raises(BotCommandError, match=r"bot\.stop cannot be run"), bot_stopped(bot, str(tmp_path)):
        pass


def test_start_that_leaves_a_process_behind_has_ended(tmp_path: Path) -> None:
    """A bot in the background inherits what the script had open: waiting for its end would never end."""
    left = tmp_path / "left"
    told = Told(
        tmp_path,
        start=f"import subprocess; print(subprocess.Popen(['sleep', '600']).pid, file=open({str(left)!r}, 'w'))",
    )

    with bot_stopped(told.bot, str(tmp_path)) as run:
        pass

    os.kill(int(left.read_text()), signal.SIGKILL)  # it is there still
    assert run.start_error is None


def test_bot_left_stopped_by_a_killed_agent_is_started_once(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.marker.touch()

    assert start_if_left_stopped(told.bot, str(tmp_path)) is None
    assert start_if_left_stopped(told.bot, str(tmp_path)) is None
    assert told.calls() == ["start"]


def test_bot_of_which_the_disk_does_not_tell_is_asked_about_again(tmp_path: Path) -> None:
    """It was taken for one that runs, and stayed down."""
    told = Told(tmp_path)
    (tmp_path / "loop").symlink_to("loop")

    error = start_if_left_stopped(told.bot, str(tmp_path / "loop"))

    assert error is not None
    assert "Too many levels" in str(error)


def test_agent_without_a_bot_runs_nothing(tmp_path: Path) -> None:
    with bot_stopped(None, str(tmp_path)) as run:
        pass

    assert run.start_error is None
    assert os.listdir(tmp_path) == []


def bot_settings(told: Told) -> str:
    return f"bot: {json.dumps({'stop': list(told.bot.stop), 'start': list(told.bot.start)})}"


def test_heal_keeps_in_mind_that_the_bot_did_not_start(tmp_path: Path) -> None:
    told = Told(tmp_path, start=f"import os; raise SystemExit(0 if os.path.exists({str(tmp_path / 'well')!r}) else 1)")
    bench = Bench(tmp_path, bot_settings(told))
    bench.protect(document(1))
    bench.damage()

    outcome = bench.healer.heal([USERS], at_gate=False)[0]

    assert outcome.ending is Ending.HEALED
    assert bench.healer.bot_error is not None
    (tmp_path / "well").touch()
    bench.healer.start_bot()
    assert bench.healer.bot_error is None
    assert told.calls() == ["stop", "start", "start"]


def test_file_is_not_healed_under_a_bot_that_does_not_stop(tmp_path: Path) -> None:
    told = Told(tmp_path, stop="raise SystemExit(1)")
    bench = Bench(tmp_path, bot_settings(told))
    bench.protect(document(1))
    bench.damage()

    outcome = bench.healer.heal([USERS], at_gate=False)[0]

    assert outcome.ending is Ending.HEAL_FAILED
    assert isinstance(outcome.error, BotCommandError)
    assert (bench.data / USERS).read_bytes() == DAMAGE


def test_gate_never_stops_the_bot(tmp_path: Path) -> None:
    told = Told(tmp_path)
    bench = Bench(tmp_path, bot_settings(told))
    bench.protect(document(1))
    bench.damage()

    outcome = bench.healer.heal([USERS], at_gate=True)[0]

    assert outcome.ending is Ending.HEALED
    assert told.calls() == []


@pytest.mark.parametrize(
    ("trouble", "result"),
    [
        ({"stop": "raise SystemExit(5)"}, ("stop", "failed")),
        ({"start": "raise SystemExit(5)"}, ("start", "failed")),
        ({"stop": "import time; time.sleep(60)", "timeout_s": 1.0}, ("stop", "timed_out")),
    ],
)
def test_each_run_of_a_command_is_counted_by_how_it_ended(
    tmp_path: Path, trouble: dict[str, Any], result: tuple[str, str]
) -> None:
    runs: list[tuple[BotCommand, BotResult]] = []

    with (
        suppress(BotCommandError),
        bot_stopped(Told(tmp_path, **trouble).bot, str(tmp_path), on_run=lambda *run: runs.append(run)),
    ):
        pass

    other = "start" if result[0] == "stop" else "stop"
    assert sorted(runs) == sorted([result, (other, "ok")])


def test_a_program_that_is_not_there_is_counted_as_not_run(tmp_path: Path) -> None:
    runs: list[tuple[BotCommand, BotResult]] = []
    bot = Bot(stop=("/no/such/program",), start=("/no/such/program",))

    with pytest.raises(BotCommandError), bot_stopped(bot, str(tmp_path), on_run=lambda *run: runs.append(run)):
        pass

    assert runs == [("stop", "not_run"), ("start", "not_run")]


def test_metric_and_notice_tell_that_the_bot_may_be_down(tmp_path: Path) -> None:
    notices: list[Notice] = []
    metrics = Metrics("0")
    metrics.count_bot_command(BotCommand.START, BotResult.FAILED)
    error = BotCommandError("bot.start ended with code 1", BotResult.FAILED, hint="run it by hand")

    Announcer(metrics, Recorder(metrics, notices.append), "/data").bot_down(error)

    text = metrics.expose()[1].decode()
    assert 'backup_agent_bot_commands_total{command="start",result="failed"} 1.0' in text
    assert 'backup_agent_bot_commands_total{command="stop",result="timed_out"} 0.0' in text
    assert [(notice.kind, notice.hint) for notice in notices] == [(NoticeKind.BOT_DOWN, "run it by hand")]


def test_giving_up_on_a_bot_that_does_not_stop_is_told_once(tmp_path: Path) -> None:
    """The damage is the same as before each try, so that nothing but the giving up is new."""
    bench = Bench(tmp_path, bot_settings(Told(tmp_path, stop="raise SystemExit(1)")))
    bench.protect(document(1))
    bench.damage()
    for _ in range(3):
        assert bench.look()[0].ending is Ending.DAMAGED
        bench.healer.heal([USERS], at_gate=False)

    first, second = bench.look()[0], bench.look()[0]

    assert (first.ending, first.left_why, first.is_news) == (Ending.LEFT, LeftWhy.GAVE_UP, True)
    assert (second.left_why, second.is_news) == (LeftWhy.GAVE_UP, False)
