import errno
import io
import json
import os
import pty
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent.core.naming import display
from agent.logs import DEFAULT_TAG, TAGS, configure_logs, get_logger, tag_of


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def logged(event: str, *, format: str = "json", method: str = "info", **values: object) -> str:
    """Return what one log call writes."""
    stream = io.StringIO()
    configure_logs(format, "debug", stream)  # type: ignore[arg-type]  # the tests name only real formats
    getattr(get_logger(), method)(event, **values)
    return stream.getvalue()


def test_machine_reads_one_object_a_line() -> None:
    line = logged("snapshot_published", file="users.json", size_bytes=12, duration_s=0.5, method="warning")

    record = json.loads(line)
    moment = datetime.fromisoformat(record.pop("timestamp"))
    assert moment.tzinfo == UTC
    assert record == {
        "level": "warning",
        "event": "snapshot_published",
        "file": "users.json",
        "size_bytes": 12,
        "duration_s": 0.5,
    }


def test_operator_reads_time_tag_event_file_and_the_rest() -> None:
    line = logged("source_restored", format="console", file="users.json", snapshot="a b", size_bytes=3)

    assert re.fullmatch(r'\d\d:\d\d:\d\d \[RECOVERY\] source_restored users\.json  snapshot="a b" size_bytes=3\n', line)


def test_operator_is_spared_what_is_not_there_and_a_machine_is_told() -> None:
    assert "problems" not in logged("source_corrupt", format="console", problems=None)
    assert json.loads(logged("source_corrupt", problems=None))["problems"] is None


def test_name_that_is_printable_already_is_not_escaped_twice() -> None:
    assert json.loads(logged("x", hint=display("caf\udce9.json")))["hint"] == r"caf\xe9.json"


def test_grave_lines_name_their_level() -> None:
    assert "[DB] ERROR rescan_failed" in logged("rescan_failed", format="console", method="error")


@pytest.mark.parametrize(
    ("event", "reason", "tag"),
    [
        ("snapshot_published", "change", "[AUTO-SAVE]"),
        ("snapshot_published", "interval", "[AUTO-SAVE]"),
        ("snapshot_published", "manual", "[BACKUP]"),
        ("snapshot_refused", "", "[BACKUP]"),
        ("snapshots_vanished", "", "[BACKUP]"),
        ("snapshots_adopted", "", "[MIGRATION]"),
        ("source_restored", "", "[RECOVERY]"),
        ("source_repaired", "", "[RECOVERY]"),
        ("heal_gave_up", "", "[RECOVERY]"),
        ("gate_passed", "", "[VERIFICATION]"),
        ("verify_finished", "", "[VERIFICATION]"),
        ("source_corrupt", "", "[DB]"),
        ("service_started", "", "[DB]"),
    ],
)
def test_event_bears_the_tag_operators_know(event: str, reason: str, tag: str) -> None:
    assert tag_of(event, reason) == tag


def test_every_row_of_the_table_can_be_reached() -> None:
    reached = {tag_of(beginning + "x", reasons[0] if reasons else "") for beginning, reasons, _ in TAGS}

    assert reached == {tag for _, _, tag in TAGS}
    assert DEFAULT_TAG not in reached


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.sets(st.text(), max_size=3)
    ),
    max_leaves=6,
)


@given(event=st.text(), file=st.text(), value=values)
@pytest.mark.parametrize("format", ["json", "console"])
def test_no_value_breaks_a_line(format: str, event: str, file: str, value: object) -> None:
    text = logged(event, format=format, file=file, value=value)

    assert text.splitlines() == [text.removesuffix("\n")]
    assert text.removesuffix("\n").isprintable() or {"\u200c", "\u200d"} & set(text)
    text.encode("utf-8")
    assert format == "console" or isinstance(json.loads(text, parse_constant=pytest.fail), dict)


def test_traceback_stays_under_its_line_and_forges_none() -> None:
    stream = io.StringIO()
    configure_logs("console", "info", stream)

    try:
        raise ValueError("x\n12:00:00 [RECOVERY] source_restored forged.json\udce9\x1b[2J")
    except ValueError:
        get_logger().exception("pipeline_failed")

    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("[DB] ERROR pipeline_failed")
    assert all(row.startswith("    | ") for row in rest)
    assert rest[-1] == r"    | 12:00:00 [RECOVERY] source_restored forged.json\xe9\x1b[2J"


def test_traceback_for_a_machine_keeps_its_lines() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)

    try:
        raise ValueError("no")
    except ValueError:
        get_logger().exception("pipeline_failed")

    assert json.loads(stream.getvalue())["exception"].splitlines()[-1] == "ValueError: no"


def test_value_of_another_type_is_told_in_words() -> None:
    record = json.loads(
        logged("x", path=Path("/a\nb"), at=datetime(2026, 1, 1, tzinfo=UTC), error=OSError(errno.EIO, "bad"))
    )

    assert (record["path"], record["at"], record["error"]) == (r"/a\nb", "2026-01-01T00:00:00+00:00", "[Errno 5] bad")


def test_line_below_the_level_is_left_out() -> None:
    stream = io.StringIO()
    configure_logs("json", "warning", stream)

    get_logger().info("x")

    assert stream.getvalue() == ""


def test_logger_made_before_follows_a_later_configuration() -> None:
    log = get_logger()
    first, second = io.StringIO(), io.StringIO()

    for stream in (first, second):
        configure_logs("json", "info", stream)
        log.info("x")

    assert first.getvalue().count("\n") == second.getvalue().count("\n") == 1


def terminal_line(format: str) -> str:
    """Return what one log call writes to a terminal."""
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as stream:
        configure_logs(format, "info", stream)  # type: ignore[arg-type]  # the tests name only real formats
        get_logger().info("gate_passed", file="a.json")
        text = os.read(ours, 4096).decode()
    os.close(ours)
    return text


def test_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    assert "\x1b[36m[VERIFICATION]\x1b[0m" in terminal_line("auto")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_terminal_that_wants_no_colour_gets_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(name, value)

    assert "[VERIFICATION] gate_passed a.json\r\n" in terminal_line("auto")


def test_auto_is_json_where_there_is_no_terminal() -> None:
    assert json.loads(logged("x", format="auto"))["event"] == "x"


class Drops:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def full_disk() -> TextIO:
    return open("/dev/full", "w", encoding="utf-8")


def closed_pipe() -> TextIO:
    ours, theirs = os.pipe()
    os.close(ours)
    return open(theirs, "w", encoding="utf-8")


@pytest.mark.parametrize("failing", [full_disk, closed_pipe])
def test_stream_that_fails_drops_the_line_and_counts_it(failing: Callable[[], TextIO]) -> None:
    drops = Drops()
    with failing() as stream:
        configure_logs("json", "info", stream, on_drop=drops)

        get_logger().info("x")
        get_logger().info("y")

    assert drops.count == 2


def test_stream_that_was_closed_drops_the_line_and_counts_it() -> None:
    drops, stream = Drops(), io.StringIO()
    configure_logs("json", "info", stream, on_drop=drops)
    stream.close()

    get_logger().info("x")

    assert drops.count == 1


def test_line_after_a_torn_one_begins_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drops, real = Drops(), os.write
    room = [10]

    def short_write(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: room.pop()])

    with open(tmp_path / "log", "w", encoding="utf-8") as stream:
        configure_logs("json", "info", stream, on_drop=drops)
        monkeypatch.setattr(os, "write", short_write)
        get_logger().info("torn")
        get_logger().info("lost")
        monkeypatch.setattr(os, "write", real)
        get_logger().info("whole")

    first, second = (tmp_path / "log").read_text().splitlines()
    assert len(first) == 10
    assert json.loads(second)["event"] == "whole"
    assert drops.count == 2


def test_reader_that_stopped_does_not_stop_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.logs._STUCK_LIMIT_MS", 10)
    drops = Drops()
    ours, theirs = os.pipe()
    with open(theirs, "w", encoding="utf-8") as stream:
        configure_logs("json", "info", stream, on_drop=drops)

        for number in range(30):
            get_logger().info("x", number=number, filling="y" * 10_000)
        lost_count = drops.count
        os.read(ours, 1 << 20)
        get_logger().info("again")

    rest = read_all(ours)
    os.close(ours)
    assert 0 < lost_count < 30
    assert drops.count == lost_count
    assert json.loads(rest.splitlines()[-1])["event"] == "again"


class StuckPoll:
    """A descriptor that is never ready; keeps how long it was waited for."""

    def __init__(self) -> None:
        self.limits_ms: list[int] = []

    def register(self, _fd: int, _events: int) -> None:
        pass

    def poll(self, limit_ms: int) -> list[tuple[int, int]]:
        self.limits_ms.append(limit_ms)
        return []


def test_stuck_reader_is_waited_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    poll = StuckPoll()
    monkeypatch.setattr("select.poll", lambda: poll)
    with open(tmp_path / "log", "w", encoding="utf-8") as stream:
        configure_logs("json", "info", stream)

        for _ in range(3):
            get_logger().info("x")

    assert poll.limits_ms == [1000, 0, 0]


def read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def test_encoding_that_lacks_a_letter_gets_it_escaped(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w", encoding="ascii") as stream:
        configure_logs("console", "info", stream)
        get_logger().info("x", file="größe.json")

    assert r"gr\xf6\xdfe.json" in (tmp_path / "log").read_text()


def test_a_hint_is_told_as_the_caller_can_use_it() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream, hints=lambda hint: hint.replace("list", "list --config a.yaml"))

    get_logger().info("source_corrupt", hint="`backup-agent list`", file="list")

    record = json.loads(stream.getvalue())
    assert (record["hint"], record["file"]) == ("`backup-agent list --config a.yaml`", "list")
