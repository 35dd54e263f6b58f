"""Tell people: through Apprise (Discord, mail, ntfy and others), and through a command of the operator's.

Everything slow happens on a thread of its own, with a bounded queue, and every delivery in a process with a time limit:
a receiver that hangs, breaks or leaks costs nothing but its notice.  Apprise is loaded in that process alone.
The addresses hold secrets, so no failure quotes them, and they are handed over on standard input.
"""

import importlib.util
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from msgspec import Struct

from agent.core.naming import display
from agent.core.notice import Delivery, Notice, NoticeKind, Throttle

QUEUE_MAX = 100
TIMEOUT_S = 20.0
_TRIES = 3
_RETRY_S = 30.0
_STDERR = 2
_UNUSABLE, _MISSING, _NOT_TAKEN = 3, 4, 5  # exit codes of the process that loads Apprise
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from agent.notifications import deliver_one; deliver_one()"
INSTALL_HINT = "install it with `pip install 'backup-agent[notify]'`"


Deliver = Callable[[], str | None]
"""Delivers one notice to one receiver; returns why it could not."""


class Receivers(Struct, frozen=True):
    """Where notices go, and which."""

    urls: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    kinds: frozenset[NoticeKind] = frozenset()
    interval_s: float = 600.0

    def deliveries(self, message: dict[str, object], timeout_s: float) -> Iterator[tuple[str, Deliver]]:
        """Yield each receiver by its config key, with what delivers to it."""
        for index, url in enumerate(self.urls):
            yield f"notify.urls[{index}]", partial(_through_apprise, {**message, "url": url}, timeout_s)
        if self.command is not None:
            yield "notify.command", partial(_run, self.command, message, timeout_s)


class Notifier:
    """Hands notices to their receivers; calling it never waits and never raises.

    `on_result` counts, `on_failure` hears which receiver did not take a notice, and why; both on the thread.
    """

    def __init__(
        self,
        on_result: Callable[[Delivery], None],
        on_failure: Callable[[str, str], None],
        *,
        queue_max: int = QUEUE_MAX,
        timeout_s: float = TIMEOUT_S,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._on_result, self._on_failure = on_result, on_failure
        self._timeout_s, self._retry_s = timeout_s, retry_s
        self._queue: queue.Queue[tuple[Notice, int] | None] = queue.Queue(queue_max)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._receivers, self._throttle, self._data_dir = Receivers(), Throttle(0), ""
        self._held_back = 0

    def adopt(self, receivers: Receivers, data_dir: str) -> None:
        """Notices go to `receivers` from now on."""
        with self._lock:
            self._receivers, self._data_dir = receivers, data_dir
            self._throttle = Throttle(receivers.interval_s)

    def __call__(self, notice: Notice) -> None:
        """Have `notice` told, unless its kind is not wanted or the like was told a short while ago."""
        with self._lock:
            receivers = self._receivers
            if notice.kind not in receivers.kinds or not (receivers.urls or receivers.command):
                return
            if not self._throttle.lets_through(notice, monotonic()):
                self._held_back += 1
                self._on_result(Delivery.HELD_BACK)
                return
            try:
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(target=self._work, name="notify", daemon=True)
                    thread.start()
                    self._thread = thread
                self._queue.put_nowait((notice, self._held_back))
            except (queue.Full, RuntimeError):  # or no thread can be made
                self._on_result(Delivery.DROPPED)
                return
            self._held_back = 0

    def close(self, limit_s: float) -> None:
        """What is queued is delivered, as far as `limit_s` allows; nothing is tried again."""
        self._closing.set()
        with self._lock:
            thread = self._thread
            with suppress(queue.Full):
                self._queue.put_nowait(None)
        if thread is not None:
            thread.join(limit_s)

    def _take(self) -> tuple[Notice, int] | None:
        """The next notice; None at the end, also where a full queue had no room for the sign of it."""
        try:
            return self._queue.get(block=not self._closing.is_set())
        except queue.Empty:
            return None

    def _work(self) -> None:
        while (item := self._take()) is not None:
            notice, held_back = item
            with self._lock:
                receivers, data_dir = self._receivers, self._data_dir
            todo = list(receivers.deliveries(message_of(notice, data_dir, held_back), self._timeout_s))
            for attempt in range(1, _TRIES + 1):
                failed = []
                for key, deliver in todo:
                    why = deliver()
                    if why is None:
                        self._on_result(Delivery.SENT)
                    else:
                        failed.append((key, deliver))
                        self._on_failure(key, why)
                todo = failed
                if not todo or attempt == _TRIES or self._closing.wait(self._retry_s):
                    break
            for _ in todo:
                self._on_result(Delivery.FAILED)


def message_of(notice: Notice, data_dir: str, held_back: int) -> dict[str, object]:
    """Return what receivers are told: for a command as JSON, for people as `title` and `body`."""
    host, file = socket.gethostname(), display(notice.rel) if notice.rel is not None else None
    title = f"backup-agent on {host}: {notice.kind.value.replace('_', ' ')} {file or ''}".rstrip()
    more = f"{held_back} more were held back since the last one." if held_back else ""
    told = [notice.text, f"Next: {notice.hint}" if notice.hint else "", more, f"Folder: {display(data_dir)}"]
    return {
        "event": notice.kind.value, "file": file, "text": notice.text, "hint": notice.hint or None,
        "data_dir": display(data_dir), "host": host, "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "held_back": held_back, "title": title, "body": "\n".join(line for line in told if line),
    }  # fmt: skip


def unusable_urls(urls: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> list[tuple[int, str]]:
    """Return the index of every address that Apprise cannot use, and why; nothing is sent."""
    if urls and importlib.util.find_spec("apprise") is None:
        return [(0, f"apprise is not installed: {INSTALL_HINT}")]
    whys = [_through_apprise({"url": url, "try": True}, timeout_s) for url in urls]
    return [(index, why) for index, why in enumerate(whys) if why is not None]


def _through_apprise(request: dict[str, object], timeout_s: float) -> str | None:
    """Deliver to one address; return why it did not work, without a word of the address."""
    command = [sys.executable, "-I", "-c", _BOOTSTRAP, *(os.path.abspath(entry) for entry in sys.path)]
    return _run(command, request, timeout_s, output=subprocess.DEVNULL)


def _run(argv: Sequence[str], message: dict[str, object], timeout_s: float, *, output: int = _STDERR) -> str | None:
    """Run `argv` with `message` as JSON on its standard input; return why it failed.  All it started dies with it."""
    try:
        process = subprocess.Popen(  # noqa: S603  # an argument list of the operator's or of our own, never a shell
            list(argv), stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    try:
        with suppress(BrokenPipeError):  # it need not read what it is told
            process.communicate(json.dumps(message).encode() + b"\n", timeout_s)
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"did not end within {timeout_s:g} s"
    told = {
        0: None, _UNUSABLE: "is no address that Apprise knows", _NOT_TAKEN: "did not take it",
        _MISSING: f"apprise is not installed: {INSTALL_HINT}",
    }  # fmt: skip
    is_ours = output == subprocess.DEVNULL
    return told[code] if code == 0 or (is_ours and code in told) else f"ended with code {code}"


def deliver_one() -> None:
    """Deliver the message on standard input to its address; the exit code tells how it went."""
    request = json.load(sys.stdin.buffer)
    try:
        import apprise
    except ImportError:
        sys.exit(_MISSING)
    apprise.logger.disabled = True  # it would quote addresses
    server = apprise.Apprise()
    if not server.add(request["url"]):
        sys.exit(_UNUSABLE)
    if request.get("try"):
        return
    kind = apprise.NotifyType.INFO if request["event"] == NoticeKind.HEALED else apprise.NotifyType.WARNING
    if not server.notify(title=request["title"], body=request["body"], notify_type=kind):
        sys.exit(_NOT_TAKEN)
