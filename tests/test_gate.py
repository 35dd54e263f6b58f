from pathlib import Path

from bench import DAMAGE, USERS, Bench, document

from agent.gate import Gate
from agent.outcome import Ending, Outcome
from agent.rescan import Rescan

REQUIRED = "files: [{path: users.json, required: true}]"


def gate_of(bench: Bench, told: list[Outcome], *, stop_after: int | None = None) -> Gate:
    return Gate(
        bench.ws, bench.pipeline, bench.healer, Rescan(bench.ws), told.append, bench.clock.advance,
        lambda: stop_after is not None and len(told) >= stop_after,
    )  # fmt: skip


def test_new_and_changed_files_are_protected(tmp_path: Path) -> None:
    bench, told = Bench(tmp_path), []
    bench.write(document(1))
    bench.write(document(2), "bank.json")

    gate_of(bench, told).run()

    assert [o.ending for o in told] == [Ending.PUBLISHED] * 2
    assert bench.stored() == [document(1)]


def test_file_that_was_damaged_while_stopped_is_healed(tmp_path: Path) -> None:
    bench, told = Bench(tmp_path), []
    bench.protect(document(1))
    bench.write(DAMAGE)

    gate = gate_of(bench, told)
    gate.run()

    assert (bench.data / USERS).read_bytes() == document(1)
    assert gate.last == {}


def test_check_without_heal_leaves_the_damage(tmp_path: Path) -> None:
    bench, told = Bench(tmp_path), []
    bench.protect(document(1))
    bench.write(DAMAGE)

    gate = gate_of(bench, told)
    gate.run(heal=False)

    assert (bench.data / USERS).read_bytes() == DAMAGE
    assert gate.last[USERS].ending is Ending.DAMAGED


def test_required_file_that_is_gone_is_back(tmp_path: Path) -> None:
    bench, told = Bench(tmp_path, REQUIRED), []
    bench.protect(document(1))
    (bench.data / USERS).unlink()

    gate_of(bench, told).run()

    assert (bench.data / USERS).read_bytes() == document(1)


def test_nothing_is_restored_while_most_files_are_gone_whatever_the_portions(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The first portion holds few of the missing files: only after the last one is it known how many there are."""
    monkeypatch.setattr("agent.portion.PORTION_FILES", 2)
    bench, told = Bench(tmp_path, REQUIRED), []
    rels = [USERS, *(f"file{n}.json" for n in range(7))]
    for rel in rels:
        bench.protect(document(1), rel)
    for rel in rels:
        (bench.data / rel).unlink()

    gate_of(bench, told).run()

    assert not (bench.data / USERS).exists()


def test_stop_ends_the_pass(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("agent.portion.PORTION_FILES", 2)
    bench, told = Bench(tmp_path), []
    for number in range(10):
        bench.write(document(number), f"file{number}.json")

    gate_of(bench, told, stop_after=2).run()

    assert len(told) == 4  # what had been looked at meanwhile is brought to its end
