import pytest

from agent.core.room import Room

GB, MB = 10**9, 10**6


def room(free: int, *, total: int = 100 * GB, reserve: int = 0, once: int = 0) -> Room:
    return Room(free, total, reserve, once)


@pytest.mark.parametrize(
    ("disk", "line"),
    [
        (room(0), 100 * MB),
        (room(0, once=50 * MB), 500 * MB),
        (room(0, reserve=GB, once=50 * MB), GB + 500 * MB),
        (room(0, total=200 * MB), 10 * MB),  # a small disk is not low from the beginning
    ],
)
def test_the_line_is_room_for_ten_snapshots_beside_the_reserve_and_never_next_to_nothing(disk: Room, line: int) -> None:
    assert disk.low_bytes == line
    assert disk.is_low(was_low=False)
    assert not room(line, total=disk.total_bytes, reserve=disk.reserve_bytes, once=disk.once_bytes).is_low(
        was_low=False
    )


def test_a_disk_at_the_line_does_not_end_and_begin_to_be_low_by_turns() -> None:
    at_the_line = room(100 * MB)

    assert not at_the_line.is_low(was_low=False)
    assert at_the_line.is_low(was_low=True)
    assert not room(125 * MB).is_low(was_low=True)
