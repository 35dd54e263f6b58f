"""Telling people: real receivers, real processes; what hangs, breaks or comes too often costs nothing else."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.core.notice import Delivery, Notice, NoticeKind
from agent.notifications import Notifier, Receivers, unusable_urls

DAMAGED = Notice(NoticeKind.DAMAGED, "users.json is corrupt and was left as it is", "users.json", "mend it by hand")
ALL = frozenset(NoticeKind)
HANGS = ("sleep", "600")


@dataclass
class Told:
    """What a notifier reports."""

    results: Counter[Delivery] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def notifier(self, receivers: Receivers, **limits: float) -> Notifier:
        notifier = Notifier(
            lambda result: self.results.update([result]), lambda *why: self.failures.append(why),
            **{"retry_s": 0.0, **limits},  # type: ignore[arg-type]  # limits of Notifier
        )  # fmt: skip
        notifier.adopt(receivers, "/srv/bot/data")
        return notifier


class Receiver(ThreadingHTTPServer):
    """Takes what Apprise posts to `json://`; answers `status`, or nothing at all until it is closed."""

    def __init__(self, status: int | None) -> None:
        self.messages: list[dict[str, str]] = []
        self.released = threading.Event()

        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.messages.append(json.loads(body))
                if status is None:
                    server.released.wait(60)
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://user:s3cret@127.0.0.1:{self.server_address[1]}/"

    def end(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    server = Receiver(getattr(request, "param", 200))
    yield server
    server.end()


def shell(script: str) -> tuple[str, ...]:
    """A program that has begun at once, also on a busy machine."""
    return ("sh", "-c", script)


def writing_to(path: Path) -> tuple[str, ...]:
    return shell(f"cat >> '{path}'")


def test_a_receiver_of_apprise_is_told(receiver: Receiver) -> None:
    told = Told()
    notifier = told.notifier(Receivers((receiver.url,), None, ALL))

    notifier(DAMAGED)
    notifier.close(60)

    (message,) = receiver.messages
    assert told.results == {Delivery.SENT: 1}
    assert "damaged users.json" in message["title"]
    assert DAMAGED.text in message["message"]
    assert "Next: mend it by hand" in message["message"]


def test_a_command_is_told_in_one_line_of_json(tmp_path: Path) -> None:
    told = Told()
    notifier = told.notifier(Receivers((), writing_to(tmp_path / "told"), ALL))

    notifier(DAMAGED)
    notifier.close(60)

    (line,) = (tmp_path / "told").read_text().splitlines()
    message = json.loads(line)
    assert told.results == {Delivery.SENT: 1}
    assert (message["event"], message["file"], message["data_dir"]) == ("damaged", "users.json", "/srv/bot/data")


def test_a_command_that_does_not_read_is_told_all_the_same() -> None:
    told = Told()
    notifier = told.notifier(Receivers((), ("true",), ALL))

    notifier(DAMAGED)
    notifier.close(60)

    assert told.results == {Delivery.SENT: 1}


@pytest.mark.parametrize("receiver", [500], indirect=True)
def test_a_receiver_that_refuses_is_tried_again_and_its_secret_is_never_told(receiver: Receiver) -> None:
    told = Told()
    notifier = told.notifier(Receivers((receiver.url,), None, ALL))

    notifier(DAMAGED)
    while told.results.total() == 0:
        threading.Event().wait(0.05)
    notifier.close(60)

    assert len(receiver.messages) == 3
    assert told.results == {Delivery.FAILED: 1}
    assert set(told.failures) == {("notify.urls[0]", "did not take it")}


@pytest.mark.parametrize("receiver", [None], indirect=True)
def test_a_receiver_that_hangs_is_cut_off_and_the_next_one_is_told(receiver: Receiver, tmp_path: Path) -> None:
    told = Told()
    slow = f"{receiver.url}?rto=600"
    notifier = told.notifier(Receivers((slow,), writing_to(tmp_path / "told"), ALL), timeout_s=3)

    notifier(DAMAGED)
    notifier.close(60)

    assert told.results == {Delivery.FAILED: 1, Delivery.SENT: 1}
    assert told.failures == [("notify.urls[0]", "did not end within 3 s")]


def test_a_command_that_hangs_dies_with_what_it_started(tmp_path: Path) -> None:
    told = Told()
    pids = tmp_path / "pids"
    starts = shell(f"{' '.join(HANGS)} & echo $! > '{pids}'; wait")
    notifier = told.notifier(Receivers((), starts, ALL), timeout_s=2)

    notifier(DAMAGED)
    notifier.close(60)

    stat = Path(f"/proc/{pids.read_text().strip()}/stat")
    limit = time.monotonic() + 30
    while is_running(stat) and time.monotonic() < limit:
        time.sleep(0.01)  # it was killed, and dies when the kernel lets it run
    assert told.failures == [("notify.command", "did not end within 2 s")]
    assert not is_running(stat)


def is_running(stat: Path) -> bool:
    """Whether the process of `/proc/PID/stat` is there and no zombie."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_full_queue_drops_and_counts_and_never_waits(tmp_path: Path) -> None:
    told, released = Told(), tmp_path / "released"
    hanging = Receivers((), shell(f"until [ -e '{released}' ]; do sleep 0.01; done"), ALL, interval_s=0)
    notifier = told.notifier(hanging, queue_max=2, timeout_s=60)

    for _ in range(50):
        notifier(DAMAGED)
    released.touch()
    notifier.close(60)

    assert 47 <= told.results[Delivery.DROPPED] <= 48  # one may be on its way already


@pytest.mark.parametrize("command", [("/no/such/program",), ("false",)])
def test_a_broken_command_is_counted_and_the_notifier_goes_on(command: tuple[str, ...]) -> None:
    told = Told()
    notifier = told.notifier(Receivers((), command, ALL, interval_s=0))

    notifier(DAMAGED)
    while told.results.total() == 0:
        threading.Event().wait(0.05)
    notifier(DAMAGED)
    notifier.close(60)

    assert told.results == {Delivery.FAILED: 2}


def test_the_like_is_held_back_for_a_while(tmp_path: Path) -> None:
    told = Told()
    notifier = told.notifier(Receivers((), writing_to(tmp_path / "told"), ALL, interval_s=3600))

    for _ in range(3):
        notifier(DAMAGED)
    notifier(Notice(NoticeKind.DAMAGED, "another file", "guilds.json"))
    notifier.close(60)

    messages = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert told.results == {Delivery.HELD_BACK: 2, Delivery.SENT: 2}
    assert [m["held_back"] for m in messages] == [0, 2]


def test_what_nobody_wants_to_hear_starts_nothing() -> None:
    told = Told()
    notifier = told.notifier(Receivers((), ("true",), frozenset({NoticeKind.GAVE_UP})))

    notifier(DAMAGED)
    notifier.close(60)

    assert told.results == {}


def test_addresses_are_tried_without_a_message(receiver: Receiver) -> None:
    assert unusable_urls([receiver.url, "nonsense"]) == [(1, "is no address that Apprise knows")]
    assert receiver.messages == []


def test_a_missing_apprise_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    ((_, why),) = unusable_urls(["json://127.0.0.1/"])

    assert "pip install 'backup-agent[notify]'" in why
