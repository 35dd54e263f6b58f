"""Packing in a real folder: what is packed, what opens it, and what a damaged reference costs."""

import atexit
import errno
import json
import os
import random
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench

from agent import references
from agent.commands.show import open_with
from agent.config import load_config
from agent.core.json_places import JsonText
from agent.core.model import Snapshot
from agent.core.packing import UNPACKED_NEWEST
from agent.disk import references as on_disk
from agent.disk.packer import PackingStopped
from agent.disk.references import note_of, notes_of
from agent.erase import Fate, erase
from agent.pack import Packed, pack_file
from agent.recover import recover
from agent.references import drop_unneeded, learn_references, look, references_lock
from agent.rotation import delete, make_room
from agent.verify import Verifier
from agent.verify_report import Report
from agent.workspace import Workspace

PACKING = "backup: {compression: zstd, packing: true, retention: {keep_last: 1000}}"


def states(count: int, records: int = 300, changed: int = 3) -> list[bytes]:
    """A bot's file over time: in each state some records differ from the one before."""
    chance = random.Random(7)
    users = {str(n): {"coins": 0, "key": f"{chance.randrange(16**64):064x}"} for n in range(records)}
    found = []
    for _ in range(count):
        for name in chance.sample(sorted(users), changed):
            users[name]["coins"] = chance.randrange(10**6)
        found.append(json.dumps(users, indent=1).encode())
    return found


STATES = states(12, changed=200)
OLD = len(STATES) - UNPACKED_NEWEST
SECRET = json.loads(STATES[0])["7"]["key"].encode()  # a record that all states have


@cache
def packed_once() -> Path:
    """Twelve snapshots of one file, all but the newest packed; made once, as each step takes a process."""
    base = Path(tempfile.mkdtemp(prefix="packed-"))
    atexit.register(shutil.rmtree, base)
    bench = Bench(base, PACKING)
    for state in STATES:
        bench.protect(state)
    pack(bench)
    bench.ws.close()
    return base


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return opened(tmp_path, PACKING)


def opened(base: Path, settings: str) -> Bench:
    shutil.copytree(packed_once() / "backups", base / "backups")
    bench = Bench(base, settings)
    (bench.data / USERS).write_bytes(STATES[-1])
    bench.clock.now = snapshots(bench)[0].taken_at
    return bench


def pack(bench: Bench) -> Packed:
    return list(pack_file(bench.ws, USERS))[-1]


def snapshots(bench: Bench) -> list[Snapshot]:
    return bench.ws.catalog.snapshots(USERS)


def unpacked(bench: Bench, snapshot: Snapshot) -> bytes:
    with bench.ws.store.open(snapshot.name) as plain:
        return plain.read()


def is_packed(bench: Bench, snapshot: Snapshot) -> bool:
    return note_of(bench.ws.store.path, snapshot.name) is not None


def reference_files(bench: Bench) -> list[Path]:
    """The root first."""
    found = [p for p in (bench.backups / "_reference").rglob("*") if p.is_file()]
    return sorted(found, key=lambda p: note_of(str(bench.backups), f"_reference/{p.name}") is not None)


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# what is packed


def test_all_but_the_newest_are_packed_under_their_names_with_their_bytes(bench: Bench) -> None:
    told = snapshots(bench)

    assert [is_packed(bench, s) for s in told] == [False] * UNPACKED_NEWEST + [True] * OLD
    assert [unpacked(bench, s) for s in told] == STATES[::-1]
    assert all(bench.ws.store.is_intact(s) for s in told)
    assert [s.stored_bytes for s in told] == [(bench.backups / s.name).stat().st_size for s in told]
    assert max(s.stored_bytes for s in told[UNPACKED_NEWEST:]) < 5000 < min(s.stored_bytes for s in told[:3])
    assert not list((bench.backups / ".agent/staging").iterdir())


def test_references_lean_on_a_root(bench: Bench) -> None:
    root, *others = reference_files(bench)
    leaning = [r.leans_on for r in look(bench.ws, USERS).references if r.leans_on is not None]

    assert others
    assert leaning == [f"_reference/{root.name}"] * len(others)
    assert sum(p.stat().st_size for p in others) < root.stat().st_size


def test_one_that_moves_to_a_nearer_reference_is_not_counted_again(tmp_path: Path) -> None:
    base = tmp_path / "fresh"
    base.mkdir()
    fresh = Bench(base, PACKING)
    for state in STATES:
        fresh.protect(state)

    assert pack(fresh).count == OLD


def test_packing_again_changes_nothing(bench: Bench) -> None:
    before = {p: p.stat().st_ino for p in bench.backups.rglob("*.zst")}

    done = pack(bench)

    assert (done.count, done.references, done.freed_bytes) == (0, 0, 0)
    assert {p: p.stat().st_ino for p in bench.backups.rglob("*.zst")} == before


def test_references_count_as_bytes_on_disk(bench: Bench) -> None:
    on_disk_bytes = sum(p.stat().st_size for p in bench.backups.rglob("*.zst"))

    assert bench.ws.catalog.count_snapshots()[1] == on_disk_bytes


def test_a_pinned_snapshot_stays_as_it_is(bench: Bench) -> None:
    pinned = snapshots(bench)[UNPACKED_NEWEST - 1]
    bench.ws.store.pin(pinned.name, pinned=True)
    bench.ws.catalog.pin(pinned.name, pinned=True)
    bench.clock.advance(60)
    bench.protect(STATES[0])

    assert pack(bench).count == 0
    assert not is_packed(bench, pinned)


def test_nothing_is_packed_while_the_file_is_damaged(bench: Bench) -> None:
    bench.clock.advance(60)
    bench.protect(STATES[0])
    bench.damage()

    assert pack(bench).count == 0


def test_with_packing_off_packed_ones_are_read_as_before(tmp_path: Path) -> None:
    bench = opened(tmp_path, "backup: {compression: none}")

    assert [unpacked(bench, s) for s in snapshots(bench)] == STATES[::-1]


def test_large_ones_are_unpacked_by_a_child(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_disk, "IN_MEMORY_MAX_BYTES", 0)
    oldest = snapshots(bench)[-1]
    read = unpacked(bench, oldest)
    spoil(reference_files(bench)[0])

    assert read == STATES[0]
    assert not bench.ws.store.is_intact(oldest)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd tool is not installed")
def test_the_stock_tool_opens_each_with_the_command_that_show_tells(bench: Bench) -> None:
    for snapshot, state in zip(snapshots(bench), STATES[::-1], strict=True):
        command = open_with(os.path.join(bench.backups, snapshot.name), str(bench.backups))
        done = subprocess.run(["sh", "-c", command], cwd=bench.base, capture_output=True, check=True)

        assert done.stdout == state


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd tool is not installed")
def test_the_stock_tool_refuses_a_packed_one_without_its_reference(bench: Bench) -> None:
    path = bench.backups / snapshots(bench)[-2].name
    (bench.base / "other").write_bytes(STATES[-1][::-1])
    alone = subprocess.run(["zstd", "-dc", path], capture_output=True, check=False)
    other = shlex.split(f"zstd -dc --patch-from={bench.base / 'other'} {shlex.quote(str(path))}")

    assert alone.returncode != 0
    assert subprocess.run(other, capture_output=True, check=False).returncode != 0


# damage


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_reference_is_named_by_verify_and_costs_its_group_alone(bench: Bench, number: int) -> None:
    reference = reference_files(bench)[number]
    told = snapshots(bench)
    group = [s for s in told if reference.name in str(notes_of(str(bench.backups), s.name))]
    spoil(reference)
    report = Report(drill=True)
    list(Verifier(bench.ws, report).steps())

    assert [finding.name for finding in report.failures] == [s.name for s in reversed(group)]
    assert all(reference.name in finding.what for finding in report.failures)
    assert [s for s in told if not bench.ws.store.is_intact(s)] == group
    assert 0 < len(group) <= (OLD if number == 0 else OLD - 1)
    assert report.drilled_count == 1


def test_a_lost_reference_is_told_and_no_error_of_the_disk(bench: Bench) -> None:
    reference_files(bench)[0].unlink()
    report = Report()
    list(Verifier(bench.ws, report).steps())

    assert {finding.kind.value for finding in report.failures} == {"rotten"}
    assert all("gone" in finding.what for finding in report.failures)


def test_beside_a_damaged_reference_a_new_group_begins(bench: Bench) -> None:
    spoil(reference_files(bench)[0])
    bench.clock.advance(60)
    bench.protect(STATES[0])
    done = pack(bench)

    assert is_packed(bench, snapshots(bench)[UNPACKED_NEWEST])
    assert bench.ws.store.is_intact(snapshots(bench)[UNPACKED_NEWEST])
    assert done.failures
    assert len({name for name, _ in done.failures}) == len(done.failures)


def test_a_rotten_snapshot_is_not_packed(bench: Bench) -> None:
    bench.clock.advance(60)
    bench.protect(STATES[0])
    rotten = snapshots(bench)[UNPACKED_NEWEST]
    spoil(bench.backups / rotten.name)
    before = (bench.backups / rotten.name).read_bytes()
    done = pack(bench)

    assert (bench.backups / rotten.name).read_bytes() == before
    assert [name for name, _ in done.failures] == [rotten.name]


def test_a_restore_goes_past_a_damaged_group(bench: Bench) -> None:
    spoil(reference_files(bench)[0])
    for snapshot in snapshots(bench)[1:UNPACKED_NEWEST]:
        spoil(bench.backups / snapshot.name)
    (bench.data / USERS).write_bytes(DAMAGE)
    bench.clock.advance(60)
    bench.look()
    bench.healer.heal([USERS], at_gate=False)

    assert (bench.data / USERS).read_bytes() == STATES[-1]


def test_a_reference_whose_making_is_cut_short_is_known_to_an_erasure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in reference_files(bench):
        path.unlink()
    forget = [bench.ws.catalog.forget_reference(USERS, name) for name in bench.ws.catalog.references(USERS)]
    put = on_disk.put_reference

    def put_and_die(*values: object) -> None:
        put(*values)  # type: ignore[arg-type]  # as they come
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.pack.put_reference", put_and_die)
    bench.clock.advance(60)
    bench.protect(STATES[0])
    with pytest.raises(KeyboardInterrupt):
        pack(bench)

    assert forget
    assert bench.ws.catalog.references(USERS) == [f"_reference/{p.name}" for p in reference_files(bench)]


def test_a_reference_that_is_being_made_is_not_forgotten_by_a_look_at_the_shelf(tmp_path: Path) -> None:
    """It would come to be behind the back of the erasure that looks, and keep the record."""
    bench = Bench(tmp_path)
    name = f"_reference/{USERS.replace('.', '_reference_2026-01-01T00-00-00-000Z.')}.zst"
    with bench.ws.locks.session() as maker:
        assert maker.take(references_lock(USERS))
        bench.ws.catalog.add_reference(USERS, name, 1)
        learn_references(bench.ws)

    assert bench.ws.catalog.references(USERS) == [name]
    learn_references(bench.ws)
    assert bench.ws.catalog.references(USERS) == []


def test_a_reference_that_never_came_to_be_is_forgotten(bench: Bench) -> None:
    bench.ws.catalog.add_reference(USERS, "_reference/users_reference_2020-01-01T00-00-00-000Z.json.zst", 100)
    drop_unneeded(bench.ws, USERS)

    assert bench.ws.catalog.references(USERS) == sorted(f"_reference/{p.name}" for p in reference_files(bench))


# what goes, and when


def test_a_reference_goes_with_the_last_snapshot_that_leans_on_it(bench: Bench) -> None:
    old = snapshots(bench)[UNPACKED_NEWEST:]
    delete(bench.ws, old[1:])
    still_there = {r.name for r in look(bench.ws, USERS).references}
    needed = {note.reference for note in notes_of(str(bench.backups), old[0].name)}
    delete(bench.ws, old[:1])

    assert still_there == needed
    assert reference_files(bench) == []
    assert bench.ws.catalog.references(USERS) == []


def test_a_reference_stays_while_a_file_leans_on_it_that_the_catalog_does_not_know(bench: Bench) -> None:
    bench.ws.catalog.remove_snapshots(snapshots(bench)[UNPACKED_NEWEST:])

    assert drop_unneeded(bench.ws, USERS) == 0
    assert reference_files(bench)


def test_a_snapshot_deleted_while_it_is_packed_does_not_come_back(bench: Bench) -> None:
    bench.clock.advance(60)
    bench.protect(STATES[0])
    doomed = snapshots(bench)[UNPACKED_NEWEST]

    def delete_it() -> bool:
        delete(bench.ws, [s for s in snapshots(bench) if s.name == doomed.name])
        return True

    list(pack_file(bench.ws, USERS, delete_it))

    assert not (bench.backups / doomed.name).exists()


def test_a_budget_takes_no_snapshot_while_its_form_changes_where_names_cannot_be_exchanged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.clock.advance(60)
    bench.protect(STATES[0])
    room = snapshots(bench)[0].stored_bytes + 1000  # for the newest alone
    bench.config.write_text(bench.config.read_text().replace("{compression", f"{{max_total_size: {room}B, compression"))
    other = Workspace.open(load_config(str(bench.config), None, {}), bench.clock)
    thinned, look_at = [], on_disk.identity

    def thin_after(backup_dir: str, name: str) -> tuple[int, int, int]:
        found = look_at(backup_dir, name)
        with other.locks.session() as locks:
            thinned.append(make_room(other, 0, locks=locks)[0])
        return found

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no exchange here")

    monkeypatch.setattr(on_disk, "identity", thin_after)
    monkeypatch.setattr(on_disk, "exchange", refuse)
    packed = pack(bench).count
    with other.locks.session() as locks:
        late = make_room(other, 0, locks=locks)
    other.close()

    assert (packed, set(thinned), late) == (1, {0}, (OLD + UNPACKED_NEWEST, 0))
    assert {s.name for s in snapshots(bench)} == {p.name for p in bench.backups.glob("*.zst")}
    assert reference_files(bench) == []


def test_a_budget_spends_no_more_packed_ones_than_it_takes_with_their_references(bench: Bench) -> None:
    """The last that leans on a reference frees it: a hundred kilobytes and not one."""
    total = bench.ws.catalog.count_snapshots()[1]
    group = snapshots(bench)[UNPACKED_NEWEST:]
    least = sum(s.stored_bytes for s in group) + 1  # more than the packed ones take themselves
    bench.config.write_text(
        bench.config.read_text().replace("{compression", f"{{max_total_size: {total}B, compression")
    )
    bench.open()
    with bench.ws.locks.session() as locks:
        deleted, short = make_room(bench.ws, least, locks=locks)

    assert (deleted, short) == (OLD, 0)
    assert bench.ws.catalog.count_snapshots()[1] < total - least


def test_packing_that_is_stopped_leaves_all_as_it_was(bench: Bench) -> None:
    bench.clock.advance(60)
    bench.protect(STATES[0])
    before = {p.name: p.read_bytes() for p in bench.backups.rglob("*.zst")}

    with pytest.raises(PackingStopped):
        list(pack_file(bench.ws, USERS, lambda: False))

    assert {p.name: p.read_bytes() for p in bench.backups.rglob("*.zst")} == before
    assert not list((bench.backups / ".agent/staging").iterdir())


# the catalog is lost


@pytest.mark.parametrize("journal_too", [False, True])
def test_a_catalog_made_anew_from_the_files_knows_all_of_it(bench: Bench, journal_too: bool) -> None:
    told = {s.name: (s.digest, s.size_bytes, s.stored_bytes) for s in snapshots(bench)}
    references = bench.ws.catalog.references(USERS)
    bench.ws.close()
    for path in (bench.backups / ".agent").glob("catalog*"):
        path.unlink()
    if journal_too:
        (bench.backups / ".agent/journal.jsonl").unlink()
    bench.open()
    recover(bench.ws)

    assert {s.name: (s.digest, s.size_bytes, s.stored_bytes) for s in snapshots(bench)} == told
    assert bench.ws.catalog.references(USERS) == references


def test_after_a_crash_the_catalog_learns_what_the_packed_ones_take(bench: Bench) -> None:
    oldest = snapshots(bench)[-1]
    bench.ws.catalog.set_stored(oldest.name, 99_999)
    lost, changed = bench.ws.catalog.references(USERS)[:2]
    bench.ws.catalog.forget_reference(USERS, lost)
    bench.ws.catalog.add_reference(USERS, changed, 99_999)
    recover(bench.ws)

    assert snapshots(bench)[-1].stored_bytes == oldest.stored_bytes
    sizes = {f"_reference/{path.name}": path.stat().st_size for path in reference_files(bench)}
    assert bench.ws.catalog.reference_sizes() == sizes


def test_a_reference_that_nothing_leans_on_is_swept_at_the_next_start(bench: Bench) -> None:
    count = len(reference_files(bench))
    stray = reference_files(bench)[0].with_name("users_reference_2020-01-01T00-00-00-000Z.json.zst")
    shutil.copy(reference_files(bench)[0], stray)
    recover(bench.ws)

    assert not stray.exists()
    assert len(look(bench.ws, USERS).references) == count


# erasure


def test_what_is_erased_stays_in_no_snapshot_and_in_no_reference(bench: Bench) -> None:
    def without_it(document: JsonText) -> bytes | None:
        return document.text.replace(SECRET, b"x" * 64) if SECRET in document.text else None

    steps = erase(bench.ws, USERS, without_it)

    assert {step.fate for step in steps} == {Fate.REWRITE, Fate.DISSOLVE}
    assert reference_files(bench) == []
    assert not any(SECRET in unpacked(bench, s) for s in snapshots(bench))
    assert all(bench.ws.store.is_intact(s) for s in snapshots(bench))


def test_a_reference_without_the_record_stays(bench: Bench) -> None:
    erase(bench.ws, USERS, lambda _: None)

    assert [is_packed(bench, s) for s in snapshots(bench)] == [False] * UNPACKED_NEWEST + [True] * OLD


def test_a_reference_that_cannot_be_read_is_not_passed_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(backup_dir: str, name: str) -> object:
        if name.startswith("_reference"):
            raise PermissionError(13, "Permission denied")
        return note_of(backup_dir, name)

    monkeypatch.setattr(references, "note_of", refuse)
    steps = erase(bench.ws, USERS, lambda _: None)

    assert {step.fate for step in steps if step.snapshot.name.startswith("_reference")} == {Fate.LEFT}
    assert all("Permission denied" in step.why for step in steps if step.fate is Fate.LEFT)
