import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.pace import BackOff, Gathering, Pace

costs = st.floats(0, 1000)


@given(costs, st.floats(0.001, 1), st.floats(0.1, 3600))
def test_work_takes_no_more_than_its_share(cost_s: float, share: float, interval_s: float) -> None:
    pause_s = Pace(interval_s, share).after(cost_s)

    assert pause_s >= interval_s
    assert cost_s <= share * pause_s * (1 + 1e-9)


@given(costs)
def test_work_out_of_turn_never_runs_without_a_pause(cost_s: float) -> None:
    pace = Pace(30, 0.01)
    pace.after(cost_s)

    assert pace.soon_s >= 0.2
    assert pace.soon_s >= 20 * cost_s


def test_cheap_work_keeps_its_interval() -> None:
    assert Pace(30, 0.01).after(0.1) == 30


def test_adjusted_pace_counts_from_the_next_pause() -> None:
    pace = Pace(30, 0.01)
    pace.adjust(5, 0.5)

    assert pace.after(1) == 5


def test_pauses_double_up_to_a_minute_and_begin_anew_after_success() -> None:
    back_off = BackOff()
    pauses = [back_off.next_s("a") for _ in range(9)]
    back_off.reset("a")

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert back_off.next_s("a") == 1


def test_keys_fail_each_for_themselves() -> None:
    back_off = BackOff()
    back_off.next_s("a")
    back_off.reset("never failed")

    assert back_off.next_s("b") == 1
    assert back_off.next_s("a") == 2


def test_news_after_a_quiet_time_is_read_again_at_once() -> None:
    gathering = Gathering(2)

    assert [gathering.after(read_at) for read_at in (10, 20, 30)] == [0.00025, 0.00025, 0.00025]


@pytest.mark.parametrize(("debounce_s", "longest_s"), [(0, 0.02), (0.05, 0.02), (1, 0.05), (2, 0.1), (60, 0.1)])
def test_news_that_keeps_coming_gathers_for_longer_and_longer_up_to_a_share_of_the_debounce(
    debounce_s: float, longest_s: float
) -> None:
    gathering, read_at = Gathering(debounce_s), 100.0
    gaps = []
    while read_at < 100 + 5 * longest_s:
        gaps.append(gathering.after(read_at))
        assert gaps[-1] <= max(0.00025, (read_at - 100) / 4)
        read_at += gaps[-1]

    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(longest_s)
    assert len(gaps) < 40
    assert gathering.after(read_at + 1) == 0.00025
