"""Signals, ports and a second agent."""

import signal
import subprocess
import time

from env_heals import bot_commands, calls
from rig import agent_command, wait_until
from scene import DAMAGE, SOON_S, Scene, case, document


@case()
def reload_with_a_bad_config_keeps_the_old_one(scene: Scene) -> None:
    port = scene.settings()
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        good = scene.place.config.read_text()
        scene.place.config.write_text("nonsense: [")
        agent.child.send_signal(signal.SIGHUP)
        assert scene.told("config_reload_failed")["problems"]
        assert wait_until(lambda: agent.total("backup_agent_config_last_reload_successful") == 0, limit_s=5)
        scene.write("users.json", document(2))
        scene.protected(document(2))
        scene.place.config.write_text(good.replace(str(scene.place.backups), str(scene.place.root / "other")))
        agent.child.send_signal(signal.SIGHUP)
        assert "restart" in str(scene.told("config_reload_failed", times=2)["problems"])
        scene.place.config.unlink()
        agent.child.send_signal(signal.SIGHUP)
        scene.told("config_reload_failed", times=3)
        scene.place.config.write_text(good)
        agent.child.send_signal(signal.SIGHUP)
        scene.told("config_reloaded")
        assert agent.total("backup_agent_config_last_reload_successful") == 1


@case()
def sigterm_takes_the_last_state(scene: Scene) -> None:
    port = scene.settings(watch={"debounce": "20s", "max_delay": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.write("users.json", document(2))
        scene.write("new.json", document(3))
        assert agent.stop() == 0
    scene.protected(document(2), limit_s=0)
    scene.protected(document(3), "new", limit_s=0)
    scene.whole()


@case()
def second_sigterm_ends_at_once(scene: Scene) -> None:
    port = scene.settings(bot={**bot_commands(scene, "sleep 30", ":"), "timeout": "60s"})
    scene.write("users.json", document(1))
    with scene.agent(port) as agent:
        scene.place.users.write_bytes(DAMAGE)
        assert wait_until(lambda: calls(scene) == ["stop"], limit_s=SOON_S)
        agent.child.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert agent.child.poll() is None
        agent.child.send_signal(signal.SIGTERM)
        assert agent.child.wait(3) == 128 + signal.SIGTERM


@case()
def sigterm_in_the_gate_ends_soon(scene: Scene) -> None:
    port = scene.settings()
    for number in range(3000):
        (scene.place.data / f"{number}.json").write_bytes(b'{"n": %d}' % number)
    with scene.agent(port, ready=False) as agent:
        assert wait_until(lambda: any(scene.place.backups.glob("*_backup_*")), limit_s=SOON_S)
        agent.child.send_signal(signal.SIGTERM)
        assert agent.child.wait(12) in (0, 1)
    with scene.agent(port):
        pass


@case()
def second_agent_on_the_same_folder_is_refused(scene: Scene) -> None:
    port = scene.settings()
    scene.write("users.json", document(1))
    with scene.agent(port):
        second = subprocess.run(
            agent_command("run", "--config", str(scene.place.config)),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert second.returncode == 1, second.stderr
        assert "another backup-agent" in second.stderr
        assert "hint" in second.stderr
        scene.write("users.json", document(2))
        scene.protected(document(2))


@case()
def metrics_port_in_use_is_a_warning(scene: Scene) -> None:
    import socket

    port = scene.settings()
    scene.write("users.json", document(1))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with scene.agent(port, ready=False) as agent:
            assert scene.told("metrics_unavailable")["level"] == "warning"
            scene.protected(document(1))
            assert agent.child.poll() is None
