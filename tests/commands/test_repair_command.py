"""`repair`, on real folders: what can be mended is mended and told, what cannot is left, and the original stays."""

import json

import pytest
from place import USERS, Place

SCHEMA = """
files:
  - path: users.json
    schema:
      type: object
      additionalProperties:
        type: object
        required: [cartridge]
        properties: {cartridge: {type: integer, minimum: 0, default: 0}}
"""
OLD_TAIL = json.dumps(USERS).encode() + b'"}}'


def balances(count: int) -> str:
    return json.dumps({f"id{n:05}": {"cartridge": 4200 + n, "note": "x" * 60} for n in range(count)}, indent=2) + "\n"


def live(place: Place) -> bytes:
    return (place.data / "users.json").read_bytes()


def test_a_file_that_was_never_good_is_mended_and_protected(place: Place) -> None:
    place.write("users.json", OLD_TAIL)

    code, told = place.json("repair", "users.json")

    assert (code, told[0]["outcome"]) == (0, "repaired")
    assert place.read("users.json") == USERS
    assert [s["grade"] for s in place.snapshots()][:1] == ["good"]
    assert (place.backups / told[0]["kept_as"]).read_bytes() == OLD_TAIL


def test_one_bad_field_in_two_megabytes_is_the_only_thing_that_changes(place: Place) -> None:
    place.configure(SCHEMA)
    good = balances(18_000)
    assert len(good) > 2_000_000
    place.write("users.json", good.replace('"cartridge": 13207', '"cartridge": "13207"').encode())

    code, out, _ = place.run("repair", "users.json")

    assert code == 0
    assert live(place) == good.encode()
    assert "/id09007/cartridge" in out


def test_the_balance_of_the_restore_point_comes_before_the_default(place: Place) -> None:
    """Money is never silently set to 0."""
    place.configure(SCHEMA)
    place.write("users.json", balances(20).encode())
    place.run("snapshot")
    place.write("users.json", balances(21).replace('"cartridge": 4207', '"cartridge": null').encode())

    code, out, _ = place.run("repair", "users.json")

    assert code == 0
    assert live(place) == balances(21).encode()
    assert "null -> 4207 (taken from the restore point)" in out


def test_a_default_is_only_taken_where_nothing_else_is_known_and_is_told(place: Place) -> None:
    place.configure(SCHEMA)
    place.write("users.json", balances(20).replace('"cartridge": 4207', '"cartridge": null').encode())

    code, out, _ = place.run("repair", "users.json")

    assert code == 0
    assert "/id00007/cartridge: null -> 0 (the schema's default)" in out


def test_a_dry_run_tells_the_change_and_its_patch_and_touches_nothing(place: Place) -> None:
    place.configure(SCHEMA)
    broken = balances(20).replace('"cartridge": 4207', '"cartridge": "4207"').encode()
    place.write("users.json", broken)

    code, out, _ = place.run("repair", "users.json", "--dry-run", "--patch")

    patch = out[out.index("[") : out.rindex("]") + 1]
    assert code == 0
    assert json.loads(patch) == [{"op": "replace", "path": "/id00007/cartridge", "value": 4207}]
    assert live(place) == broken
    assert not (place.backups / "_quarantine").exists()


def test_the_patch_lies_beside_the_original(place: Place) -> None:
    place.configure(SCHEMA)
    place.write("users.json", balances(20).replace('"cartridge": 4207', '"cartridge": "4207"').encode())

    _, told = place.json("repair", "users.json")

    kept = place.backups / told[0]["kept_as"]
    assert kept.with_name(kept.name + ".patch").read_text() == told[0]["patch"]


def test_a_good_file_has_nothing_to_repair(place: Place) -> None:
    before = live(place)

    code, out, _ = place.run("repair", "users.json")

    assert (code, live(place)) == (0, before)
    assert "nothing to repair" in out


@pytest.mark.parametrize(("is_known", "step"), [(False, "mend it by hand"), (True, "backup-agent restore users.json")])
def test_what_has_no_sole_reading_is_left_with_the_next_step(place: Place, is_known: bool, step: str) -> None:
    if is_known:
        place.run("snapshot")
    place.write("users.json", b'{"1": {"cartr')

    code, out, _ = place.run("repair", "users.json")

    assert code == 3
    assert step in out
    assert live(place) == b'{"1": {"cartr'


@pytest.mark.parametrize("content", [b"{}", None])
def test_a_suspect_or_missing_file_is_no_matter_for_a_repair(place: Place, content: bytes | None) -> None:
    place.run("snapshot")
    (place.data / "users.json").unlink()
    if content is not None:
        place.write("users.json", content)

    code, told = place.json("repair", "users.json")

    assert (code, told[0]["outcome"]) == (3, "not_repairable")
    assert "restore" in told[0]["next"]


def test_a_repair_works_beside_the_daemon(place: Place) -> None:
    place.write("users.json", OLD_TAIL)
    with place.daemon():
        code, told = place.json("repair", "users.json")

    assert code == 0
    assert told[0]["outcome"] in ("repaired", "good")  # a migration at the first start may have been faster
    assert place.read("users.json") == USERS
