"""The proof on bots that work against their own data: one that empties what it cannot read, one that prunes backups.

    python tests/proof/early_bot.py

1. Gated (`backup-agent check --heal && node bot`): the bot that writes `{}` over a corrupt file within 10 ms of its
   start finds its users.
2. Ungated: the bot was faster.  Its `{}` is held as suspect, the good snapshots stay, the metric says so.
3. A bot that deletes all but the ten newest users_backup_* files, by modification time: what vanishes is told by a
   metric, and its last state comes back when it is damaged right afterwards.
"""

import argparse
import subprocess
import time
from collections.abc import Callable

from damager import KINDS
from rig import Agent, Place, agent_command, bot, digest_of, wait_until

DEBOUNCE_S = 0.2
LIMIT_S = 15.0
AUDIT_LIMIT_S = 60.0
USERS = 500


def take_good_snapshot(place: Place, runtime: str) -> bytes:
    """Let a bot write a first state and an agent snapshot it; both have ended afterwards.  Returns the state."""
    with bot(place, runtime, "--once") as the_bot:
        the_bot.answer()
        the_bot.child.wait()
    port = place.configure(debounce_s=DEBOUNCE_S)
    with Agent(place, port) as agent:
        agent.ready()
        wait_until(lambda: bool(place.copies()), limit_s=LIMIT_S)
    state = place.users.read_bytes()
    assert digest_of(state) in place.digests(), "the first state was not snapshotted"
    return state


def gated(runtime: str) -> str:
    """Return what is wrong when the bot starts behind `check --heal`, or ''."""
    with Place.scratch() as place:
        good = take_good_snapshot(place, runtime)
        place.users.write_bytes(KINDS["cut_at_4096"](good, b"", None))  # type: ignore[arg-type]  # no dice are cast
        gate = subprocess.run(
            agent_command("check", "--heal", "--config", str(place.config)), capture_output=True, text=True, check=False
        )
        if gate.returncode != 0:
            return f"check --heal ended with {gate.returncode}: {gate.stdout[-500:]}{gate.stderr[-500:]}"
        with bot(place, runtime, "--once", "--empty-on-corrupt") as the_bot:
            started = the_bot.answer()
        if started["emptied"] or started["users"] != USERS:
            return f"the bot started on {started['users']} users"
        return "" if place.users.read_bytes() == good else "the file is not the last good state"


def ungated(runtime: str) -> str:
    """Return what is wrong when the bot empties its file before an agent runs, or ''."""
    with Place.scratch() as place:
        good = take_good_snapshot(place, runtime)
        place.users.write_bytes(good[: len(good) // 2])
        with bot(place, runtime, "--once", "--empty-on-corrupt") as the_bot:
            started = the_bot.answer()
        if not started["emptied"]:
            return f"the bot did not empty its file: {started}"
        with Agent(place, place.configure(debounce_s=DEBOUNCE_S)) as agent:
            agent.ready()
            return held_complaint(place, agent, good)


def caught_running(runtime: str) -> str:
    """Return what is wrong when the bot empties its file under a running agent, or ''."""
    with Place.scratch() as place:
        good = take_good_snapshot(place, runtime)
        with Agent(place, place.configure(debounce_s=DEBOUNCE_S)) as agent:
            agent.ready()
            place.users.write_bytes(good[: len(good) // 2])
            with bot(place, runtime, "--once", "--empty-on-corrupt") as the_bot:
                started = the_bot.answer()
            return held_complaint(place, agent, good) if started["emptied"] else ""


def held_complaint(place: Place, agent: Agent, good: bytes) -> str:
    if not wait_until(lambda: digest_of(b"{}") in place.digests("suspect"), limit_s=LIMIT_S):
        return "{} is not held as suspect"
    if place.users.read_bytes() != b"{}":
        return "the bot's {} was replaced on suspicion alone"
    if digest_of(good) not in place.digests():
        return "the good snapshot is gone"
    told = wait_until(lambda: agent.total("backup_agent_files", grade="suspect") == 1, limit_s=LIMIT_S)
    return "" if told else "no metric tells of the suspect state"


def pruned(runtime: str, saves: int = 25, *, told: bool = True) -> str:
    """Return what is wrong after a bot pruned the backups folder again and again, or ''.

    `told`: wait for the metric as well; the agent looks for vanished snapshots twice a minute.
    """
    with Place.scratch() as place:
        port = place.configure(debounce_s=DEBOUNCE_S)
        with bot(place, runtime, "--paused", "--rate", "50", "--prune-dir", str(place.backups)) as the_bot:
            the_bot.answer()
            with Agent(place, port) as agent:
                agent.ready()
                gone = []
                for _ in range(saves):
                    the_bot.tell("resume")
                    gone += the_bot.tell("backup")["pruned"]
                    the_bot.tell("pause")
                    time.sleep(DEBOUNCE_S * 1.5)
                if not gone:
                    return "the bot never pruned anything: nothing was shown"
                return unhealed_complaint(place) or told_complaint(agent, told)


def pruned_to_nothing(runtime: str) -> str:
    """Return what is wrong when a bot's own copies of one state pushed out every snapshot of the agent, or ''.

    The file is damaged right afterwards.  The bot's copies lie in the backups folder, under names that are adopted.
    """
    with Place.scratch() as place:
        port = place.configure(debounce_s=DEBOUNCE_S)
        with bot(place, runtime, "--paused", "--prune-dir", str(place.backups)) as the_bot:
            the_bot.answer()
            with Agent(place, port) as agent:
                agent.ready()
                theirs = place.copies()
                while any(path.exists() for path in theirs):
                    the_bot.tell("backup")
                    time.sleep(0.005)  # its names tell milliseconds apart
                return unhealed_complaint(place) or told_complaint(agent, told=True)


def unhealed_complaint(place: Place) -> str:
    """Damage the last state; return '' if it comes back."""
    last = place.users.read_bytes()
    if not wait_until(lambda: digest_of(last) in place.digests(), limit_s=LIMIT_S):
        return "the last state has no snapshot"
    place.users.write_bytes(last[:4096])
    return (
        ""
        if wait_until(lambda: place.users.read_bytes() == last, limit_s=LIMIT_S)
        else "the last state did not come back"
    )


def told_complaint(agent: Agent, told: bool) -> str:
    vanished = not told or wait_until(lambda: agent.total(VANISHED) > 0, limit_s=AUDIT_LIMIT_S)
    return "" if vanished else "snapshots vanished and no metric tells"


VANISHED = "backup_agent_snapshots_vanished_total"
PROOFS: dict[str, Callable[[str], str]] = {
    "gated": gated,
    "ungated": ungated,
    "caught running": caught_running,
    "pruned": pruned,
    "pruned to nothing": pruned_to_nothing,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=["node", "python"], action="append")
    broken = 0
    for runtime in parser.parse_args().runtime or ["node", "python"]:
        for name, proof in PROOFS.items():
            complaint = proof(runtime)
            broken += bool(complaint)
            print(f"{runtime:<8}{name:<20}{complaint or 'as promised'}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
