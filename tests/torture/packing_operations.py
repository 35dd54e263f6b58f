"""Operations on packed snapshots: restoring one, rotation of a whole group, and an erasure that unpacks."""

import hashlib
import json

from invariants import Expected, reference_of
from subject import USERS, Operation, Place, digests, expect
from syscalls import mark

COUNT = 6
SECRET = "user 7"
_KEEP_ALL = {"keep_last": 50}
_KEEP_FEW = {"keep_last": 3, "keep_intervals": 0, "keep_hourly": 0, "keep_daily": 0}


def bulky(number: int, without: str = "") -> bytes:
    """A state that does not compress below what is packed at all, and differs little from the next."""
    users = {f"user {i}": {"key": hashlib.sha256(b"%d" % i).hexdigest(), "coins": i} for i in range(300)}
    users["user 1"]["coins"] = number
    users.pop(without, None)
    return json.dumps(users, indent=1).encode()


STATES = [bulky(number) for number in range(COUNT)]
ERASED = [bulky(number, SECRET) for number in range(COUNT)]


def _taken(place: Place) -> None:
    """Six snapshots, none packed; the config wants the three old ones to be."""
    place.configure(backup={"compression": "zstd", "min_free": "none", "retention": _KEEP_ALL})
    for state in STATES:
        place.write(USERS, state)
        assert place.agent("snapshot") == 0
    place.configure(backup=_packing(_KEEP_ALL))


def _packing(retention: dict[str, int]) -> dict[str, object]:
    return {"compression": "zstd", "packing": True, "min_free": "none", "retention": retention}


def _packed(place: Place) -> None:
    _taken(place)
    assert place.agent("prune", "--yes") == 0
    assert packed_count(place) == COUNT - 3


def packed_count(place: Place) -> int:
    return sum(reference_of(path.read_bytes()) is not None for path in place.copies())


def references(place: Place) -> int:
    return len([path for path in (place.backups / "_reference").rglob("*") if path.is_file()])


def _restore_the_oldest(place: Place) -> int:
    oldest = place.copies()[0].name
    mark()
    return place.agent("restore", str(place.data / USERS), "--snapshot", oldest)


def _restored(place: Place) -> Expected:
    either = digests(STATES[0], STATES[-1])
    return expect(place, {USERS: tuple(either)}, {USERS: either}, *STATES)


RESTORE_PACKED = Operation(
    "restore of a packed one",
    _packed,
    _restore_the_oldest,
    _restored,
    _restored,
    lambda place: (place.data / USERS).read_bytes() == STATES[0],
    from_mark=True,
)


def _packed_and_few_wanted(place: Place) -> None:
    _packed(place)
    place.configure(backup=_packing(_KEEP_FEW))


def _newest_kept(place: Place) -> Expected:
    newest = digests(STATES[-1])
    return expect(place, {USERS: tuple(newest)}, {USERS: newest}, *STATES[3:])


ROTATE_PACKED = Operation(
    "rotation of a packed group",
    _packed_and_few_wanted,
    lambda place: place.agent("prune", "--yes"),
    _newest_kept,
    _newest_kept,
    lambda place: len(place.copies()) == 3 and references(place) == 0,
    deletes=True,
)


def _packed_and_to_erase(place: Place) -> None:
    _packed(place)
    place.know(*ERASED)


def _erased(place: Place) -> Expected:
    either = digests(STATES[-1], ERASED[-1])
    return expect(place, {USERS: tuple(either)}, {USERS: either})


def _has_no_trace(place: Place) -> bool:
    from backports import zstd

    plain = [zstd.decompress(path.read_bytes()) for path in place.copies() if reference_of(path.read_bytes()) is None]
    return not references(place) and not packed_count(place) and not any(SECRET.encode() + b'"' in p for p in plain)


ERASE_PACKED = Operation(
    "erasure from packed ones",
    _packed_and_to_erase,
    lambda place: place.agent("forget-record", str(place.data / USERS), SECRET, "--yes"),
    _erased,
    _erased,
    _has_no_trace,
    ends=frozenset({0, 4}),
)

PACKINGS = (RESTORE_PACKED, ROTATE_PACKED, ERASE_PACKED)
