"""The messages are those of sd_notify(3)."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import (
    READY,
    STOPPING,
    WATCHDOG,
    extend_timeout,
    notify,
    reloading,
    status,
    watchdog_interval_s,
)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens as systemd does, and how the environment names it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@backup-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0") if request.param == "abstract" else name)
        listener.settimeout(5)
        yield listener, name


def test_states_arrive_in_one_message(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager

    sent = notify(READY, status("watching"), WATCHDOG, environ={"NOTIFY_SOCKET": name})

    assert sent
    assert listener.recv(4096) == b"READY=1\nSTATUS=watching\nWATCHDOG=1"


def test_status_with_bytes_that_are_not_utf8_is_sent_escaped(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager

    assert notify(status("caf\udce9.json"), environ={"NOTIFY_SOCKET": name})

    assert listener.recv(4096) == b"STATUS=caf\\udce9.json"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_socket_that_can_be_used_nothing_is_sent(environ: dict[str, str]) -> None:
    assert not notify(STOPPING, environ=environ)


def test_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert not notify(READY, environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_status_cannot_set_another_variable() -> None:
    assert status("a\nMAINPID=1\r\nb") == "STATUS=a MAINPID=1 b"


def test_reload_begins_with_the_monotonic_moment_in_microseconds() -> None:
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    first, _, moment = reloading().partition("\nMONOTONIC_USEC=")

    assert first == "RELOADING=1"
    assert before_us <= int(moment) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_extension_is_told_in_microseconds() -> None:
    assert extend_timeout(2.5) == "EXTEND_TIMEOUT_USEC=2500000"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_watchdog_is_fed_twice_as_often_as_asked(environ: dict[str, str], expected: float | None) -> None:
    assert watchdog_interval_s(environ) == expected
