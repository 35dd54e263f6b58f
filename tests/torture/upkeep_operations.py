"""The operations that change what is kept: pin, prune, one record brought back or forgotten, migration, journal, packing."""

import json
import os
import sqlite3
import sys

from announced import is_pinned
from invariants import Expected, digest_of, is_packed
from subject import (
    DAMAGE,
    GUILD,
    MODES,
    SETTINGS,
    USERS,
    Operation,
    Place,
    all_kept,
    digests,
    document,
    expect,
    protected,
)
from syscalls import mark

from agent.compaction import Compaction
from agent.config import load_config
from agent.core.model import Reason
from agent.core.settle import Due
from agent.disk import lease
from agent.logs import configure_logs
from agent.pack import pack_file
from agent.pipeline import Pipeline
from agent.recover import mark_clean, recover
from agent.workspace import SystemClock, Workspace

RECORD = "user 3"
JOURNAL = ".agent/journal.jsonl"


def without_record(number: int) -> bytes:
    """`document(number)` as it is once the record was taken out of its text."""
    records = {key: value for key, value in json.loads(document(number)).items() if key != RECORD}
    return json.dumps(records, indent=1).encode()


# pin, prune


def at_rest(place: Place) -> Expected:
    (one,) = digests(document(1))
    return expect(place, dict.fromkeys(MODES, (one,)), {rel: [one] for rel in MODES})


def _pin(place: Place) -> int:
    name = place.copies()[0].name
    mark()
    return place.agent("pin", name)


PIN = Operation(
    "pin", protected, _pin, at_rest, at_rest, lambda place: is_pinned(place.backups), from_mark=True
)  # fmt: skip


def _four_states(place: Place) -> None:
    """All are kept, and then a config says that only the newest shall be."""
    protected(place)
    for number in (2, 3, 4):
        place.write(USERS, document(number))
        assert place.agent("snapshot") == 0
    one = {"keep_last": 1, "keep_intervals": 0, "keep_hourly": 0, "keep_daily": 0}
    place.configure(backup={"retention": one, "min_free": "none"})


def _newest_of_four(place: Place) -> Expected:
    (four,) = digests(document(4))
    return expect(place, {USERS: (four,)}, {USERS: [four]})


PRUNE = Operation(
    "prune",
    _four_states,
    lambda place: place.agent("prune", "--yes"),
    _newest_of_four,
    _newest_of_four,
    lambda place: len(place.copies()) == 1,
    deletes=True,
)


# one record


def _record_lost(place: Place) -> None:
    protected(place)
    place.write(USERS, without_record(2))
    place.know(_with_record_of_old())


def _with_record_of_old() -> bytes:
    """The second state with the record of the first, which comes last: it had no place there any more."""
    records = json.loads(without_record(2))
    records[RECORD] = json.loads(document(1))[RECORD]
    return json.dumps(records, indent=1).encode()


def _record_is_back(place: Place) -> Expected:
    one, lost, back = digests(document(1), without_record(2), _with_record_of_old())
    return expect(place, {USERS: (lost, back)}, {USERS: [one, lost, back]}, without_record(2))


def _has_record(place: Place) -> bool:
    return RECORD in json.loads((place.data / USERS).read_bytes())


RESTORE_RECORD = Operation(
    "one record restored",
    _record_lost,
    lambda place: place.agent("restore", str(place.data / USERS), "--key", RECORD),
    _record_is_back,
    _record_is_back,
    lambda place: _has_record(place) and all_kept(place, USERS),
    asked=_has_record,
)


def _to_forget(place: Place) -> None:
    protected(place)
    place.write(USERS, document(2))
    assert place.agent("snapshot") == 0
    place.know(without_record(1), without_record(2))


def _forgotten(place: Place) -> Expected:
    two, gone = digests(document(2), without_record(2))
    return expect(place, {USERS: (two, gone)}, {USERS: [two, gone]})


def _is_forgotten(place: Place) -> bool:
    paths = [place.data / USERS, *place.copies(), *place.copies(kind="quarantined"), *place.copies(kind="suspect")]
    return not any(RECORD in path.read_text() for path in paths)


FORGET_RECORD = Operation(
    "one record forgotten",
    _to_forget,
    lambda place: place.agent("forget-record", str(place.data / USERS), RECORD, "--yes"),
    _forgotten,
    _forgotten,
    _is_forgotten,
    deletes=True,  # what cannot be taken apart
    restarts=frozenset({0, 4}),  # done again, it finds no record any more
)


# a folder that nobody guarded


def _with_backups_of_old(place: Place) -> None:
    place.configure()
    place.write(USERS, DAMAGE)
    place.write(SETTINGS, document(1))
    place.write(GUILD, b"\xef\xbb\xbf" + document(1))
    place.backups.mkdir(mode=0o700)
    old = place.backups / "users_backup_2024-01-01T12-00-00-000Z.json"
    old.write_bytes(document(1))
    old.chmod(MODES[USERS])
    place.know(document(1))


def _migrated(place: Place) -> Expected:
    one, damaged, bom = digests(document(1), DAMAGE, b"\xef\xbb\xbf" + document(1))
    live = {USERS: (one, damaged), SETTINGS: (one,), GUILD: (one, bom)}
    return expect(place, live, {USERS: [one]}, document(1))


MIGRATE = Operation(
    "migration",
    _with_backups_of_old,
    lambda place: place.agent("migrate"),
    _migrated,
    _migrated,
    lambda place: all_kept(place, USERS, SETTINGS, GUILD) and (place.data / USERS).read_bytes() == document(1),
    restarts=frozenset({0, 3}),  # what was never good is mended by the migration alone
    caught_up=lambda place: all_kept(place, USERS, SETTINGS) and (place.data / USERS).read_bytes() == document(1),
)


# the journal


def long_journal(place: Place) -> list[dict[str, object]]:
    """Lines that speak of snapshots that are gone."""
    gone = {"op": "publish", "name": "gone", "rel": "gone.json", "digest": "0" * 64, "size": 1, "why": "x" * 900}
    return [{**gone, "name": f"gone {number}"} for number in range(1500)]


def is_short(place: Place) -> bool:
    return (place.backups / JOURNAL).stat().st_size < 100_000


def _shorten(place: Place) -> int:
    """As the running daemon does: a snapshot comes after the mark, then it is shortened, then one more comes."""
    lease.ignore_break_signal()
    configure_logs("json", "info", sys.stderr)
    failures: list[Exception] = []
    ws = Workspace.open(load_config(str(place.root / "agent.yaml"), None, os.environ), SystemClock())
    recover(ws)
    ws.journal.append_durably(*long_journal(place))
    compaction, pipeline = Compaction(ws, failures.append), Pipeline(ws)
    compaction.due(0)
    pipeline.run([Due(USERS, quiet=True, first_at=0)], Reason.CHANGE)
    works = [work for now in (100, 200, 300) if (work := compaction.due(now)) is not None]
    mark()
    for work in works:
        work()
    try:
        if not failures:
            failures += [
                o.error for o in pipeline.run([Due(SETTINGS, quiet=True, first_at=0)], Reason.CHANGE) if o.error
            ]
            mark_clean(ws)
    except (OSError, sqlite3.Error) as error:
        failures.append(error)
    for failure in failures:
        print(f"{place.backups / JOURNAL}: {failure}")
    return 1 if failures else 0


def _changed_two(place: Place) -> None:
    protected(place)
    for rel in (USERS, SETTINGS):
        place.write(rel, document(2))


def _two_changed(place: Place) -> Expected:
    one, two = digests(document(1), document(2))
    return expect(place, {USERS: (two,), SETTINGS: (two,), GUILD: (one,)}, {USERS: [one, two], SETTINGS: [one, two]})


SHORTEN = Operation(
    "journal made short while running",
    _changed_two,
    _shorten,
    _two_changed,
    _two_changed,
    lambda place: is_short(place) and all_kept(place, USERS, SETTINGS),
    from_mark=True,
)

# packing


def _large(number: int) -> bytes:
    """What hardly gets smaller by compression, and is nearly the same as the one before."""
    records = {f"user {i}": {"token": digest_of(f"{i}".encode()), "cartridge": number + i} for i in range(400)}
    return json.dumps(records, indent=1).encode()


def _seven_large(place: Place) -> None:
    place.configure(backup={"compression": "zstd", "packing": True, "min_free": "none"}, files=[])
    for number in range(7):
        place.write(USERS, _large(number))
        assert place.agent("snapshot") == 0


def _pack(place: Place) -> int:
    """As the running daemon does, one step after the other."""
    lease.ignore_break_signal()
    configure_logs("json", "info", sys.stderr)
    ws = Workspace.open(load_config(str(place.root / "agent.yaml"), None, os.environ), SystemClock())
    recover(ws)
    mark()
    failures: list[object] = []
    try:
        for done in pack_file(ws, USERS):
            failures = [f"{name}: {error}" for name, error in done.failures]
        mark_clean(ws)
    except (OSError, sqlite3.Error) as error:
        failures.append(f"{place.backups}: {error}")
    print(*failures, sep="\n")
    return 1 if failures else 0


def _all_seven(place: Place) -> Expected:
    states = [_large(number) for number in range(7)]
    newest = digest_of(states[-1])
    return expect(place, {USERS: (newest,)}, {USERS: [newest]}, *states)


PACK = Operation(
    "packing",
    _seven_large,
    _pack,
    _all_seven,
    _all_seven,
    lambda place: sum(map(is_packed, place.copies())) == 4,
    from_mark=True,
)

UPKEEP = (PIN, PRUNE, RESTORE_RECORD, FORGET_RECORD, MIGRATE, SHORTEN, PACK)
