"""Requests read and answers written as bytes: what RFC 9112 needs for GET and HEAD without keep-alive."""

import re

from msgspec import Struct

HEAD_MAX_BYTES = 8192
PLAIN_TEXT = "text/plain; charset=utf-8"

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]{0,2000}) HTTP/1\.[01]\r?\n")
_HEADER_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")


class Request(Struct, frozen=True):
    """`path` is without the query; header names are in lower case, values of repeated ones joined by a comma."""

    method: str
    path: str
    headers: dict[str, str]


class Answer(Struct, frozen=True):
    """What is sent back; `headers` are whole lines, beside those that every answer has."""

    status: str
    body: bytes
    content_type: str = PLAIN_TEXT
    headers: tuple[str, ...] = ()

    def encoded(self, *, with_body: bool) -> bytes:
        lines = (
            f"HTTP/1.1 {self.status}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Connection: close",
            "Cache-Control: no-store",
            *self.headers,
        )
        return "\r\n".join((*lines, "", "")).encode("ascii") + (self.body if with_body else b"")


MALFORMED = Answer("400 Bad Request", b"not an HTTP request\n")
TOO_LARGE = Answer("431 Request Header Fields Too Large", b"request too large\n")


def is_decided(head: bytes | bytearray) -> bool:
    """Say whether an answer can be given: the head is whole, or can no longer become a good one."""
    if _HEAD_END.search(head) or len(head) > HEAD_MAX_BYTES:
        return True
    return not head[:1].isupper() or (b"\n" in head and not _REQUEST_LINE.match(head))


def parse(head: bytes) -> Request | Answer:
    """Return the request that `head` begins with, or the answer to refuse it with; a body is passed over."""
    end = _HEAD_END.search(head)
    if len(head if end is None else head[: end.start()]) > HEAD_MAX_BYTES:
        return TOO_LARGE
    line = _REQUEST_LINE.match(head)
    if line is None or end is None:
        return MALFORMED
    headers: dict[str, str] = {}
    for raw in head[line.end() : end.start()].splitlines():
        name, colon, value = raw.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _HEADER_NAME.fullmatch(name) or _CONTROL.search(value):
            return MALFORMED
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Request(line[1].decode("ascii"), line[2].decode("ascii").partition("?")[0], headers)


def quality(accepted: str, wanted: str) -> float:
    """Return how much a client likes `wanted`, by the header it sent; 0 if it does not name it (RFC 9110, 12.4.2)."""
    best = 0.0
    for item in accepted.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name == wanted:
            weight = next((value[2:] for value in parameters if value.startswith("q=")), "1")
            best = max(best, float(weight) if _QUALITY.fullmatch(weight) else 0.0)
    return best
