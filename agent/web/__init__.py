"""A small web server for Prometheus and for a person with a browser or curl.

One thread accepts and reads, so that an idle client costs a file descriptor and no thread; whole requests are
answered by a few threads that live while there are any.  Every connection ends within its time limit, counted from
its first moment, whatever the client does.
"""

import errno
import selectors
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import Struct, field

from agent.core.labels import HttpFailure
from agent.metrics import Metrics
from agent.web.message import HEAD_MAX_BYTES, MALFORMED, TOO_LARGE, Answer, is_decided, parse, quality

_WAITING_MAX = 32  # connections that have not sent their whole request
_QUEUED_MAX = 32  # whole requests that no thread is free for
_PAUSE_S = 0.1
_LINGER_S = 0.5
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: unsent bytes are thrown away

_NOT_ALLOWED = Answer("405 Method Not Allowed", b"GET or HEAD only\n", headers=("Allow: GET, HEAD",))
_INTERNAL_ERROR = Answer("500 Internal Server Error", b"internal error\n")
_PAGE = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>backup-agent</title>
<h1>backup-agent</h1>
<ul>
<li><a href="/metrics">/metrics</a>: for Prometheus
<li><a href="/-/healthy">/-/healthy</a>: 200 while the agent answers
<li><a href="/-/ready">/-/ready</a>: 200 once the data files were checked, else 503 and the reason
</ul>
</html>
"""


class _Client(Struct, eq=False):
    """A connection; `deadline` is a moment of the monotonic clock."""

    connection: socket.socket
    deadline: float
    head: bytearray = field(default_factory=bytearray)

    def limit_wait(self, most_s: float) -> None:
        """Let the next call on the connection take `most_s` at most, and never go beyond the deadline."""
        remaining_s = min(most_s, self.deadline - time.monotonic())
        if remaining_s <= 0:
            raise TimeoutError
        self.connection.settimeout(remaining_s)


class WebServer:
    """Serves `/metrics`, `/-/healthy`, `/-/ready` and `/` at `address` (host and port; port 0 takes a free one).

    `probe` returns None while the agent is ready, else the reason why not.  A connection lives for `limit_s` at most;
    `threads_max` are answered at a time, and when too many wait without a whole request, the oldest is closed.
    """

    def __init__(
        self,
        address: tuple[str, int],
        metrics: Metrics,
        probe: Callable[[], str | None],
        *,
        limit_s: float = 5.0,
        threads_max: int = 8,
    ) -> None:
        self._address = address
        self._metrics = metrics
        self._probe = probe
        self._limit_s = limit_s
        self._threads_max = threads_max
        self._waiting: dict[_Client, None] = {}  # oldest first, so that the first one is also the next to expire
        self._queue: deque[_Client] = deque()
        self._thread_count = 0
        self._queue_lock = threading.Lock()  # guards the two above
        self._stopping = threading.Event()

    def start(self) -> tuple[str, int]:
        """Listen, and return the address that was bound.

        Raises:
            OSError: the address is taken or not ours; nothing runs and `stop` need not be called.
        """
        host, port = self._address
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self._listener.setblocking(False)
        self._waker, self._wakened = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        bound = self._listener.getsockname()
        try:
            self._thread.start()
        except RuntimeError as error:
            for one in (self._selector, self._listener, self._waker, self._wakened):
                one.close()
            raise OSError(errno.EAGAIN, "no thread can be made") from error
        return bound[0], bound[1]

    def stop(self) -> None:
        """Close the port and every connection that has not sent its request; answers under way end by themselves."""
        self._stopping.set()
        self._waker.send(b"\0")
        self._thread.join()
        self._waker.close()

    def _serve(self) -> None:
        with self._listener, self._wakened, self._selector:
            while not self._stopping.is_set():
                for key, _ in self._selector.select(self._until_next_deadline_s()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._waiting:  # an earlier event of this round may have closed it
                        self._read(key.data)
                self._expire()
            for client in list(self._waiting):
                self._drop(client)

    def _until_next_deadline_s(self) -> float | None:
        oldest = next(iter(self._waiting), None)
        return None if oldest is None else max(0.0, oldest.deadline - time.monotonic())

    def _expire(self) -> None:
        now = time.monotonic()
        for client in [client for client in self._waiting if client.deadline <= now]:
            self._drop(client, HttpFailure.TOO_SLOW)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # out of descriptors: the listener stays readable, so free one and go slowly
            self._metrics.http_failures.inc(HttpFailure.BROKEN)
            self._shed(most=0)
            self._stopping.wait(_PAUSE_S)
            return
        connection.setblocking(False)
        self._shed(most=_WAITING_MAX - 1)
        client = _Client(connection, time.monotonic() + self._limit_s)
        self._waiting[client] = None
        self._selector.register(connection, selectors.EVENT_READ, client)
        self._read(client)

    def _shed(self, *, most: int) -> None:
        """Close the oldest waiting connection if more than `most` wait."""
        if len(self._waiting) > most:
            self._drop(next(iter(self._waiting)), HttpFailure.NO_SLOT)

    def _drop(self, client: _Client, failure: HttpFailure | None = None) -> None:
        self._release(client)
        self._hang_up(client, failure)

    def _release(self, client: _Client) -> None:
        del self._waiting[client]
        self._selector.unregister(client.connection)

    def _hang_up(self, client: _Client, failure: HttpFailure | None) -> None:
        client.connection.close()
        if failure is not None:
            self._metrics.http_failures.inc(failure)

    def _read(self, client: _Client) -> None:
        try:
            data = client.connection.recv(HEAD_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client, HttpFailure.BROKEN if client.head else None)
            return
        client.head += data
        if is_decided(client.head):
            self._release(client)
            self._hand_over(client)

    def _hand_over(self, client: _Client) -> None:
        """Have the request answered by a new thread, or by the next one that is free."""
        with self._queue_lock:
            if len(self._queue) < _QUEUED_MAX:
                self._queue.append(client)
                if self._thread_count == self._threads_max:
                    return
                try:
                    threading.Thread(target=self._work, name="web-answer", daemon=True).start()
                    self._thread_count += 1
                    return
                except RuntimeError:  # no thread to be had; while others run, one of them takes it
                    if self._thread_count:
                        return
                    self._queue.pop()
        self._hang_up(client, HttpFailure.NO_SLOT)

    def _work(self) -> None:
        while True:
            with self._queue_lock:
                if not self._queue:
                    self._thread_count -= 1
                    return
                client = self._queue.popleft()
            self._answer(client)

    def _answer(self, client: _Client) -> None:
        connection = client.connection
        try:
            answer, with_body = self._compose(bytes(client.head))
            client.limit_wait(self._limit_s)
            connection.sendall(answer.encoded(with_body=with_body))
            if answer in (MALFORMED, TOO_LARGE, _NOT_ALLOWED):
                _drain(client)
        except TimeoutError:
            self._metrics.http_failures.inc(HttpFailure.TOO_SLOW)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        except OSError:
            self._metrics.http_failures.inc(HttpFailure.BROKEN)
        finally:
            connection.close()

    def _compose(self, head: bytes) -> tuple[Answer, bool]:
        """Return the answer, and whether its body is to be sent too."""
        request = parse(head)
        if isinstance(request, Answer):
            self._metrics.http_failures.inc(HttpFailure.MALFORMED)
            return request, True
        if request.method not in {"GET", "HEAD"}:
            return _NOT_ALLOWED, True
        try:
            return self._page(request.path, request.headers), request.method == "GET"
        except Exception:  # a bug behind the probe or a metric must not look like a dead agent
            self._metrics.http_failures.inc(HttpFailure.INTERNAL)
            return _INTERNAL_ERROR, request.method == "GET"

    def _page(self, path: str, headers: Mapping[str, str]) -> Answer:
        match path:
            case "/":
                return Answer("200 OK", _PAGE, "text/html; charset=utf-8")
            case "/-/healthy":
                return Answer("200 OK", b"healthy\n")
            case "/-/ready":
                reason = self._probe()
                if reason is None:
                    return Answer("200 OK", b"ready\n")
                return Answer("503 Service Unavailable", f"{reason}\n".encode("utf-8", "backslashreplace"))
            case "/metrics":
                return self._exposition(headers)
            case _:
                return Answer("404 Not Found", b"not found\n")

    def _exposition(self, headers: Mapping[str, str]) -> Answer:
        accept = headers.get("accept", "")
        likes_openmetrics = quality(accept, "application/openmetrics-text")
        content_type, text = self._metrics.expose(openmetrics=0 < likes_openmetrics >= quality(accept, "text/plain"))
        varies = "Vary: Accept, Accept-Encoding"
        if quality(headers.get("accept-encoding", ""), "gzip") == 0:
            return Answer("200 OK", text, content_type, (varies,))
        packed = zlib.compress(text, level=1, wbits=31)  # 31: as gzip (RFC 1952)
        return Answer("200 OK", packed, content_type, (varies, "Content-Encoding: gzip"))


def _drain(client: _Client) -> None:
    """Read for a moment what a refused client still sends: closing over it would destroy the answer on its way."""
    until = time.monotonic() + _LINGER_S
    with suppress(OSError):  # the answer is sent; nothing can be done about a client that leaves or goes on
        client.connection.shutdown(socket.SHUT_WR)
        while True:
            client.limit_wait(until - time.monotonic())
            if not client.connection.recv(65536):
                return
