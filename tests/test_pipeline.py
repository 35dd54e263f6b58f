import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench, document

from agent.core.decide import LeftWhy
from agent.core.errors import SpaceBudgetError
from agent.core.model import FileState, Grade, HealAction, Reason, Snapshot
from agent.core.settle import Due
from agent.disk.draft import Draft
from agent.disk.publish import Batch
from agent.disk.staging import StagingFolder
from agent.outcome import Ending, Outcome
from agent.pipeline import Pipeline

REQUIRED = "files: [{path: users.json, required: true}]"


def test_good_change_is_published_and_the_same_bytes_again_are_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))

    again = bench.look()[0]

    assert again.ending is Ending.UNCHANGED
    assert bench.stored() == [document(1)]


def test_damage_changes_nothing_until_it_is_healed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))

    outcome = bench.damage()

    assert (outcome.ending, outcome.grade, outcome.attempt) == (Ending.DAMAGED, Grade.CORRUPT, 1)
    assert (bench.data / USERS).read_bytes() == DAMAGE
    assert bench.stored() == [document(1)]


def test_fresh_damage_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    (bench.data / USERS).write_bytes(DAMAGE)
    bench.clock.now = type(bench.clock)().now

    assert bench.look()[0].ending is Ending.WAITING


def test_collapse_is_kept_aside_and_never_a_restore_point(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.write(b"{}")

    outcome = bench.look()[0]

    assert outcome.ending is Ending.HELD
    assert bench.stored(grade=Grade.SUSPECT) == [b"{}"]
    bench.damage()
    healed = bench.healer.heal([USERS], at_gate=True)[0]
    assert healed.ending is Ending.HEALED
    assert (bench.data / USERS).read_bytes() == document(1)


def test_file_that_was_never_good_is_kept_and_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    outcome = bench.damage()

    assert (outcome.ending, outcome.left_why) == (Ending.LEFT, LeftWhy.NEVER_GOOD)
    assert bench.stored(grade=Grade.CORRUPT) == [DAMAGE]


def test_unreadable_file_is_told_once_as_news_and_holds_its_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    real = os.pread

    def fail(fd: int, size: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(USERS):
            raise OSError(5, "Input/output error")
        return real(fd, size, offset)

    bench.write(document(2))
    monkeypatch.setattr(os, "pread", fail)
    first, second = bench.look()[0], bench.look()[0]
    monkeypatch.undo()

    assert [first.ending, second.ending] == [Ending.UNREADABLE] * 2
    assert [first.is_news, second.is_news] == [True, False]
    assert bench.stored() == [document(1)]
    assert bench.look()[0].ending is Ending.PUBLISHED


def test_clock_that_steps_back_never_makes_a_snapshot_older(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = bench.protect(document(1))
    bench.clock.jump(-7200)

    after = bench.protect(document(2))

    assert after.taken_at > before.taken_at
    assert bench.stored() == [document(2), document(1)]


def test_absence_shorter_than_the_grace_is_waited_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, REQUIRED)
    bench.protect(document(1))
    (bench.data / USERS).unlink()

    outcome = bench.look()[0]

    assert (outcome.ending, outcome.grade) == (Ending.WAITING, Grade.MISSING)


def test_required_file_that_is_gone_is_healed_and_another_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, REQUIRED)
    for rel in (USERS, "bank.json", "shop.json", "pets.json", "more.json"):
        bench.protect(document(1), rel)

    gone, bank = bench.lose(USERS, "bank.json")

    assert gone.ending is Ending.DAMAGED
    assert (bank.ending, bank.left_why) == (Ending.LEFT, LeftWhy.POLICY)
    healed = bench.healer.heal([USERS], at_gate=False)[0]
    assert (healed.ending, healed.action) == (Ending.HEALED, HealAction.RESTORE)
    assert (bench.data / USERS).read_bytes() == document(1)


def test_mass_absence_is_left_even_where_files_are_required(tmp_path: Path) -> None:
    bench = Bench(tmp_path, REQUIRED)
    rels = [USERS, "bank.json", "shop.json", "pets.json"]
    for rel in rels:
        bench.protect(document(1), rel)

    outcomes = bench.lose(*rels)

    assert {o.left_why for o in outcomes} == {LeftWhy.MASS}


def test_count_of_absent_files_that_took_long_says_nothing_of_a_file_that_went_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "files: [{path: users.json, required: true}, {path: bank.json, required: true}]")
    rels = [USERS, "bank.json", "shop.json", "pets.json", "more.json"]
    for rel in rels:
        bench.protect(document(1), rel)
    pages = bench.ws.catalog.file_pages

    def slow() -> Iterator[list[FileState]]:
        bench.clock.advance(2)
        yield from pages()

    monkeypatch.setattr(bench.ws.catalog, "file_pages", slow)
    assert bench.lose(USERS)[0].ending is Ending.DAMAGED
    for rel in rels[1:]:
        (bench.data / rel).unlink()
    bench.clock.advance(6)

    assert bench.look("bank.json", waited_s=6)[0].left_why is LeftWhy.MASS


def test_files_that_went_one_by_one_long_ago_are_no_mass_absence(tmp_path: Path) -> None:
    bench = Bench(tmp_path, REQUIRED)
    retired = [f"old{n}.json" for n in range(6)]
    for rel in [USERS, *retired]:
        bench.protect(document(1), rel)
    for rel in retired:
        bench.lose(rel)
        bench.clock.advance(86_400)

    assert bench.lose(USERS)[0].ending is Ending.DAMAGED


def test_budget_counts_what_the_same_batch_needs(tmp_path: Path) -> None:
    size = len(document(10, 100))
    bench = Bench(tmp_path, f"backup: {{max_total_size: {size * 3}B}}")
    rels = [f"f{n}.json" for n in range(8)]
    for rel in rels:
        bench.write(document(10, 100), rel)

    outcomes = bench.look(*rels)

    assert [o.ending for o in outcomes].count(Ending.PUBLISHED) == 3
    refused = [o for o in outcomes if o.ending is Ending.REFUSED]
    assert len(refused) == 5
    assert all(isinstance(o.error, SpaceBudgetError) for o in refused)


@pytest.mark.parametrize("is_believed", [False, True])
def test_room_is_never_made_of_a_file_that_the_same_batch_found_missing(tmp_path: Path, is_believed: bool) -> None:
    size = len(document(10, 100))
    bench = Bench(tmp_path, f"backup: {{max_total_size: {size * 4 + 200}B}}")
    for number in range(10, 13):
        bench.protect(document(number, 100))
    for rel in ("a.json", "b.json"):
        bench.write(document(10, 100), rel)
    (bench.data / USERS).unlink()

    outcomes = bench.look(USERS, "a.json", "b.json", waited_s=60 if is_believed else 0)

    assert [o.ending for o in outcomes[1:]] == [Ending.PUBLISHED, Ending.REFUSED]
    assert len(bench.stored()) == 3


def test_large_state_that_is_on_the_disk_already_is_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, state = _almost_full_disk(tmp_path, monkeypatch, states=2)

    outcomes = [_change(bench, state, number) for number in range(4)]

    assert [o.ending for o in outcomes] == [Ending.PUBLISHED] * 4
    assert len(bench.stored()) == 2


def test_large_state_that_found_the_disk_full_is_stored_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, state = _almost_full_disk(tmp_path, monkeypatch, states=2)
    for number in range(2):
        _change(bench, state, number)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.disk.preparation.write_copy", full)

    assert _change(bench, state, 2).ending is Ending.PUBLISHED
    assert bench.stored()[0] == state + b"2]"


def test_large_state_that_is_saved_again_unchanged_is_not_flushed_and_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, flushed = Bench(tmp_path), list[int]()
    state = document(1, records=10_000)
    bench.protect(state)
    bench.write(state)
    monkeypatch.setattr(os, "fsync", flushed.append)

    outcome = bench.look()[0]

    assert outcome.ending is Ending.UNCHANGED
    assert flushed == []
    assert not any(path.name.endswith(".tmp") for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("size_changes", [True, False])
def test_private_copy_goes_to_the_disk_while_it_grows_only_where_its_state_is_new_for_certain(
    tmp_path: Path, size_changes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, begun = Bench(tmp_path), list[int]()
    monkeypatch.setattr("agent.disk.running_digest._WRITTEN_BYTES", 1)
    monkeypatch.setattr("agent.disk.running_digest.begin_write_back", lambda *_: begun.append(1))
    monkeypatch.setattr("agent.disk.capture.IN_MEMORY_MAX_BYTES", 1000)
    state = document(1, records=10_000)
    bench.protect(state)
    begun.clear()
    bench.write(state + b"\n" if size_changes else state)

    outcome = bench.look()[0]

    assert outcome.ending is (Ending.PUBLISHED if size_changes else Ending.UNCHANGED)
    assert bool(begun) is size_changes


def _almost_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, states: int) -> tuple[Bench, bytes]:
    """A bench whose disk takes so many large states, above what is to stay free; and such a state."""
    bench, state = Bench(tmp_path, "backup: {min_free: 1KiB}"), b"[" + b" " * (256 << 10)
    size = (len(state) + 2) * states + 1024

    def free(folder: str) -> int:
        return size - sum(p.stat().st_size for p in Path(folder).rglob("*") if p.name.endswith((".json", ".tmp")))

    monkeypatch.setattr("agent.rotation.free_bytes", free)
    return bench, state


def _change(bench: Bench, state: bytes, number: int) -> Outcome:
    bench.write(state + b"%d]" % number)
    return bench.look()[0]


def test_file_that_turned_into_a_link_is_no_longer_good(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    secret = tmp_path / "secret"
    secret.write_bytes(b'{"token": 1}')
    (bench.data / USERS).unlink()
    os.symlink(secret, bench.data / USERS)

    outcome = bench.look()[0]

    assert (outcome.ending, outcome.detail) == (Ending.SKIPPED, "symlink")
    assert bench.ws.catalog.file(USERS).grade is Grade.UNREADABLE  # type: ignore[union-attr]
    assert bench.stored() == [document(1)]


def test_store_that_cannot_write_refuses_and_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.write(document(2))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused = bench.look()[0]
    monkeypatch.undo()

    assert refused.ending is Ending.REFUSED
    assert bench.stored() == [document(1)]
    assert bench.look()[0].ending is Ending.PUBLISHED


def test_batch_of_large_files_is_held_in_memory_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.portion._HELD_MAX_BYTES", 3 * len(document(1)))
    bench = Bench(tmp_path)
    rels = [f"{n}.json" for n in range(10)]
    for rel in rels:
        bench.write(document(1), rel)
    batches: list[int] = []
    batch = bench.ws.store.batch

    def counting(drafts: Sequence[Draft], staging: StagingFolder) -> Batch:
        batches.append(len(drafts))
        return batch(drafts, staging)

    monkeypatch.setattr(bench.ws.store, "batch", counting)
    outcomes = bench.look(*rels)

    assert [(o.rel, o.ending) for o in outcomes] == [(rel, Ending.PUBLISHED) for rel in rels]
    assert batches == [4, 4, 2]


def test_copies_of_large_files_that_are_on_the_disk_at_a_time_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unchanged ones become no snapshots: a disk that is half full has no room for copies of them all."""
    bench = Bench(tmp_path)
    rels = [f"{n}.json" for n in range(12)]
    for rel in rels:
        bench.protect(document(1), rel)
        bench.write(document(1), rel)
    monkeypatch.setattr("agent.disk.capture.IN_MEMORY_MAX_BYTES", 64)
    monkeypatch.setattr("agent.portion._HELD_MAX_BYTES", 2 * len(document(1)))
    held: list[int] = []

    def count() -> None:
        held.append(len(os.listdir(bench.backups / ".agent" / "staging")))

    outcomes = Pipeline(bench.ws, count).run([Due(rel, quiet=True, first_at=0.0) for rel in rels], Reason.CHANGE)

    assert {o.ending for o in outcomes} == {Ending.UNCHANGED}
    assert 0 < max(held) <= 6


def test_file_is_free_for_others_once_its_outcome_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.portion.PORTION_FILES", 2)
    bench = Bench(tmp_path)
    rels = [f"{n}.json" for n in range(5)]
    for rel in rels:
        bench.write(document(1), rel)
    dues = [Due(rel, quiet=True, first_at=bench.clock.monotonic()) for rel in rels]

    seen = []
    for outcome in bench.pipeline.outcomes(dues, Reason.CHANGE):
        with bench.ws.locks.session() as locks:
            seen.append((outcome.rel, outcome.ending, locks.take(outcome.rel)))

    assert seen == [(rel, Ending.PUBLISHED, True) for rel in rels]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), sqlite3.OperationalError("disk I/O error")])
def test_portion_on_its_way_arrives_when_the_next_one_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What was captured may be gone from the data folder by now, which may be why: the copy is all there is."""
    monkeypatch.setattr("agent.portion.PORTION_FILES", 2)
    bench = Bench(tmp_path)
    rels = [f"{n}.json" for n in range(6)]
    for rel in rels:
        bench.write(document(1), rel)
    told: list[Outcome] = []
    looked = bench.ws.catalog.file

    def fails_at_the_fourth(rel: str) -> FileState | None:
        if rel == rels[3]:
            raise error
        return looked(rel)

    monkeypatch.setattr(bench.ws.catalog, "file", fails_at_the_fourth)
    dues = [Due(rel, quiet=True, first_at=0.0) for rel in rels]
    with pytest.raises(type(error)):
        told.extend(bench.pipeline.outcomes(dues, Reason.CHANGE))
    monkeypatch.undo()

    assert [(o.rel, o.ending) for o in told] == [(rel, Ending.PUBLISHED) for rel in rels[:2]]
    assert [bench.stored(rel) for rel in rels[:3]] == [[document(1)], [document(1)], []]
    assert os.listdir(bench.backups / ".agent" / "staging") == []


def test_look_that_the_catalog_cuts_short_leaves_no_copy_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write(document(1, 150_000))
    bench.write(document(1, 10_000), "middling.json")
    descriptors = set(os.listdir("/proc/self/fd"))

    def fails(_: str) -> Sequence[Snapshot]:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(bench.ws.catalog, "snapshots", fails)
    for rel in (USERS, "middling.json"):
        with pytest.raises(sqlite3.OperationalError):
            bench.look(rel)

    assert os.listdir(bench.backups / ".agent" / "staging") == []
    assert set(os.listdir("/proc/self/fd")) <= descriptors  # fewer, where an earlier bench went meanwhile


def test_portion_on_its_way_leaves_nothing_behind_when_nobody_wants_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.portion.PORTION_FILES", 2)
    bench = Bench(tmp_path)
    rels = [f"{n}.json" for n in range(6)]
    for rel in rels:
        bench.write(document(1), rel)
    descriptors = set(os.listdir("/proc/self/fd"))
    outcomes = bench.pipeline.outcomes([Due(rel, quiet=True, first_at=0.0) for rel in rels], Reason.CHANGE)

    assert next(outcomes).ending is Ending.PUBLISHED
    outcomes.close()  # type: ignore[attr-defined]  # it is a generator

    assert os.listdir(bench.backups / ".agent" / "staging") == []
    assert set(os.listdir("/proc/self/fd")) <= descriptors  # fewer, where an earlier bench went meanwhile


@pytest.mark.parametrize("parser", ["strict", "python"])
def test_what_is_worth_knowing_of_a_good_state_is_told_once_with_its_snapshot(tmp_path: Path, parser: str) -> None:
    bench = Bench(tmp_path, f"files: [{{path: users.json, parser: {parser}}}]")
    text = '{"a": 1, "a": 2}'
    bench.write(text.encode("utf-16" if parser == "python" else "utf-8"))

    first, again = bench.look()[0], bench.look()[0]

    assert (first.ending, [w.kind for w in first.warnings]) == (Ending.PUBLISHED, ["duplicate_key"])
    assert (again.ending, again.warnings) == (Ending.UNCHANGED, ())


def test_copy_of_a_damage_that_the_disk_refuses_is_told_with_the_place_of_the_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write(b'{"a": 1,\n "b" 2, [')

    def refuse(*_: object) -> Batch:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(bench.ws.store, "batch", refuse)
    [outcome] = bench.look()

    assert outcome.ending is Ending.REFUSED
    assert [(p.kind, p.line, p.column) for p in outcome.problems] == [("syntax", 2, 6)]
