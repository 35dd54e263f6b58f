import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.units import (
    UnfitError,
    format_duration,
    format_size,
    parse_address,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("5m", 300.0),
        ("24h", 86400.0),
        ("7d", 604800.0),
        ("2w", 1209600.0),
        ("0", 0.0),
        ("1.5s", 1.5),
        ("2 s", 2.0),
    ],
)
def test_duration_with_a_unit_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["30", "1.5"])
def test_duration_without_a_unit_is_told_the_form_with_seconds(text: str) -> None:
    with pytest.raises(UnfitError, match="has no unit") as caught:
        parse_duration(text)

    assert f"{text}s" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "-2s", "2S", "s", "1h30m", "2s ", " 2s", "2s\n", "nan", "1e3s", "٣s", "36501d", "9" * 5000 + "s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1024", 1024),
        ("64KiB", 65536),
        ("10MB", 10_000_000),
        ("1.5 GiB", 1610612736),
        ("7b", 7),
        ("2tb", 2 * 10**12),
    ],
)
def test_size_with_or_without_a_unit_is_read_as_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "-1", "1.5", "10M", "KiB", "1 2", "9999999999TB", "1e3", "0x10", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        parse_size(text)


@given(st.integers(0, 100 * 365 * 86_400_000))
def test_written_duration_reads_back_to_the_millisecond(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) * 1000 == pytest.approx(milliseconds)


@given(st.one_of(st.integers(0, 10**18 - 1), st.integers(0, 500).map(lambda n: n * 1024**3)))
def test_written_size_reads_back_exactly(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9184", ("127.0.0.1", 9184)), ("localhost:0", ("localhost", 0)), ("[::1]:9184", ("::1", 9184))],
)
def test_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "9184", ":9184", "127.0.0.1", "127.0.0.1:", "::1:9184", "a:65536", "a:-1", "a b:1", "http://a:1"]
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UnfitError) as caught:
        parse_address(text)

    assert "127.0.0.1:9184" in caught.value.hint
