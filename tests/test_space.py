import os
from pathlib import Path

import pytest
from bench import Bench, document

from agent.announce import Announcer
from agent.core.notice import Notice, NoticeKind
from agent.core.room import Room
from agent.metrics import Metrics
from agent.record import Recorder
from agent.space import SpaceWatch, room_of

MB = 10**6


class Disk:
    """A watch over a disk whose free space is told."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.free = bench, 200 * MB
        self.told: list[tuple[int, bool]] = []
        monkeypatch.setattr("agent.space.os.statvfs", self._status)
        self.watch = SpaceWatch(bench.ws, lambda room, is_low: self.told.append((room.free_bytes, is_low)))

    def _status(self, _: str) -> os.statvfs_result:
        if self.free < 0:
            raise OSError("gone")
        return os.statvfs_result((1, 1, 100_000 * MB, self.free, self.free, 0, 0, 0, 0, 255))

    def after(self, seconds: float, free: int) -> list[tuple[int, bool]]:
        """What is told when so much is free after so long."""
        self.free, self.told = free, []
        self.bench.clock.advance(seconds)
        self.watch.turn(self.bench.clock.monotonic())
        return self.told


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(Bench(tmp_path), monkeypatch)


def test_a_disk_that_becomes_low_is_told_once_and_so_is_its_end(disk: Disk) -> None:
    assert disk.after(0, 200 * MB) == []
    assert disk.after(30, 99 * MB) == [(99 * MB, True)]
    assert disk.after(30, 98 * MB) == []
    assert disk.after(30, 124 * MB) == []
    assert disk.after(30, 125 * MB) == [(125 * MB, False)]


def test_a_disk_that_stays_low_is_told_of_once_a_day(disk: Disk) -> None:
    disk.after(0, MB)

    assert disk.after(80_000, MB) == []
    assert disk.after(6_400, MB) == [(MB, True)]


def test_it_looks_no_more_often_than_every_half_minute(disk: Disk) -> None:
    disk.after(0, 200 * MB)

    assert disk.after(29, MB) == []
    assert disk.after(1, MB) == [(MB, True)]


def test_a_disk_that_does_not_answer_is_looked_at_again(disk: Disk) -> None:
    disk.after(0, MB)

    assert disk.after(30, -1) == []
    assert disk.after(30, 200 * MB) == [(200 * MB, False)]


def test_what_a_snapshot_of_everything_takes_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "backup: {min_free: 1KB}")
    bench.protect(document(1))
    bench.protect(document(2), "sub/other.json")

    room = room_of(bench.ws)

    assert room.once_bytes == len(document(1)) + len(document(2))
    assert room.reserve_bytes == 1000


def test_metric_and_notice_follow(tmp_path: Path) -> None:
    notices: list[Notice] = []
    metrics = Metrics("0")
    announce = Announcer(metrics, Recorder(metrics, notices.append), "/data")

    announce.space(Room(5, 100, 0, 1), True)
    assert b"backup_agent_disk_low 1.0" in metrics.expose()[1]
    announce.space(Room(50, 100, 0, 1), False)

    assert b"backup_agent_disk_low 0.0" in metrics.expose()[1]
    assert [notice.kind for notice in notices] == [NoticeKind.DISK_LOW]
    assert "free space" in notices[0].hint
