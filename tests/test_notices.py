"""What becomes a notice: failures that are news, each with the next step; never what a pause or a repetition is."""

import errno
from pathlib import Path

import pytest
from bench import DAMAGE, USERS, Bench, document

from agent.core.decide import LeftWhy
from agent.core.errors import SpaceBudgetError
from agent.core.model import Grade, HealAction
from agent.core.notice import Notice, NoticeKind
from agent.metrics import Metrics
from agent.outcome import Ending, Outcome
from agent.record import Recorder

FULL = OSError(errno.ENOSPC, "No space left on device")


def told_of(*outcomes: Outcome) -> list[Notice]:
    notices: list[Notice] = []
    recorder = Recorder(Metrics("0"), notices.append)
    for outcome in outcomes:
        recorder.record(outcome)
    return notices


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome(USERS, Ending.HEALED, grade=Grade.CORRUPT, action=HealAction.RESTORE), NoticeKind.HEALED),
        (Outcome(USERS, Ending.HEAL_FAILED, grade=Grade.CORRUPT, error=FULL), NoticeKind.DAMAGED),
        (Outcome(USERS, Ending.LEFT, grade=Grade.CORRUPT, left_why=LeftWhy.NEVER_GOOD), NoticeKind.DAMAGED),
        (Outcome(USERS, Ending.LEFT, grade=Grade.CORRUPT, left_why=LeftWhy.GAVE_UP), NoticeKind.GAVE_UP),
        (Outcome(USERS, Ending.HELD, grade=Grade.SUSPECT), NoticeKind.SUSPECT),
        (Outcome(USERS, Ending.UNREADABLE, grade=Grade.UNREADABLE), NoticeKind.DAMAGED),
        (Outcome(USERS, Ending.REFUSED, grade=Grade.GOOD, error=FULL), NoticeKind.DISK_LOW),
        (Outcome(USERS, Ending.REFUSED, error=SpaceBudgetError("spent", hint="raise it")), NoticeKind.DISK_LOW),
    ],
)
def test_each_failure_is_told_as_its_kind(outcome: Outcome, kind: NoticeKind) -> None:
    (notice,) = told_of(outcome)

    assert notice.kind is kind
    assert notice.text.startswith(USERS)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(USERS, Ending.LEFT, grade=Grade.CORRUPT, left_why=LeftWhy.PAUSED),
        Outcome(USERS, Ending.LEFT, grade=Grade.CORRUPT, left_why=LeftWhy.NEVER_GOOD, is_news=False),
        Outcome(USERS, Ending.HELD, grade=Grade.SUSPECT, is_news=False),
        Outcome(USERS, Ending.DAMAGED, grade=Grade.CORRUPT),  # the heal that follows tells how it went
        Outcome(USERS, Ending.REFUSED, grade=Grade.GOOD, error=OSError(errno.EIO, "Input/output error")),
        Outcome(USERS, Ending.UNCHANGED, grade=Grade.GOOD),
    ],
)
def test_what_is_no_news_or_no_matter_for_people_is_not_told(outcome: Outcome) -> None:
    assert told_of(outcome) == []


def test_a_full_disk_is_one_matter_however_many_files_it_strikes() -> None:
    outcomes = [Outcome(f"{n}.json", Ending.REFUSED, grade=Grade.GOOD, error=FULL) for n in range(3)]

    assert {notice.rel for notice in told_of(*outcomes)} == {None}


def test_the_next_step_goes_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.protect(document(1))
    bench.write(b"{}")

    (notice,) = told_of(*bench.look())

    assert f"backup-agent accept {USERS}" in notice.hint


def test_no_notice_quotes_the_data(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(DAMAGE)

    (notice,) = told_of(*bench.look())

    assert DAMAGE.decode() not in notice.text + notice.hint
