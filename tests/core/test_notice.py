from hypothesis import given
from hypothesis import strategies as st

from agent.core.notice import FAILURES, Notice, NoticeKind, Throttle

notices = st.builds(Notice, st.sampled_from(NoticeKind), st.just("x"), st.sampled_from(["a", "b", None]))


def test_healed_is_no_failure() -> None:
    assert set(NoticeKind) - set(FAILURES) == {NoticeKind.HEALED}


def test_the_like_is_told_again_after_the_interval() -> None:
    throttle, notice = Throttle(10), Notice(NoticeKind.SUSPECT, "x", "a")

    assert [throttle.lets_through(notice, now) for now in (0, 9, 10, 19, 20)] == [True, False, True, False, True]


@given(st.lists(st.tuples(st.floats(0, 5), notices), max_size=60), st.integers(1, 5))
def test_no_interval_sees_more_than_its_share(told: list[tuple[float, Notice]], overall_max: int) -> None:
    throttle, now, passed = Throttle(10, overall_max), 0.0, list[tuple[float, Notice]]()
    for pause_s, notice in told:
        now += pause_s
        if throttle.lets_through(notice, now):
            passed.append((now, notice))

    for at, notice in passed:
        window = [(n.kind, n.rel) for then, n in passed if at <= then < at + 10]
        assert len(window) <= overall_max
        assert window.count((notice.kind, notice.rel)) == 1


def test_without_an_interval_everything_is_told() -> None:
    throttle, notice = Throttle(0), Notice(NoticeKind.SUSPECT, "x")

    assert all(throttle.lets_through(notice, 1) for _ in range(100))
