"""Where in a text a byte stands, as a person counts."""

_CHUNK_BYTES = 1 << 20
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))  # the second and later bytes of a UTF-8 character


def line_and_column(text: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Return line and column of the byte at `offset` of a UTF-8 text, both counted from 1, columns in characters."""
    line, column = 1, 1
    for start in range(0, offset, _CHUNK_BYTES):
        chunk = bytes(text[start : min(start + _CHUNK_BYTES, offset)])
        line_start = chunk.rfind(b"\n") + 1
        if line_start:
            line += chunk.count(b"\n")
            column = 1
        column += len(chunk[line_start:].translate(None, _CONTINUATION_BYTES))
    return line, column
