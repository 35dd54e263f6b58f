"""`pause` and `resume`: nothing is healed while a person works on the files by hand."""

import argparse
from datetime import timedelta

from agent.commands.session import add_verb, open_session
from agent.commands.wording import advise, age, iso_time, local_time, print_json, say
from agent.config.units import UnfitError, format_duration, parse_duration
from agent.core.errors import UsageError
from agent.disk.pause import LONGEST, begin_pause, end_pause

_DEFAULT = "1h"


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pause = add_verb(
        verbs,
        "pause",
        help="heal nothing for a while, for work by hand",
        text="Heal nothing for a while, so that you can work on the files by hand: neither the agent, nor its next\n"
        "start, nor `check --heal` touches a damaged or missing file; `restore` still does what you ask for.\n"
        "Snapshots and alerts go on.  What was left is looked at again at the end of the pause, which comes\n"
        "by itself, after a reboot too, and never later than asked for, whatever the clock does.",
        example="examples:\n  backup-agent pause\n  backup-agent pause 15m\n\n"
        "exit codes: 0 paused, 2 no such duration (at most 24h)",
    )
    pause.add_argument(
        "duration", metavar="DURATION", nargs="?", default=_DEFAULT, help=f"such as 15m or 2h (default: {_DEFAULT})"
    )
    pause.set_defaults(run=run_pause)
    resume = add_verb(
        verbs,
        "resume",
        help="end a pause: heal again",
        text="End a pause: what is damaged is looked at again, and healed.",
        example="example:\n  backup-agent resume\n\nexit codes: 0 healing goes on, also where it was not paused",
    )
    resume.set_defaults(run=run_resume)


def run_pause(args: argparse.Namespace) -> int:
    length = _length(args.duration)
    with open_session(args, only_reads=True) as session:
        ws = session.ws
        pause = begin_pause(session.config.state_dir, length, now=ws.clock.utc(), steady_s=ws.clock.monotonic())
    if args.json:
        print_json({"paused_until": iso_time(pause.ends_at)})
    else:
        advise(f"paused: nothing is healed until {local_time(pause.ends_at)}; `backup-agent resume` ends it early")
    return 0


def _length(text: str) -> timedelta:
    try:
        length = timedelta(seconds=parse_duration(text))
    except UnfitError as error:
        raise UsageError(str(error), hint=error.hint or "write a number and a unit, such as 15m or 2h") from error
    if not timedelta() < length <= LONGEST:
        longest = format_duration(LONGEST.total_seconds())
        raise UsageError(f"a pause of {text} is not possible", hint=f"it may last up to {longest}, such as 15m or 2h")
    return length


def run_resume(args: argparse.Namespace) -> int:
    with open_session(args, only_reads=True) as session:
        before = session.ws.pause()
        end_pause(session.config.state_dir)
        now = session.ws.clock.utc()
    if args.json:
        print_json({"paused_until": None, "was_paused": before is not None})
    elif before is None:
        say("healing was not paused")
    else:
        say(f"healing goes on; it was paused {age(before.began_at, now)}")
    return 0
