"""Real sockets, because what is promised is how the operating system and ill clients are dealt with."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metrics import Metrics
from agent.web import WebServer
from agent.web.message import HEAD_MAX_BYTES, Answer, Request, is_decided, parse, quality

Start = Callable[..., "Running"]
PATIENCE_S = 30


class Running:
    """A started server and a client for it."""

    def __init__(self, server: WebServer, address: tuple[str, int], metrics: Metrics) -> None:
        self.server = server
        self.address = address
        self.metrics = metrics

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE_S)

    def ask(self, request: bytes) -> bytes:
        """Send, and read until the server hangs up."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        lines = (f"{method} {path} HTTP/1.1", "Host: x", *headers, "", "")
        return parsed(self.ask("\r\n".join(lines).encode()))

    def failures(self, reason: str) -> float:
        text = self.metrics.expose()[1].decode()
        line = next(line for line in text.splitlines() if f'http_failures_total{{reason="{reason}"}}' in line)
        return float(line.split()[-1])

    def until_failures(self, reason: str, count: int) -> None:
        """Wait for the server to have counted; it does so after the client was let go."""
        end = time.monotonic() + PATIENCE_S
        while self.failures(reason) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert self.failures(reason) == count


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[WebServer] = []

    def starter(host: str = "127.0.0.1", probe: Callable[[], str | None] = lambda: None, **limits: float) -> Running:
        metrics = Metrics("1.2.3")
        server = WebServer((host, 0), metrics, probe, **limits)  # type: ignore[arg-type]  # one is an int, one a float
        address = server.start()
        servers.append(server)
        return Running(server, address, metrics)

    yield starter
    for server in servers:
        server.stop()


def test_scrape_returns_the_metrics(start: Start) -> None:
    status, headers, body = start().get("/metrics")

    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(headers["Content-Length"]) == len(body)
    assert b'backup_agent_build_info{version="1.2.3"} 1.0\n' in body


def test_prometheus_is_answered_in_openmetrics_and_packed(start: Start) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"

    _, headers, body = start().get("/metrics", f"Accept: {accept}", "Accept-Encoding: gzip")

    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"# EOF\n")


def test_head_is_answered_without_a_body(start: Start) -> None:
    running = start()

    status, headers, body = running.get("/-/healthy", method="HEAD")

    assert (status, headers["Content-Length"], body) == (200, "8", b"")


def test_readiness_tells_the_reason(start: Start) -> None:
    reasons = [None, "gate: 3 of 12 files checked\udce9"]
    running = start(probe=reasons.pop)

    not_yet, ready = running.get("/-/ready"), running.get("/-/ready")

    assert (not_yet[0], not_yet[2]) == (503, b"gate: 3 of 12 files checked\\udce9\n")
    assert (ready[0], ready[2]) == (200, b"ready\n")


def test_page_for_a_person_lists_what_there_is(start: Start) -> None:
    status, headers, body = start().get("/")

    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert [path for path in (b"/metrics", b"/-/healthy", b"/-/ready") if b'href="%s"' % path not in body] == []


@pytest.mark.parametrize("path", ["/favicon.ico", "/metrics/", "//", "/-/"])
def test_unknown_path_is_not_found(start: Start, path: str) -> None:
    assert start().get(path)[0] == 404


def test_query_does_not_change_the_page(start: Start) -> None:
    assert start().get("/-/healthy?verbose=1")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_method_is_told_what_is_allowed(start: Start, method: str) -> None:
    status, headers, _ = start().get("/metrics", "Content-Length: 0", method=method)

    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET /metrics\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET metrics HTTP/1.1\r\n\r\n",
        b"GET http://x/metrics HTTP/1.1\r\n\r\n",
        b"get /metrics HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX : space before the colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX: \x00\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n folded: yes\r\n\r\n",
    ],
)
def test_garbage_is_refused_at_once(start: Start, garbage: bytes) -> None:
    running = start(limit_s=PATIENCE_S)

    status, _, _ = parsed(running.ask(garbage))

    assert status == 400
    assert running.failures("malformed") == 1


@pytest.mark.parametrize("endless", [b"GET /" + b"a" * 500_000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000])
def test_huge_head_is_refused_and_the_client_reads_why(start: Start, endless: bytes) -> None:
    assert parsed(start().ask(endless))[0] == 431


def test_head_in_single_bytes_is_understood(start: Start) -> None:
    running = start(limit_s=PATIENCE_S)
    with running.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n":
            connection.sendall(bytes([byte]))

        assert parsed(read_all(connection))[0] == 200


def trickle(connection: socket.socket) -> None:
    """Send a head that never ends, a little at a time, until it is refused or our patience ends."""
    connection.sendall(b"GET / HTTP/1.1\r\nX: ")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        connection.sendall(b"y")
        time.sleep(0.02)


def test_client_that_trickles_is_cut_off(start: Start) -> None:
    running = start(limit_s=0.2)

    with running.connect() as connection, pytest.raises(OSError, match=r"reset|pipe"):
        trickle(connection)

    running.until_failures("too_slow", 1)


def test_client_that_stops_reading_is_cut_off(start: Start) -> None:
    running = start(limit_s=2, threads_max=1)
    running.metrics.limit_file_labels(named=[], others_max=10_000)
    for number in range(1_300):  # a text longer than all the buffers between the two hold
        running.metrics.set_file_times(f"{number:02000}", 1, 1)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.connect(running.address)
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        beginning = connection.recv(12)

        running.until_failures("too_slow", 1)

        assert beginning == b"HTTP/1.1 200"
        with pytest.raises(ConnectionResetError):
            read_all(connection)
    assert running.get("/-/healthy")[0] == 200


def test_idle_connections_cost_no_thread_and_hold_up_no_scrape(start: Start) -> None:
    running = start(limit_s=PATIENCE_S)
    before = threading.active_count()
    idle = [running.connect() for _ in range(50)]

    status = running.get("/metrics")[0]

    assert status == 200
    assert threading.active_count() <= before + 1  # the scrape's own may still be ending
    assert running.failures("no_slot") == 50 + 1 - 32
    for connection in idle:
        connection.close()


def test_clients_that_leave_are_let_go(start: Start) -> None:
    running = start(limit_s=PATIENCE_S)
    for _ in range(3):
        with running.connect() as connection:
            connection.sendall(b"GET /met")

    running.until_failures("broken", 3)


def test_request_waits_for_a_thread_while_all_are_busy(start: Start) -> None:
    entered, release = threading.Semaphore(0), threading.Event()

    def slow_probe() -> None:
        entered.release()
        release.wait(PATIENCE_S)

    running = start(probe=slow_probe, threads_max=2, limit_s=PATIENCE_S)
    with running.connect() as first, running.connect() as second, running.connect() as third:
        for connection in (first, second):
            connection.sendall(b"GET /-/ready HTTP/1.1\r\n\r\n")
            entered.acquire()
        third.sendall(b"GET /-/healthy HTTP/1.1\r\n\r\n")
        release.set()

        assert parsed(read_all(third))[0] == 200
        assert parsed(read_all(first))[0] == 200


def test_probe_that_raises_is_told_and_the_server_lives(start: Start) -> None:
    def broken_probe() -> None:
        raise LookupError

    running = start(probe=broken_probe)

    assert running.get("/-/ready")[0] == 500
    assert running.failures("internal") == 1
    assert running.get("/-/healthy")[0] == 200


def test_ipv6_is_served(start: Start) -> None:
    try:
        running = start(host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")

    assert running.address[0] == "::1"
    assert running.get("/-/healthy")[0] == 200


def test_port_in_use_raises(start: Start) -> None:
    running = start()

    with pytest.raises(OSError, match="in use"):
        WebServer(running.address, Metrics("1"), lambda: None).start()


def test_stop_frees_the_port_and_drops_who_waits() -> None:
    metrics = Metrics("1")
    server = WebServer(("127.0.0.1", 0), metrics, lambda: None, limit_s=PATIENCE_S)
    address = server.start()
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET /")
        server.stop()

        assert read_all(connection) == b""

    again = WebServer(address, metrics, lambda: None)
    assert again.start() == address
    again.stop()


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda raw: b"GET / HTTP/1.1\r\n" + raw + b"\r\n\r\n"))
def test_any_bytes_are_a_request_or_refused(head: bytes) -> None:
    outcome = parse(head)

    if isinstance(outcome, Request):
        assert outcome.path.startswith("/")
        assert is_decided(head)
    else:
        assert outcome.status[0] == "4"


@given(st.binary(max_size=60), st.integers(0, 60))
def test_what_is_refused_early_never_becomes_a_request(head: bytes, cut: int) -> None:
    if is_decided(head[:cut]) and isinstance(parse(head[:cut]), Answer):
        assert isinstance(parse(head), Answer)


def test_body_after_a_whole_head_does_not_count_as_head() -> None:
    request = parse(b"GET /x?y HTTP/1.0\nA: 1\na:\t2 \n\n" + b"z" * HEAD_MAX_BYTES)

    assert request == Request("GET", "/x", {"a": "1, 2"})


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", 0),
        ("*/*", 0),
        ("gzip", 1),
        ("GZIP;q=0.5", 0.5),
        ("deflate, gzip ; q=0.25", 0.25),
        ("gzip;q=0", 0),
        ("gzip;q=nan", 0),
        ("gzip;q=9", 0),
        ("gzip;q=0.1, gzip;q=0.7", 0.7),
        ("gzipped", 0),
    ],
)
def test_quality_is_what_the_client_said(accepted: str, expected: float) -> None:
    assert quality(accepted, "gzip") == expected
