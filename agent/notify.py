"""Tell systemd how the service is doing: the protocol of sd_notify(3), without a library.

    notify(READY, status("watching 12 files"))

Outside systemd, where NOTIFY_SOCKET is not set, nothing is sent.
"""

import os
import socket
import time
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"

_SEND_LIMIT_S = 1.0


def reloading() -> str:
    """Return the state that begins a reload; READY ends it.  The moment is microseconds of CLOCK_MONOTONIC."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def status(text: str) -> str:
    """Return the state that shows `text` in `systemctl status`, on one line so that it sets nothing else."""
    return "STATUS=" + " ".join(text.split())


def extend_timeout(seconds: float) -> str:
    """Return the state that asks for `seconds` more, from now, before systemd gives up on a start or a stop."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}"


def notify(*states: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send all `states` in one message and return True; False when there is no systemd or it does not take them."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_SEND_LIMIT_S)
            channel.connect(address)
            channel.sendall("\n".join(states).encode("utf-8", "backslashreplace"))
    except OSError:
        return False
    return True


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to send WATCHDOG, half of what systemd tolerates; None when it does not watch this process."""
    watched_pid, limit_us = environ.get("WATCHDOG_PID"), environ.get("WATCHDOG_USEC", "")
    if watched_pid not in {None, str(os.getpid())} or not (limit_us.isascii() and limit_us.isdigit()):
        return None
    return int(limit_us) / 2_000_000 or None
