"""The operations of the command line: each runs in a forked child through the code of its command."""

from invariants import ABSENT, Expected
from subject import (
    DAMAGE,
    EMPTIED,
    GUILD,
    SETTINGS,
    USERS,
    Operation,
    Place,
    all_kept,
    changed,
    digests,
    document,
    expect,
    from_one_to_two,
    protected,
)
from syscalls import mark

# snapshots

SNAPSHOT = Operation(
    "snapshot of changed files",
    changed,
    lambda place: place.agent("snapshot"),
    lambda place: from_one_to_two(place, mended=False),
    lambda place: from_one_to_two(place, mended=True),
    lambda place: all_kept(place, USERS, SETTINGS, GUILD),
)
COMPRESSED = Operation(
    "snapshot, compressed",
    lambda place: changed(place, backup={"compression": "gzip", "min_free": "none"}),
    SNAPSHOT.act,
    SNAPSHOT.fault,
    SNAPSHOT.mended,
    lambda place: all(len(place.copies(rel)) == 2 for rel in (USERS, SETTINGS, GUILD)),
)


def _of_large_files(name: str, records: int) -> Operation:
    """Snapshots of two files with so many records, one of which had a snapshot of this size before."""
    one, first, second, third = document(1), document(1, records), document(2, records), document(3, records)

    def prepare(place: Place) -> None:
        protected(place)
        place.write(USERS, first)
        assert place.agent("snapshot") == 0
        place.write(USERS, second)
        place.write(GUILD, third)

    def kept(place: Place, *, mended: bool) -> Expected:
        start, before, users, guild = digests(one, first, second, third)
        good = {USERS: [start, before, users], SETTINGS: [start], GUILD: [start, guild]}
        newest = {USERS: [users], SETTINGS: [start], GUILD: [guild]}
        return expect(place, {rel: tuple(last) for rel, last in newest.items()}, newest if mended else good)

    return Operation(
        name,
        prepare,
        lambda place: place.agent("snapshot"),
        lambda place: kept(place, mended=False),
        lambda place: kept(place, mended=True),
        lambda place: all_kept(place, USERS, GUILD),
    )


LARGE_SNAPSHOT = _of_large_files("snapshot of large files", 7_000)  # a copy is made ready beside the check
PRIVATE_SNAPSHOT = _of_large_files("snapshot of private copies", 110_000)  # above 4 MiB, checked in a child

BATCH = [f"{folder}user{number}.json" for number in range(25) for folder in ("", "rooms/")]


def _batch(place: Place) -> None:
    place.configure(files=[])
    for rel in BATCH[:10]:
        place.write(rel, document(1, records=3))
    assert place.agent("snapshot") == 0
    for rel in BATCH:
        place.write(rel, document(2, records=3))


def _batched(place: Place, *, mended: bool) -> Expected:
    one, two = digests(document(1, records=3), document(2, records=3))
    good = {key: [two] for key in BATCH} if mended else {key: [one, two] for key in BATCH[:10]}
    return expect(place, dict.fromkeys(BATCH, (two,)), good)


FIFTY = Operation(
    "batch of 50 files",
    _batch,
    lambda place: place.agent("snapshot"),
    lambda place: _batched(place, mended=False),
    lambda place: _batched(place, mended=True),
    lambda place: all_kept(place, *BATCH),
)


# rotation


def _full(place: Place) -> None:
    none = {"keep_last": 2, "keep_intervals": 0, "keep_hourly": 0, "keep_daily": 0}
    place.configure(backup={"retention": none, "min_free": "none"})
    for number in (1, 2, 3):
        place.write(USERS, document(number))
        assert place.agent("snapshot") == 0
    place.write(USERS, document(4))


ROTATION = Operation(
    "rotation",
    _full,
    lambda place: place.agent("snapshot"),
    lambda place: expect(
        place, {USERS: tuple(digests(document(4)))}, {USERS: digests(document(3), document(4))}, document(3)
    ),
    lambda place: expect(place, {USERS: tuple(digests(document(4)))}, {USERS: digests(document(4))}, document(3)),
    lambda place: all_kept(place, USERS) and len(place.copies()) == 2,
    deletes=True,
    caught_up=lambda place: all_kept(place, USERS),  # a rotation that failed is made up for at the next publish
)


# restore, heal, accept


def _two_kept_and_a_third(place: Place) -> None:
    protected(place)
    place.write(USERS, document(2))
    assert place.agent("snapshot") == 0
    place.write(USERS, document(3))


def _restored(place: Place, *, mended: bool) -> Expected:
    one, two, three = digests(document(1), document(2), document(3))
    good = [one, three] if mended else [two, three, one]
    return expect(place, {USERS: (one, three)}, {USERS: good}, document(3))


def _restore_the_oldest(place: Place) -> int:
    oldest = place.copies()[0].name
    mark()
    return place.agent("restore", str(place.data / USERS), "--snapshot", oldest)


RESTORE = Operation(
    "restore",
    _two_kept_and_a_third,
    _restore_the_oldest,
    lambda place: _restored(place, mended=False),
    lambda place: _restored(place, mended=True),
    lambda place: (place.data / USERS).read_bytes() == document(1) and all_kept(place, USERS),
    asked=lambda place: (place.data / USERS).read_bytes() == document(1),
    from_mark=True,
)


def _damaged(place: Place) -> None:
    protected(place, files=[{"path": SETTINGS, "required": True}])
    place.write(USERS, DAMAGE)
    place.write(GUILD, b"\xef\xbb\xbf" + document(2))
    (place.data / SETTINGS).unlink()
    place.know(document(2))


def _healed(place: Place, *, mended: bool) -> Expected:
    one, two = digests(document(1), document(2))
    live = {USERS: (one,), SETTINGS: (one,), GUILD: (two,)}
    good = {USERS: [one], SETTINGS: [one], GUILD: [one, two]}
    damaged = (DAMAGE, b"\xef\xbb\xbf" + document(2))
    if not mended:
        was = digests(*damaged)
        live = {USERS: (one, was[0]), SETTINGS: (one, ABSENT), GUILD: (two, was[1])}
    return expect(place, live, good, *damaged)


def _is_healed(place: Place) -> bool:
    shown = [
        (place.data / rel).read_bytes() if (place.data / rel).exists() else b"" for rel in (USERS, SETTINGS, GUILD)
    ]
    return shown == [document(1), document(1), document(2)] and bool(place.copies(USERS, "quarantined"))


HEAL = Operation(
    "heal at the gate",
    _damaged,
    lambda place: place.agent("check", "--heal"),
    lambda place: _healed(place, mended=False),
    lambda place: _healed(place, mended=True),
    _is_healed,
)


def _suspected(place: Place) -> None:
    protected(place)
    place.write(USERS, EMPTIED)
    assert place.agent("snapshot") == 3


def _accepted(place: Place) -> Expected:
    one, empty = digests(document(1), EMPTIED)
    return expect(place, {USERS: (empty,)}, {USERS: [one, empty]}, EMPTIED, document(1))


ACCEPT = Operation(
    "accept",
    _suspected,
    lambda place: place.agent("accept", str(place.data / USERS)),
    _accepted,
    _accepted,
    lambda place: all_kept(place, USERS) and not place.copies(USERS, "suspect"),
    restarts=frozenset({0, 3}),
)


# the catalog is lost


def _rich(place: Place) -> None:
    """Good, pinned, suspect and quarantined copies, and a change that nobody has seen."""
    protected(place)
    assert place.agent("snapshot", "--pin", str(place.data / GUILD)) == 0
    place.write(SETTINGS, DAMAGE)
    assert place.agent("check", "--heal") == 0
    place.write(USERS, EMPTIED)
    assert place.agent("snapshot", str(place.data / USERS)) == 3
    place.write(USERS, document(2))


def _without_catalog(place: Place) -> None:
    _rich(place)
    for path in (place.backups / ".agent").glob("catalog*"):
        path.unlink()


def _with_damaged_catalog(place: Place) -> None:
    _rich(place)
    path = place.backups / ".agent/catalog.sqlite3"
    path.write_bytes(b"no database" * 500)


def _rebuilt(place: Place, *, mended: bool) -> Expected:
    one, two = digests(document(1), document(2))
    good = {USERS: [two] if mended else [one, two], SETTINGS: [one], GUILD: [one]}
    return expect(place, {USERS: (two,), SETTINGS: (one,), GUILD: (one,)}, good, DAMAGE, EMPTIED, document(1))


REBUILD = Operation(
    "catalog rebuild",
    _without_catalog,
    lambda place: place.agent("check", "--heal"),
    lambda place: _rebuilt(place, mended=False),
    lambda place: _rebuilt(place, mended=True),
    lambda place: all_kept(place, USERS, SETTINGS, GUILD),
)
DAMAGED_CATALOG = Operation(
    "damaged catalog",
    _with_damaged_catalog,
    REBUILD.act,
    REBUILD.fault,
    REBUILD.mended,
    REBUILD.done,
)


COMMANDS = (
    SNAPSHOT, LARGE_SNAPSHOT, PRIVATE_SNAPSHOT, COMPRESSED, ROTATION, RESTORE, HEAL, ACCEPT, REBUILD, DAMAGED_CATALOG,
    FIFTY,
)  # fmt: skip
