from pathlib import Path

import pytest
from bench import USERS
from test_pack import OLD, PACKING, STATES, is_packed, opened, snapshots, spoil
from test_verifying import OneThread

from agent import packing
from agent.config import load_config
from agent.pack import Packed
from agent.packing import Packing


class Guard:
    """A folder with packed snapshots and one more to pack, as the loop of a daemon would drive it."""

    def __init__(self, base: Path, settings: str = PACKING) -> None:
        self.bench = opened(base, settings)
        self.bench.clock.advance(60)
        self.bench.protect(STATES[0])
        self.told: list[Packed] = []
        self.failures = 0
        self.packing = Packing(self.bench.ws, OneThread(), self.told.append, self.fail)

    def fail(self) -> None:
        self.failures += 1

    def go_on(self, turns: int = 20) -> None:
        """The loop turns whenever there is something to do."""
        for _ in range(turns):
            if self.packing.next_at == float("inf"):
                break
            self.bench.clock.advance(max(0.0, self.packing.next_at - self.bench.clock.monotonic()))
            self.packing.turn(self.bench.clock.monotonic())

    @property
    def count(self) -> int:
        return sum(is_packed(self.bench, s) for s in snapshots(self.bench))


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(tmp_path)


def test_a_start_packs_what_was_left_and_is_done(guard: Guard) -> None:
    guard.go_on()

    assert guard.count == OLD + 1
    assert [done.rel for done in guard.told] == [USERS]
    assert guard.packing.next_at == float("inf")


def test_a_new_snapshot_has_the_next_one_packed(guard: Guard) -> None:
    guard.go_on()
    guard.bench.clock.advance(60)
    guard.bench.protect(STATES[1])
    guard.packing.note(USERS)
    guard.go_on()

    assert guard.count == OLD + 2


def test_with_packing_off_nothing_is_ever_due(tmp_path: Path) -> None:
    guard = Guard(tmp_path, "backup: {compression: zstd}")
    guard.packing.note(USERS)

    assert guard.packing.next_at == float("inf")


def test_a_reload_that_switches_it_on_packs_what_is_there(tmp_path: Path) -> None:
    guard = Guard(tmp_path, "backup: {compression: zstd, retention: {keep_last: 1000}}")
    text = guard.bench.config.read_text().replace("compression: zstd", "compression: zstd, packing: true")
    guard.bench.config.write_text(text)
    guard.bench.ws.adopt_config(load_config(str(guard.bench.config), None, {}))
    guard.packing.adopt_config()
    guard.go_on()

    assert guard.count == OLD + 1


def test_an_error_of_the_disk_is_told_and_tried_again_later(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise OSError(28, "No space left on device")

    guard.packing.note(USERS)
    with monkeypatch.context() as broken:
        broken.setattr(packing, "pack_file", refuse)
        guard.packing.turn(guard.packing.next_at)
    waits_s = guard.packing.next_at - guard.bench.clock.monotonic()
    before = guard.count
    guard.go_on()

    assert (guard.failures, before, guard.count) == (1, OLD, OLD + 1)
    assert waits_s == 600


def test_what_cannot_be_packed_is_told_once(guard: Guard) -> None:
    spoil(guard.bench.backups / snapshots(guard.bench)[3].name)
    for _ in range(2):
        guard.packing.note(USERS)
        guard.go_on()

    assert [len(done.failures) for done in guard.told if done.failures] == [1]


def test_after_a_stop_no_step_begins(guard: Guard) -> None:
    guard.packing.stop()
    guard.go_on(3)

    assert guard.count == OLD
