"""Healing has limits, and a bot is stopped and started around it."""

import time
from typing import Any

from rig import wait_until
from scene import DAMAGE, QUICK_RECOVERY, SOON_S, Scene, case, document


@case()
def damage_written_back_from_memory_ends_in_an_alert(scene: Scene) -> None:
    port = scene.settings(recovery={**QUICK_RECOVERY, "heal_attempts": 3, "clobber_window": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        deadline = time.monotonic() + 40
        while not scene.lines("heal_gave_up") and time.monotonic() < deadline:
            if scene.place.users.read_bytes() != DAMAGE:
                time.sleep(0.3)
                scene.place.users.write_bytes(DAMAGE)
            time.sleep(0.1)
        line = scene.told("heal_gave_up")
        assert "stop the bot" in line["hint"]
        assert agent.total("backup_agent_heals_total", result="ok") == 3
        assert wait_until(lambda: agent.total("backup_agent_files_given_up") == 1, limit_s=5)
        time.sleep(2)
        assert scene.place.users.read_bytes() == DAMAGE
        assert len(scene.lines("heal_gave_up")) == 1
        scene.write("users.json", document(2))
        scene.protected(document(2))
        assert wait_until(lambda: agent.total("backup_agent_files_given_up") == 0, limit_s=5)
        scene.whole()


def bot_commands(scene: Scene, stop: str, start: str) -> dict[str, Any]:
    calls = scene.place.side / "calls"
    return {
        "stop": ["sh", "-c", f"echo stop >> {calls}; cat {scene.place.users} >> {calls}.seen; {stop}"],
        "start": ["sh", "-c", f"echo start >> {calls}; cat {scene.place.users} > {calls}.at_start; {start}"],
        "timeout": "2s",
    }


def calls(scene: Scene) -> list[str]:
    path = scene.place.side / "calls"
    return path.read_text().split() if path.exists() else []


@case()
def bot_is_stopped_before_and_started_after_a_heal(scene: Scene) -> None:
    port = scene.settings(bot=bot_commands(scene, ":", ":"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        scene.place.users.write_bytes(DAMAGE)
        scene.told("source_restored")
        assert calls(scene) == ["stop", "start"]
        assert (scene.place.side / "calls.seen").read_bytes() == DAMAGE
        assert (scene.place.side / "calls.at_start").read_bytes() == document(1)


@case()
def bot_that_cannot_be_stopped_is_not_healed_under(scene: Scene) -> None:
    port = scene.settings(bot=bot_commands(scene, "echo no right; exit 5", ":"))
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.place.users.write_bytes(DAMAGE)
        line = scene.told("heal_failed")
        assert "code 5" in line["error"]
        assert line["hint"]
        assert calls(scene)[:2] == ["stop", "start"]
        assert scene.place.users.read_bytes() == DAMAGE
        assert agent.total("backup_agent_heals_total", result="failed") >= 1


@case()
def bot_stop_that_hangs_is_timed_out(scene: Scene) -> None:
    port = scene.settings(bot=bot_commands(scene, "sleep 60", ":"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        scene.place.users.write_bytes(DAMAGE)
        assert "2 s" in scene.told("heal_failed")["error"]
        assert calls(scene)[:2] == ["stop", "start"]


@case()
def bot_that_does_not_start_is_told_and_started_later(scene: Scene) -> None:
    flag = scene.place.side / "broken"
    flag.touch()
    port = scene.settings(bot=bot_commands(scene, ":", f"test ! -e {flag}"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        scene.place.users.write_bytes(DAMAGE)
        line = scene.told("bot_start_failed")
        assert line["level"] == "error"
        assert line["hint"]
        scene.shows(document(1))
        before = len(calls(scene))
        flag.unlink()
        assert wait_until(lambda: len(calls(scene)) > before, limit_s=70), "bot.start is not tried again"
        after = len(calls(scene))
        time.sleep(3)
        assert len(calls(scene)) == after, "started again and again"


@case()
def bot_start_that_leaves_a_bot_behind_has_ended(scene: Scene) -> None:
    """A script that puts the bot into the background passes its output on to it; that is no time-out."""
    port = scene.settings(bot=bot_commands(scene, ":", "sleep 15 & exit 0"))
    scene.write("users.json", document(1))
    with scene.agent(port):
        began = time.monotonic()
        scene.place.users.write_bytes(DAMAGE)
        scene.told("source_restored")
        assert time.monotonic() - began < 10
        assert scene.lines("bot_start_failed") == []
        assert not (scene.place.backups / ".agent/bot_stopped").exists()


@case()
def agent_killed_between_stop_and_start_starts_the_bot_later(scene: Scene) -> None:
    port = scene.settings(bot={**bot_commands(scene, "sleep 30", ":"), "timeout": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.place.users.write_bytes(DAMAGE)
        assert wait_until(lambda: calls(scene) == ["stop"], limit_s=SOON_S)
        agent.child.kill()
        agent.child.wait()
    with scene.agent(port):
        assert wait_until(lambda: calls(scene) == ["stop", "start"], limit_s=SOON_S), calls(scene)
        assert scene.place.users.read_bytes() == document(1)
        assert not (scene.place.backups / ".agent/bot_stopped").exists()
