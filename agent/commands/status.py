"""`status`: is everything good, and if not, what to do."""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from agent.commands.advice import Step, step_for
from agent.commands.inventory import Entry, by_grade_of, take_inventory
from agent.commands.running import doubts_of_daemon
from agent.commands.session import Session, add_verb, open_session
from agent.commands.wording import advise, age, counted, iso_time, local_time, print_json, say, size
from agent.core.decide import LeftWhy
from agent.core.folding import fold
from agent.core.model import Grade
from agent.core.naming import display
from agent.disk.originals import HOME
from agent.disk.taken import own_bytes
from agent.disk.walk import signature_of
from agent.outcome import Ending, Outcome
from agent.space import room_of

_SHOWN_MAX = 50


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "status",
        help="is everything good, and if not, what to do",
        text="Tell whether the agent runs, how the data files were when last looked at, which need a person and\n"
        "what that person can do, and the space that snapshots take.  `backup-agent check` reads the files anew.",
        example="example:\n  backup-agent status\n\n"
        "exit codes: 0 an agent guards the folder and all is good; 3 something is not good, or no agent runs",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_session(args, only_reads=True) as session:
        entries = take_inventory(session)
        problems = [entry for entry in entries if _is_problem(entry, guarded=session.daemon is not None)]
        doubts = doubts_of_daemon(session.config.state_dir, args.config)
        if args.json:
            print_json({**_as_json(session, entries, problems), "agent_doubts": [what for _, what, _ in doubts]})
        else:
            _print(session, entries, problems, doubts)
    return 3 if problems or session.daemon is None else 0


def _is_problem(entry: Entry, *, guarded: bool) -> bool:
    """Not good; or, without a daemon that is about to see to it, without any good snapshot."""
    if entry.state is None or entry.state.grade is Grade.GOOD:
        return entry.is_there and entry.newest_good is None and not guarded
    return True


def _print(session: Session, entries: list[Entry], problems: list[Entry], doubts: list[tuple[str, str, str]]) -> None:
    now = session.ws.clock.utc()
    if session.daemon is None:
        say("agent:      NOT RUNNING: nothing guards these files, and what follows is as last seen")
        advise("  next: start its service, or `backup-agent run`; `backup-agent check` looks now")
    else:
        say(f"agent:      running (process {session.daemon})")
    for _, what, step in doubts:
        say(f"warning:    {what}")
        say(f"  next: {step}")
    if pause := session.ws.pause():
        advise(f"healing:    paused until {local_time(pause.ends_at)}; `backup-agent resume` ends that")
    changed = _changed_count(session, entries)
    news = f"; {changed:,} changed since then, and not looked at yet" if changed else ""
    say(f"files:      {by_grade_of(entries) or 'none'}{news}")
    last, all_good = _last_good(entries), all(entry.grade in ("good", "gone") for entry in entries)
    since = ", and unchanged since" if all_good and not changed else ""
    say(f"last good:  {f'{local_time(last)}, {age(last, now)}{since}' if last else 'never'}")
    counts, stored = session.ws.catalog.count_snapshots()
    by_grade = ", ".join(f"{count:,} {grade}" for grade, count in sorted(counts.items())) or "none"
    say(f"snapshots:  {by_grade}; {size(stored)} in {display(session.config.backup_dir)}")
    say(f"also:       {_also_taken(_taken(session))}")
    room = room_of(session.ws)
    low = f", low: less than {size(room.low_bytes)}" if room.is_low(was_low=False) else ""
    say(f"free:       {size(room.free_bytes)} beside them{low}")
    if problems:
        say()
        _print_problems(session, entries, problems, now)


def _print_problems(session: Session, entries: list[Entry], problems: list[Entry], now: datetime) -> None:
    """One line for each file, or for many of a folder that are in the same state, and what to do."""
    by_rel = {entry.rel: entry for entry in problems}
    kinds = {entry.rel: (_word(entry), _step(entry)) for entry in problems}
    folds = fold(kinds, (entry.rel for entry in entries), may_be_part=lambda kind: kind[1].of_part is not None)
    for one in folds[:_SHOWN_MAX]:
        name = one.name(session.config.data_dir)
        say(f"{display(name)}: {_told([by_rel[rel] for rel in one.rels], now)}")
        say(f"  next: {one.kind[1].of(name, is_part=one.is_part)}")
    left = sum(len(one.rels) for one in folds[_SHOWN_MAX:])
    if left:
        advise(f"and {counted(left, 'other')}; `backup-agent list` shows all")


def _word(entry: Entry) -> str:
    if entry.state is None or entry.state.grade is Grade.GOOD:
        return "new"
    return "gone" if entry.since is None and entry.state.grade is Grade.MISSING else entry.state.grade.value


def _told(entries: Sequence[Entry], now: datetime) -> str:
    """How one file is, or several that are alike: then since when the first of them is."""
    count = f"{len(entries):,} files " if len(entries) > 1 else ""
    word = _word(entries[0])
    if word == "new":
        return f"{count}without a snapshot yet" if count else "no snapshot of it yet"
    states = [entry.state for entry in entries if entry.state is not None]
    last_good = [state.last_good_at for state in states if state.last_good_at]
    good = f"last good {age(min(last_good), now)}" if last_good else "never seen good"
    if entries[0].since is None:
        return f"{count}{word} now, {good}"  # the agent has not noticed it yet
    heals = max(state.heals for state in states)
    tries = f", healing was given up after {heals} {'try' if heals == 1 else 'tries'}" if states[0].gave_up else ""
    return f"{count}{word} since {local_time(min(state.since for state in states))}, {good}{tries}"


def _step(entry: Entry) -> Step:
    state = entry.state
    if state is None or state.grade is Grade.GOOD:
        step = "`backup-agent run` guards it, `backup-agent snapshot` takes one now"
        return Step(step, of_part=step)
    if state.gave_up:
        return Step("the bot writes the damage back: stop it, `backup-agent restore {name}`, start it")
    damaged = state.grade in (Grade.CORRUPT, Grade.INVALID)
    reason = LeftWhy.NEVER_GOOD if damaged and entry.newest_good is None else None
    return step_for(Outcome(entry.rel, Ending.LEFT, grade=state.grade, left_why=reason))


def _changed_count(session: Session, entries: list[Entry]) -> int:
    """How many files were good when they were seen, and are not as they were then."""
    count = 0
    for entry in entries:
        if entry.state is None or entry.state.grade is not Grade.GOOD:
            continue
        try:
            now = signature_of(os.lstat(os.path.join(session.config.data_dir, entry.rel)))
        except OSError:
            now = None
        count += now is None or now != entry.state.signature
    return count


def _last_good(entries: list[Entry]) -> datetime | None:
    return max((e.state.last_good_at for e in entries if e.state and e.state.last_good_at), default=None)


def _taken(session: Session) -> dict[str, int]:
    """What the backup folder holds, in bytes: within the snapshots, and beside them."""
    stored = session.ws.catalog.stored_by_grade()
    config = session.config
    return {
        "quarantine_bytes": sum(stored.get(grade, 0) for grade in (Grade.CORRUPT, Grade.INVALID)),
        "originals_bytes": own_bytes(os.path.join(config.backup_dir, HOME)),
        "state_bytes": own_bytes(config.state_dir),
    }


def _also_taken(taken: dict[str, int]) -> str:
    parts = [f"{size(taken['state_bytes'])} of the agent's notes in .agent"]
    if taken["originals_bytes"]:
        parts.insert(0, f"{size(taken['originals_bytes'])} of originals in _migration")
    if taken["quarantine_bytes"]:
        parts.append(f"and of the snapshots {size(taken['quarantine_bytes'])} are in _quarantine")
    return ", ".join(parts)


def _as_json(session: Session, entries: list[Entry], problems: list[Entry]) -> dict[str, object]:
    counts, stored = session.ws.catalog.count_snapshots()
    room = room_of(session.ws)
    return {
        "ok": not problems and session.daemon is not None,
        "daemon_pid": session.daemon,
        "paused_until": iso_time(pause.ends_at) if (pause := session.ws.pause()) else None,
        "data_dir": session.config.data_dir,
        "backup_dir": session.config.backup_dir,
        "changed_files": _changed_count(session, entries),
        "files": dict(sorted(Counter(entry.grade for entry in entries if entry.grade != "gone").items())),
        "last_good_at": iso_time(_last_good(entries)),
        "given_up": session.ws.catalog.count_given_up(),
        "snapshots": {grade.value: count for grade, count in sorted(counts.items())},
        "stored_bytes": stored,
        **_taken(session),
        "free_bytes": room.free_bytes,
        "disk_low": room.is_low(was_low=False),
        "problems": [
            {
                "file": entry.rel,
                "state": entry.grade,
                "since": iso_time(entry.since),
                "last_good_at": iso_time(entry.state.last_good_at) if entry.state else None,
                "gave_up": entry.state.gave_up if entry.state else False,
                "next": _step(entry).of(entry.rel),
            }
            for entry in problems
        ],
    }
