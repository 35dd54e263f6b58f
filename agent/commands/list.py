"""`list`: the data files that are looked after, or the snapshots of one."""

import argparse
from collections.abc import Iterator, Sequence

from agent.commands.inventory import Entry, by_grade_of, take_inventory
from agent.commands.names import Meant, meant_by
from agent.commands.session import Session, add_verb, open_session
from agent.commands.wording import (
    advise,
    age,
    counted,
    iso_time,
    local_time,
    print_json,
    records,
    say,
    size,
    snapshot_as_json,
    table,
)
from agent.core.decide import restore_candidates
from agent.core.model import Grade, Snapshot
from agent.core.naming import display
from agent.core.paste import shell_word

_ASIDE = (Grade.CORRUPT, Grade.INVALID)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "list",
        help="list the data files, or the snapshots of one",
        text="Without FILE: every data file, how it was when last looked at, and how many snapshots there are;\n"
        "with a folder, those in it, also those that are gone.\n"
        "With FILE: its snapshots, newest first, each with what came or went since the good one before; `->`\n"
        "marks the restore point, the one that `backup-agent restore FILE` would put back.",
        example="examples:\n  backup-agent list\n  backup-agent list data/guilds/\n  backup-agent list data/users.json",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a data file, or a folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_session(args, only_reads=True) as session:
        meant = meant_by(session, args.file) if args.file is not None else None
        if meant is None or meant.is_folder:
            _list_files(session, meant, as_json=args.json)
        else:
            _list_snapshots(session, meant.rels[0], as_json=args.json)
    return 0


def _list_files(session: Session, folder: Meant | None, *, as_json: bool) -> None:
    entries = [e for e in take_inventory(session) if folder is None or e.rel in folder.rels]
    if as_json:
        print_json([_file_as_json(entry) for entry in entries])
        return
    if not entries:
        say(f"no data files in {display(session.config.data_dir)}")
        return
    now = session.ws.clock.utc()
    rows = [
        (
            display(e.rel),
            e.grade,
            local_time(e.state.last_good_at) if e.state and e.state.last_good_at else "never",
            *(str(e.counts[grade] or "-") for grade in (Grade.GOOD, Grade.SUSPECT)),
            str(sum(e.counts[grade] for grade in _ASIDE) or "-"),
            age(e.newest.taken_at, now) if e.newest else "none",
        )
        for e in entries
    ]
    headers = ("FILE", "STATE", "LAST GOOD", "GOOD", "SUSPECT", "QUARANTINED", "NEWEST SNAPSHOT")
    for line in table(headers, rows, right=(3, 4, 5)):
        say(line)
    last_seen = "" if session.daemon else "; no agent runs, so this is as last seen: `backup-agent check` looks now"
    advise(f"{counted(len(entries), 'file')}: {by_grade_of(entries) or 'gone, and snapshots left'}{last_seen}")


def _file_as_json(entry: Entry) -> dict[str, object]:
    state = entry.state
    return {
        "file": entry.rel,
        "state": entry.grade,
        "since": iso_time(entry.since),
        "last_good_at": iso_time(state.last_good_at) if state else None,
        "gave_up": state.gave_up if state else False,
        "snapshots": {grade.value: count for grade, count in sorted(entry.counts.items())},
        "newest_snapshot": entry.newest.name if entry.newest else None,
        "newest_snapshot_at": iso_time(entry.newest.taken_at) if entry.newest else None,
    }


def _list_snapshots(session: Session, rel: str, *, as_json: bool) -> None:
    snapshots = session.ws.catalog.snapshots(rel)
    point = next((s for s in restore_candidates(snapshots) if session.ws.store.is_intact(s)), None)
    if as_json:
        print_json(
            [
                {**snapshot_as_json(s), **_change_as_json(s, before), "restore_point": s == point}
                for s, before in _with_before(snapshots)
            ]
        )
        return
    if not snapshots:
        advise(f"{display(rel)}: no snapshots yet; `backup-agent snapshot {shell_word(rel)}` takes one")
        return
    now = session.ws.clock.utc()
    rows = [
        (
            "->" if s == point else "",
            local_time(s.taken_at),
            age(s.taken_at, now),
            size(s.size_bytes),
            records(s.shape),
            _change(s, before),
            s.grade.value,
            s.reason.value.replace("_", " "),
            _remark(s),
            display(s.name),
        )
        for s, before in _with_before(snapshots)
    ]
    headers = ("", "TAKEN", "AGE", "SIZE", "RECORDS", "CHANGE", "GRADE", "REASON", "", "NAME")
    for line in table(headers, rows, right=(3, 4)):
        say(line)
    restored = (
        "-> is what a restore puts back" if point else "none of them is whole and good: a restore needs --snapshot"
    )
    say(f"{display(rel)}: {counted(len(snapshots), 'snapshot')}; {restored}")


def _with_before(newest_first: Sequence[Snapshot]) -> Iterator[tuple[Snapshot, Snapshot | None]]:
    """Yield each snapshot with the newest good one that is older."""
    for rank, snapshot in enumerate(newest_first, start=1):
        yield snapshot, next((s for s in newest_first[rank:] if s.grade is Grade.GOOD), None)


def _change(snapshot: Snapshot, before: Snapshot | None) -> str:
    """How much came or went since the state before, as far as the catalog tells: `+1 record`, `-12 bytes`."""
    told = _change_as_json(snapshot, before)
    parts = [
        f"{count:+,} {noun}{'' if abs(count) == 1 else 's'}"
        for count, noun in ((told["records_change"], "record"), (told["bytes_change"], "byte"))
        if count
    ]
    return ", ".join(parts) or ("-" if before is None else "same size")


def _change_as_json(snapshot: Snapshot, before: Snapshot | None) -> dict[str, int | None]:
    now, then = (s.shape.records if s is not None and s.shape is not None else None for s in (snapshot, before))
    return {
        "records_change": None if now is None or then is None else now - then,
        "bytes_change": None if before is None else snapshot.size_bytes - before.size_bytes,
    }


def _remark(snapshot: Snapshot) -> str:
    remarks = ["pinned"] if snapshot.pinned else []
    if snapshot.grade is not Grade.GOOD:
        remarks.append("never chosen by a restore")
    return ", ".join(remarks)
