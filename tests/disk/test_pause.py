from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.disk import pause as module
from agent.disk.pause import LONGEST, Pause, begin_pause, end_pause, pause_in_effect

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def holds(folder: Path, *, wall_s: float, steady_s: float | None = None) -> bool:
    steady_s = wall_s if steady_s is None else steady_s
    found = pause_in_effect(str(folder), now=NOW + timedelta(seconds=wall_s), steady_s=1000 + steady_s)
    return found is not None


def begin(folder: Path, length: timedelta = HOUR) -> None:
    begin_pause(str(folder), length, now=NOW, steady_s=1000)


def test_pause_holds_for_its_length(tmp_path: Path) -> None:
    begin(tmp_path)

    assert [holds(tmp_path, wall_s=s) for s in (0, 3599, 3600)] == [True, True, False]


def test_clock_set_back_does_not_lengthen_a_pause(tmp_path: Path) -> None:
    begin(tmp_path)

    assert holds(tmp_path, wall_s=-86400, steady_s=3599)
    assert not holds(tmp_path, wall_s=-86400, steady_s=3600)


@given(wall_s=st.floats(-1e8, 1e8), steady_s=st.floats(3600, 1e8))
def test_no_clock_of_the_wall_keeps_a_pause_beyond_its_length(wall_s: float, steady_s: float) -> None:
    pause = Pause(NOW, 1000, NOW + HOUR, "boot")

    assert not pause.holds(NOW + timedelta(seconds=wall_s), 1000 + steady_s, "boot")


def test_pause_ends_with_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path)
    monkeypatch.setattr(module, "boot_id", lambda: "another")

    assert not holds(tmp_path, wall_s=60)


def test_file_that_asks_for_more_than_the_longest_pause_gets_no_more(tmp_path: Path) -> None:
    begin(tmp_path, timedelta(days=400))

    assert not holds(tmp_path, wall_s=LONGEST.total_seconds())


def test_later_pause_takes_the_place_of_the_former_one(tmp_path: Path) -> None:
    begin(tmp_path, timedelta(minutes=1))
    begin(tmp_path)

    assert holds(tmp_path, wall_s=120)
    assert [path.name for path in tmp_path.iterdir()] == ["paused"]


def test_ending_a_pause_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    begin(tmp_path)
    end_pause(str(tmp_path))
    end_pause(str(tmp_path))

    assert not holds(tmp_path, wall_s=1)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"began_at": 3}', b"null"])
def test_file_that_no_pause_wrote_pauses_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "paused").write_bytes(content)

    assert not holds(tmp_path, wall_s=1)


def test_pause_that_cannot_be_read_is_an_error_and_not_none(tmp_path: Path) -> None:
    (tmp_path / "paused").mkdir()

    with pytest.raises(OSError, match="directory"):
        holds(tmp_path, wall_s=1)
