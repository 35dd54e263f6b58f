"""The names of everything a check can find: a small fixed set, because they become metric labels."""

from enum import StrEnum


class ProblemKind(StrEnum):
    """What is wrong with a document, or worth knowing about it."""

    # The text cannot be read.
    EMPTY = "empty"
    TRUNCATED = "truncated"
    SYNTAX = "syntax"
    TRAILING_DATA = "trailing_data"
    NUL = "nul"
    NOT_A_NUMBER = "not_a_number"
    ENCODING = "encoding"
    BOM = "bom"
    UTF16 = "utf16"
    # The text is fine and the document is not.
    SCHEMA = "schema"
    # Nobody can say.
    SCHEMA_UNUSABLE = "schema_unusable"
    NESTING = "nesting"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    # Collapsed against the last good state.
    EMPTIED = "emptied"
    ROOT_CHANGED = "root_changed"
    FEWER_RECORDS = "fewer_records"
    FEWER_BYTES = "fewer_bytes"
    # Readable, yet not by everyone alike.
    DUPLICATE_KEY = "duplicate_key"
    BIG_INTEGER = "big_integer"
    LONE_SURROGATE = "lone_surrogate"
    REPLACEMENT_CHARACTER = "replacement_character"
