import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from agent import checking
from agent.checking import Checking
from agent.core.model import CaptureMode, CheckResult, CheckSpec, Grade, Ownership, Signature
from agent.disk import atomic
from agent.disk.capture import Capture
from agent.disk.staging import StagedFile, StagingFolder

REL, SPEC, GOOD, DAMAGE = "big.json", CheckSpec(), b'{"a": 1}', b'{"a": 1]}'


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[bytes], StagedFile]]:
    """Lend what makes a private copy of bytes."""
    copies: list[StagedFile] = []
    with StagingFolder(str(tmp_path)) as folder:

        def make(content: bytes) -> StagedFile:
            copies.append(folder.create())
            copies[-1].write(content)
            return copies[-1]

        yield make
        for copy in copies:
            copy.discard()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a check was begun of."""
    begun: list[object] = []
    check = checking.check

    def counting(content: Path, spec: CheckSpec, **options: bool) -> CheckResult:
        begun.append(content)
        return check(content, spec, **options)

    monkeypatch.setattr(checking, "check", counting)
    return begun


def caught(copy: StagedFile) -> Capture:
    digest = hashlib.sha256(Path(copy.path).read_bytes()).hexdigest()
    return Capture(REL, digest, Signature(1, 1, 1, 1), Ownership(0, 0, 0o600), CaptureMode.LEASE, copy)


def test_check_that_was_begun_is_the_one_that_counts(
    copy_of: Callable[[bytes], StagedFile], checked: list[object]
) -> None:
    copy, one = copy_of(GOOD), Checking({}, REL, SPEC)

    one.begin(copy)

    assert one.result(caught(copy)).grade is Grade.GOOD
    assert checked == [Path(copy.path)]


def test_damage_that_was_judged_is_not_judged_anew(
    copy_of: Callable[[bytes], StagedFile], checked: list[object]
) -> None:
    copy, damages = copy_of(DAMAGE), checking.Damages()

    for _ in range(2):
        one = Checking(damages, REL, SPEC)
        one.begin(copy)
        assert one.result(caught(copy)).grade is Grade.CORRUPT

    assert checked == [Path(copy.path)]


def test_copy_that_is_seen_to_be_cut_short_is_not_checked_before_it_is_asked_for(
    copy_of: Callable[[bytes], StagedFile], checked: list[object]
) -> None:
    copy, one = copy_of(GOOD[:-1]), Checking({}, REL, SPEC)

    one.begin(copy)

    assert checked == []
    assert one.result(caught(copy)).grade is Grade.CORRUPT


def test_copy_does_not_go_while_it_is_read(
    copy_of: Callable[[bytes], StagedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, done = Event(), Event(), Event()

    def slow(*_: object, **__: object) -> CheckResult:
        begun.set()
        go_on.wait(10)
        done.set()
        return CheckResult(Grade.GOOD)

    monkeypatch.setattr(checking, "check", slow)
    one = Checking({}, REL, SPEC)
    one.begin(copy_of(GOOD))
    assert begun.wait(10)
    go_on.set()

    one.end()

    assert done.is_set()


def test_check_that_no_thread_came_to_ends_however_often_it_is_ended(
    copy_of: Callable[[bytes], StagedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "hand_over", atomic.Job)  # all threads are at work
    one = Checking({}, REL, SPEC)
    one.begin(copy_of(GOOD))

    def end_twice() -> None:
        one.end()
        one.end()

    ending = Thread(target=end_twice, daemon=True)
    ending.start()
    ending.join(10)

    assert not ending.is_alive()


def test_copy_is_checked_all_the_same_where_no_thread_can_be_made(
    copy_of: Callable[[bytes], StagedFile], checked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(atomic._flushers, "submit", refused)
    copy, one = copy_of(GOOD), Checking({}, REL, SPEC)

    one.begin(copy)
    one.end()

    assert one.result(caught(copy)).grade is Grade.GOOD
    assert len(checked) == 1
