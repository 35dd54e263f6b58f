"""Promises about a running agent and its end: watchdog, reload, heals, rights, the last snapshot."""

import json
import time

from machine import BOT, Bot, agent_log, demand, drop_in, kill, metric, run, scrape, show, systemctl, until


def stopping_both_keeps_what_the_bot_saved_last(bot: Bot) -> str:
    """By a target that both are part of, and by name, the bot first."""
    details = []
    for stop in (["bot-stack.target"], ["bot.service", "backup-agent.service"]):
        systemctl("start", "bot-stack.target")
        bot.started()
        systemctl("stop", *stop)
        until(lambda: show("backup-agent.service", "ActiveState") == "inactive", "the agent stopped")
        told = bot.last("stopped")
        saved = (bot.data / "users.json").read_bytes()
        demand(json.loads(saved) == told["users"], "the bot's save is not on disk")
        kept = [path.name for path in bot.snapshots("users.json") if path.read_bytes() == saved]
        demand(bool(kept), f"stopping {stop}: no snapshot holds what the bot saved while it stopped")
        details.append(f"{' '.join(stop)}: {kept[-1]}")
    return "; ".join(details)


WATCHDOG_S = 5


def hung_agent_is_restarted_by_the_watchdog(bot: Bot) -> str:
    """SIGSTOP: nothing of the agent runs any more, and the bot does not notice."""
    drop_in("backup-agent.service", "watchdog", f"[Service]\nWatchdogSec={WATCHDOG_S}s\n")
    systemctl("restart", "backup-agent.service")
    bot_before, before = show("bot.service", "MainPID"), show("backup-agent.service", "MainPID")
    time.sleep(3 * WATCHDOG_S)  # a healthy agent is left alone, although it has nothing to do
    demand(show("backup-agent.service", "MainPID") == before, "a healthy, idle agent was restarted")

    kill(before, "STOP")

    until(lambda: show("backup-agent.service", "MainPID") not in {before, "0"}, "the agent is started again")
    until(lambda: show("backup-agent.service", "ActiveState") == "active", "the agent is ready again")
    demand(show("bot.service", "MainPID") == bot_before, "the bot was restarted too")
    demand("watchdog" in run("journalctl", "--unit=backup-agent.service", "--lines=60"), "not by the watchdog")
    return f"{before} aborted, {show('backup-agent.service', 'MainPID')} runs, the bot was left alone"


def reload_takes_a_new_config_and_refuses_a_broken_one(bot: Bot) -> str:
    """A file that the old config leaves out is protected after a reload, and still after a broken one."""
    before = show("backup-agent.service", "MainPID")
    bot.write("extra/new.json", b'{"n": 1}\n')
    time.sleep(4)  # longer than `debounce`
    demand(not bot.snapshots("extra/new.json"), "the excluded file has a snapshot before the reload")
    bot.configure(exclude=[])
    systemctl("reload", "backup-agent.service")
    until(lambda: bool(bot.snapshots("extra/new.json")), "the file has a snapshot after the reload")

    mark = time.time()
    bot.config.write_text(bot.config.read_text() + "no_such_key: 1\n")
    systemctl("reload", "backup-agent.service")
    until(lambda: "no_such_key" in agent_log(since=mark), "a log line names the unknown key")
    until(lambda: metric("backup_agent_config_last_reload_successful") == 0, "the metric says that the reload failed")
    bot.write("extra/new.json", b'{"n": 2}\n')
    until(
        lambda: any(path.read_bytes() == b'{"n": 2}\n' for path in bot.snapshots("extra/new.json")),
        "the old config is still in force",
    )
    demand(show("backup-agent.service", "MainPID") == before, "the agent was restarted")
    demand(show("backup-agent.service", "ActiveState") == "active", "the agent is not active")
    return "new exclude in force; unknown key refused with a log line, a metric and the old config in force"


def heal_stops_and_starts_the_bot(bot: Bot) -> str:
    """As the bot's user, from the hardened unit, through systemctl and polkit, while the bot is running."""
    bot.configure(stop=["systemctl", "stop", "bot.service"])
    systemctl("restart", "backup-agent.service")
    good = json.loads((bot.data / "settings.json").read_bytes())
    before = show("bot.service", "MainPID")
    mark_us = time.monotonic_ns() // 1000

    bot.truncate("settings.json")

    until(lambda: show("bot.service", "MainPID") not in {before, "0"}, "the bot was stopped and started", limit_s=90)
    started, stopped = bot.started(), bot.last("stopped")
    demand(int(before) == stopped["pid"] and stopped["monotonic_us"] > mark_us, "the bot was not stopped in order")
    demand(started["settings"] == good, f"the bot read {started['settings']!r}")
    until(lambda: show("bot.service", "ActiveState") == "active", "the bot is active")
    return "stopped in order, settings.json restored, started on it"


def agent_killed_while_the_bot_is_down_starts_it_again(bot: Bot) -> str:
    """kill -9 between bot.stop and bot.start of a heal: the next agent heals and starts the bot."""
    bot.configure(stop=["sh", "-c", "systemctl stop bot.service; sleep 20"])
    systemctl("restart", "backup-agent.service")
    good = bot.truncate("settings.json")
    until(lambda: show("bot.service", "ActiveState") == "inactive", "the bot was stopped")
    kill(show("backup-agent.service", "MainPID"), "KILL")
    until(lambda: show("bot.service", "ActiveState") == "active", "the bot is started again")
    told = bot.started()
    demand(told["settings"] == good, f"the bot read {told['settings']!r}")
    return "the agent was started again, healed, and started the bot"


def polkit_rule_grants_nothing_more(bot: Bot) -> str:
    """The bot's user may start and stop its own unit, and only that."""
    as_bot = ["runuser", "--user", BOT, "--", "systemctl", "--no-ask-password"]
    run(*as_bot, "stop", "bot.service")
    run(*as_bot, "start", "bot.service")
    refused = [["restart", "bot.service"], ["stop", "backup-agent.service"], ["disable", "bot.service"], ["reboot"]]
    for verb in refused:
        demand(run(*as_bot, *verb, check=False, code=True) != "0", f"systemctl {' '.join(verb)} was allowed")
    return f"stop and start allowed; refused: {', '.join(' '.join(verb) for verb in refused)}"


def replaced_data_folder_is_protected_under_its_parent(bot: Bot) -> str:
    """A deploy that swaps the data folder: with ReadWritePaths= on the parent, as the unit's comment says."""
    drop_in("backup-agent.service", "parent", "[Service]\nReadWritePaths=\nReadWritePaths=/srv/bot\n")
    systemctl("restart", "backup-agent.service")
    run("cp", "--archive", f"{bot.home}/data", f"{bot.home}/data.next")
    (bot.data).rename(bot.home / "data.old")
    (bot.home / "data.next").rename(bot.data)
    content = b'{"after": "deploy"}\n'
    bot.write("settings.json", content)
    until(
        lambda: any(path.read_bytes() == content for path in bot.snapshots("settings.json")),
        "a change in the new folder has a snapshot",
        limit_s=120,
    )
    return "a change after the swap was captured"


def hardened_agent_uses_leases_and_is_scraped(bot: Bot) -> str:
    """The system call filter and the empty capability set leave the lease, the exchange and the metrics."""
    until(lambda: metric("backup_agent_build_info") is not None, "metrics are scraped on loopback")
    modes = [line for line in scrape().splitlines() if line.startswith("backup_agent_capture_mode{")]
    modes = [line for line in modes if float(line.rpartition(" ")[2]) > 0]
    demand(any("lease" in line for line in modes), f"capture mode: {modes}")
    return "; ".join(modes)


SCENARIOS = [
    stopping_both_keeps_what_the_bot_saved_last,
    hung_agent_is_restarted_by_the_watchdog,
    reload_takes_a_new_config_and_refuses_a_broken_one,
    heal_stops_and_starts_the_bot,
    agent_killed_while_the_bot_is_down_starts_it_again,
    polkit_rule_grants_nothing_more,
    replaced_data_folder_is_protected_under_its_parent,
    hardened_agent_uses_leases_and_is_scraped,
]
