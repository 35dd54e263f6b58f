"""Promises about the start of a bot: on checked data, behind a gate, and never waiting for ever."""

import shutil
import time

from machine import Bot, demand, drop_in, install_bot, install_drop_in, kill, run, show, systemctl, until

HOME_DROP_INS = {
    "backup-agent@anna.service": """\
[Unit]
RequiresMountsFor=/home/anna/my-bot/data
[Service]
ReadWritePaths=
ReadWritePaths=/home/anna/my-bot/data
ProtectHome=tmpfs
BindPaths=/home/anna/my-bot/data
"""
}


def bot_starts_only_after_the_gate_healed(bot: Bot) -> str:
    """Booting with a truncated file; the bot's own ExecStartPre gate is taken away, so that this is the agent's."""
    drop_in("bot.service", "no-gate", "[Service]\nExecStartPre=\n")
    systemctl("stop", "bot.service", "backup-agent.service")
    good = bot.truncate("users.json")

    systemctl("start", "bot.service")

    told = bot.started()
    ready_us = int(show("backup-agent.service", "ActiveEnterTimestampMonotonic"))
    started_us = int(show("bot.service", "ExecMainStartTimestampMonotonic"))
    demand(told["users"] == good, f"the bot read {told['users']!r} and not {good!r}")
    demand(ready_us <= started_us, f"agent ready at {ready_us} us, bot started at {started_us} us")
    demand(bool(bot.quarantined()), "the truncated file is not in quarantine")
    return f"agent ready {started_us - ready_us} us before the bot, which read the restored users.json"


def crashed_bot_passes_its_own_gate(bot: Bot) -> str:
    """Beside a running agent, which has not had the time to see the damage when the bot is started again."""
    return crash_with_damage(bot)


def crashed_bot_passes_its_own_gate_without_the_agent(bot: Bot) -> str:
    """The same while the agent is stopped: `check --heal` needs no daemon."""
    systemctl("stop", "backup-agent.service")
    return crash_with_damage(bot)


def crash_with_damage(bot: Bot) -> str:
    before = show("bot.service", "MainPID")
    good = bot.truncate("users.json")
    kill(before, "KILL")
    until(lambda: show("bot.service", "MainPID") not in {before, "0"}, "the bot is started again")

    told = bot.started()
    demand(told["users"] == good, f"the bot read {told['users']!r} and not {good!r}")
    demand("code=exited ; status=0" in show("bot.service", "ExecStartPre"), show("bot.service", "ExecStartPre"))
    return f"restart {show('bot.service', 'NRestarts')} of the bot read the restored users.json"


def bot_starts_when_its_gate_cannot_help(bot: Bot) -> str:
    """A file that was never good: exit code 3 of the gate does not keep the bot down."""
    systemctl("stop", "bot.service", "backup-agent.service")
    bot.write("never-good.json", b'{"half": ')

    systemctl("start", "bot.service")

    bot.started()
    gate = show("bot.service", "ExecStartPre")
    demand("code=exited ; status=3" in gate, gate)
    demand((bot.data / "never-good.json").read_bytes() == b'{"half": ', "the file was changed")
    return "check --heal said 3 and left the file as it was, the bot runs"


def strict_gate_keeps_the_bot_down(bot: Bot) -> str:
    """The same with a copy of the drop-in without the "-", for a bot that would rather not start."""
    systemctl("stop", "bot.service", "backup-agent.service")
    bot.write("never-good.json", b'{"half": ')
    gate = "/opt/backup-agent/bin/backup-agent check --heal --config /etc/backup-agent/bot.yaml"
    drop_in("bot.service", "strict", f"[Service]\nRestart=no\nExecStartPre=\nExecStartPre={gate}\n")
    demand(run("systemctl", "start", "bot.service", check=False, code=True) != "0", "the bot was started")
    bot.write("never-good.json", b'{"whole": 1}\n')
    systemctl("start", "bot.service")
    bot.started()
    return "down while a problem is left, up when it is mended"


def bot_that_makes_its_data_folder_itself_starts(bot: Bot) -> str:
    """A first start: the agent cannot run yet, and is there as soon as the folder is."""
    systemctl("stop", "bot.service", "backup-agent.service")
    shutil.rmtree(bot.data)
    systemctl("start", "bot.service")
    bot.started()
    bot.write("users.json", b'{"first": {"cartridge": 1}}\n')
    until(lambda: bool(bot.snapshots("users.json")), "its first save has a snapshot")
    return "the bot runs, its first save has a snapshot"


def bot_waits_for_a_stuck_agent_only_so_long(bot: Bot) -> str:
    """The agent cannot use its backup folder and waits for it; the bot's start does not wait with it for ever."""
    systemctl("stop", "bot.service", "backup-agent.service")
    shutil.rmtree(bot.data / "backups")
    (bot.data / "backups").write_text("in the way")
    drop_in("backup-agent.service", "stuck", "[Unit]\nJobRunningTimeoutSec=10s\n")
    began = time.monotonic()
    systemctl("start", "bot.service")
    took_s = time.monotonic() - began
    bot.started()
    demand(took_s < 30, f"the bot was started after {took_s:.1f} s")
    (bot.data / "backups").unlink()
    until(lambda: bool(bot.snapshots("users.json")), "the agent gets to work", limit_s=90)
    until(lambda: show("backup-agent.service", "ActiveState") == "active", "the agent is ready", limit_s=90)
    return f"the bot was started after {took_s:.1f} s, the agent worked as soon as it could"


def broken_config_at_start_fails_and_stays_down(bot: Bot) -> str:
    """Exit code 2 is not retried, and the bot starts without its agent."""
    systemctl("stop", "bot.service", "backup-agent.service")
    bot.config.write_text(bot.config.read_text() + "no_such_key: 1\n")
    systemctl("start", "bot.service")
    time.sleep(7)  # longer than RestartSec
    demand(show("backup-agent.service", "ActiveState") == "failed", show("backup-agent.service", "ActiveState"))
    demand(show("backup-agent.service", "ExecMainStatus") == "2", show("backup-agent.service", "ExecMainStatus"))
    bot.started()
    return "agent failed with status 2 and shows in --failed, the bot runs"


def long_gate_extends_its_start_timeout(bot: Bot) -> str:
    """The first protection of many files takes longer than a start time-out of two seconds."""
    systemctl("stop", "bot.service", "backup-agent.service")
    write_many(bot)
    return impatient_start()


def rebuilding_a_lost_index_extends_the_start_timeout(bot: Bot) -> str:
    """The index of many snapshots is gone: it is made again from the files, before the gate."""
    systemctl("stop", "bot.service", "backup-agent.service")
    write_many(bot)
    systemctl("start", "backup-agent.service")
    systemctl("stop", "backup-agent.service")
    shutil.rmtree(bot.data / "backups" / ".agent")
    return impatient_start()


def impatient_start() -> str:
    drop_in("backup-agent.service", "impatient", "[Service]\nTimeoutStartSec=2s\n")
    began = time.monotonic()
    systemctl("start", "backup-agent.service")
    took_s = time.monotonic() - began
    demand(took_s > 2, f"ready after {took_s:.1f} s, nothing was shown")
    demand(show("backup-agent.service", "NRestarts") == "0", "it was restarted")
    return f"ready after {took_s:.1f} s with TimeoutStartSec=2s"


def write_many(bot: Bot) -> None:
    """Thirty thousand small files, all of them data files."""
    bot.configure(exclude=[])
    for number in range(30_000):
        bot.write(f"many/{number % 100}/{number}.json", b'{"n": %d}\n' % number)


def stop_during_the_gate_is_heeded(bot: Bot) -> str:
    """An operator who changes his mind does not wait for the end of a long gate, nor for SIGKILL."""
    systemctl("stop", "bot.service", "backup-agent.service")
    write_many(bot)
    systemctl("start", "--no-block", "backup-agent.service")
    time.sleep(2)
    demand(show("backup-agent.service", "ActiveState") == "activating", "the gate is over already, nothing was shown")
    began = time.monotonic()
    systemctl("stop", "backup-agent.service")
    took_s = time.monotonic() - began
    result = show("backup-agent.service", "Result")
    demand(took_s < 20 and result in {"success", "exit-code"}, f"{result} after {took_s:.1f} s")
    return f"ended by itself after {took_s:.1f} s ({result}: what it left undone is in the log)"


def second_bot_is_guarded_by_its_instance(_: Bot) -> str:
    """backup-agent@alpha.service with the drop-in for several bots."""
    alpha = install_bot("alpha", instance=True)
    alpha.start_afresh()
    return starts_on_restored_data(alpha)


def bot_in_a_home_folder_is_guarded(_: Bot) -> str:
    """The drop-in of docs/systemd.md for data below /home, the rest of which stays empty to the agent."""
    anna = install_bot("anna", home="/home/anna/my-bot", instance=True)
    for name, text in HOME_DROP_INS.items():
        install_drop_in(name, "home", text)
    anna.start_afresh()
    pid = show(anna.agent, "MainPID")
    seen = run("nsenter", f"--target={pid}", "--mount", "ls", "-A", "/home", "/home/anna", "/home/anna/my-bot")
    demand("seen.jsonl" not in seen, f"the agent sees {seen!r}")
    return starts_on_restored_data(anna)


def starts_on_restored_data(bot: Bot) -> str:
    """Stop the bot and its instance, damage its file, start the bot alone; both are stopped in the end."""
    systemctl("stop", f"{bot.name}.service", bot.agent)
    good = bot.truncate("users.json")
    systemctl("start", f"{bot.name}.service")
    told = bot.started()
    demand(told["users"] == good, f"the bot read {told['users']!r}")
    demand(show(bot.agent, "ActiveState") == "active", f"{bot.agent} is not active")
    systemctl("stop", f"{bot.name}.service", bot.agent)
    return "started with its own agent, on restored data"


SCENARIOS = [
    bot_starts_only_after_the_gate_healed,
    crashed_bot_passes_its_own_gate,
    crashed_bot_passes_its_own_gate_without_the_agent,
    bot_starts_when_its_gate_cannot_help,
    strict_gate_keeps_the_bot_down,
    bot_that_makes_its_data_folder_itself_starts,
    bot_waits_for_a_stuck_agent_only_so_long,
    broken_config_at_start_fails_and_stays_down,
    long_gate_extends_its_start_timeout,
    rebuilding_a_lost_index_extends_the_start_timeout,
    stop_during_the_gate_is_heeded,
    second_bot_is_guarded_by_its_instance,
    bot_in_a_home_folder_is_guarded,
]
