"""What a pause means to those who heal, tell and count."""

from datetime import timedelta
from pathlib import Path

from bench import DAMAGE, USERS, Bench, document, python

from agent.announce import Announcer
from agent.core.decide import LeftWhy
from agent.disk.pause import begin_pause
from agent.metrics import Metrics
from agent.outcome import Ending
from agent.record import Recorder
from agent.scrape import Scrape


def paused(tmp_path: Path, settings: str = "") -> Bench:
    """A damaged file, and a pause of an hour."""
    bench = Bench(tmp_path, settings)
    bench.protect(document(1))
    clock = bench.clock
    begin_pause(bench.ws.config.state_dir, timedelta(hours=1), now=clock.utc(), steady_s=clock.monotonic())
    bench.write(DAMAGE)
    return bench


def test_damage_is_left_as_paused_with_a_copy_and_healed_once_the_pause_is_over(tmp_path: Path) -> None:
    bench = paused(tmp_path)

    outcome = bench.look()[0]

    assert (outcome.ending, outcome.left_why) == (Ending.LEFT, LeftWhy.PAUSED)
    assert outcome.quarantined is not None
    bench.clock.advance(3600)
    assert bench.look()[0].ending is Ending.DAMAGED
    assert bench.healer.heal([USERS], at_gate=False)[0].ending is Ending.HEALED


def test_gate_leaves_it_too(tmp_path: Path) -> None:
    assert paused(tmp_path).look(at_gate=True)[0].left_why is LeftWhy.PAUSED


def test_good_states_become_snapshots_meanwhile(tmp_path: Path) -> None:
    bench = paused(tmp_path)
    bench.write(document(2))

    assert bench.look()[0].ending is Ending.PUBLISHED


def test_heal_that_was_on_its_way_is_not_begun_and_the_bot_is_not_stopped(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    stop = python(f"open({str(stopped)!r}, 'w')")
    bench = paused(tmp_path, f"bot: {{stop: {stop}, start: {python('pass')}}}")

    outcome = bench.healer.heal([USERS], at_gate=False)[0]

    assert (outcome.ending, outcome.left_why) == (Ending.LEFT, LeftWhy.PAUSED)
    assert not stopped.exists()
    assert (bench.data / USERS).read_bytes() == DAMAGE


def test_clock_set_back_does_not_keep_the_file_damaged(tmp_path: Path) -> None:
    bench = paused(tmp_path)
    bench.clock.advance(3600)
    bench.clock.jump(-3600)

    assert bench.look()[0].ending is Ending.DAMAGED


def test_metric_tells_the_end_and_nought_without_a_pause(tmp_path: Path) -> None:
    bench, metrics = paused(tmp_path), Metrics("0")
    Scrape(bench.ws, metrics, lambda: (0, 0.0), lambda rel: False)

    def told() -> float:
        lines = metrics.expose()[1].decode().splitlines()
        return float(next(line for line in lines if line.startswith("backup_agent_paused_until_")).split()[1])

    pause = bench.ws.pause()
    assert pause is not None
    assert told() == pause.ends_at.timestamp()
    bench.clock.advance(3600)
    assert told() == 0


def test_begin_and_end_are_one_log_line_each(tmp_path: Path) -> None:
    bench, metrics = paused(tmp_path), Metrics("0")
    announce = Announcer(metrics, Recorder(metrics), str(bench.data))
    lines: list[str] = []
    announce._log = type(
        "Log", (), {level: staticmethod(lambda event, **_: lines.append(event)) for level in ("info", "warning")}
    )()

    for _ in range(3):
        announce.paused(bench.ws.pause())
    bench.clock.advance(3600)
    for _ in range(3):
        announce.paused(bench.ws.pause())

    assert lines == ["healing_paused", "healing_resumed"]
