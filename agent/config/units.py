"""Durations, sizes and addresses as people write them, and back."""

import re

_SECONDS_PER = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES_PER = {"b": 1} | {
    f"{letter}{infix}b": base**power
    for base, infix in ((1000, ""), (1024, "i"))
    for power, letter in enumerate("kmgt", start=1)
}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"

DURATION_PATTERN = rf"0|{_NUMBER} ?(?:ms|s|m|h|d|w)"
SIZE_PATTERN = rf"[0-9]{{1,18}}|{_NUMBER} ?(?:[kKmMgGtT][iI]?)?[bB]"

_DURATION_MAX_S = 100 * 365 * 86400.0  # a century; beyond it, calendar arithmetic starts to overflow
_SIZE_MAX_BYTES = 2**63 - 1  # what a file offset can hold


class UnfitError(ValueError):
    """The text is not what it should be; `hint` shows the right form."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def parse_duration(text: str) -> float:
    """Return the seconds that `500ms`, `2s`, `5m`, `24h`, `7d`, `2w` or `0` mean.

    Raises:
        UnfitError: no such form, negative, or longer than a century.
    """
    if text == "0":
        return 0.0
    if re.fullmatch(_NUMBER, text):
        raise UnfitError(f"`{text}` has no unit", hint=f"for seconds write {text}s; units are ms, s, m, h, d, w")
    if not re.fullmatch(DURATION_PATTERN, text):
        what = "a duration cannot be negative" if text.startswith("-") else f"`{text}` is not a duration"
        raise UnfitError(what, hint="write a number and a unit, such as 500ms, 2s, 5m, 24h, 7d or 2w")
    unit = text.lstrip("0123456789. ")
    seconds = float(text.removesuffix(unit)) * _SECONDS_PER[unit]
    if seconds > _DURATION_MAX_S:
        raise UnfitError(f"`{text}` is longer than a century", hint="write at most 36500d")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as `seconds`, to the millisecond."""
    milliseconds = round(seconds * 1000)
    for unit, factor in reversed(_SECONDS_PER.items()):
        count, rest = divmod(milliseconds, round(factor * 1000))
        if count and not rest:
            return f"{count}{unit}"
    return "0"


def parse_size(text: str) -> int:
    """Return the bytes that `64KiB`, `10MB` or a bare number of bytes mean.

    Raises:
        UnfitError: no such form, negative, or more than a file can hold.
    """
    if not re.fullmatch(SIZE_PATTERN, text):
        what = "a size cannot be negative" if text.startswith("-") else f"`{text}` is not a size"
        raise UnfitError(what, hint="write bytes, or a number and a unit such as 64KiB, 10MB or 2GiB")
    number = re.match(_NUMBER, text)
    assert number is not None  # SIZE_PATTERN begins with it
    unit = text[number.end() :].strip().lower() or "b"
    size = int(text) if text.isdecimal() else round(float(number[0]) * _BYTES_PER[unit])
    if size > _SIZE_MAX_BYTES:
        raise UnfitError(f"`{text}` is more than a file can hold", hint="write a smaller size")
    return size


def format_size(size_bytes: int) -> str:
    """Return a text that `parse_size` reads as exactly `size_bytes`."""
    for power, letter in reversed(list(enumerate("KMGT", start=1))):
        for base, unit in ((1024, f"{letter}iB"), (1000, f"{letter}B")):
            count, rest = divmod(size_bytes, base**power)
            if count and not rest:
                return f"{count}{unit}"
    return str(size_bytes)


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:9184`, `localhost:9184` or `[::1]:9184`.

    Raises:
        UnfitError: no such form, or the port is beyond 65535.
    """
    form = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", text)
    if form is None or int(form["port"]) > 65535:
        raise UnfitError(
            f"`{text}` is not an address",
            hint="write HOST:PORT such as 127.0.0.1:9184, [::1]:9184, or 0.0.0.0:9184 for every interface; or off",
        )
    return form["v6"] or form["host"], int(form["port"])
