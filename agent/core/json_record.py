"""One record of a JSON document, named as a person names it, and taken out or put in without touching the rest."""

import json
from collections.abc import Mapping

from agent.core.json_edit import with_edits
from agent.core.json_places import JsonText, Path
from agent.core.json_text import Flaw, read_document


class NoDocumentError(ValueError):
    """The bytes are no JSON document in UTF-8; the message quotes none of them."""


def open_document(data: bytes) -> JsonText:
    """Return the document that fills `data`.

    Raises:
        NoDocumentError: there is none.
    """
    found = read_document(data, constants=True)
    if isinstance(found, Flaw):
        raise NoDocumentError(found.message)
    return JsonText(data)


def path_of(document: JsonText, key: str) -> Path:
    """Return the path that a person means by `key`: a member of the root, else a JSON pointer, else an item's index.

    It need not lead to a value.

    Raises:
        AmbiguousKeyError: a key on the way is written twice.
    """
    key = key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # as a lossy reader sees it
    root = document.find(())
    container = document.container(root) if root else None
    if container is not None and not container.is_array and key in container.members:
        return (key,)
    if key.startswith("/"):
        return document.resolve(key)
    return document.resolve(f"/{key}") if container is not None and container.is_array and key.isdigit() else (key,)


def passes_an_item(path: Path) -> bool:
    """Whether `path` goes by an index: it means another record as soon as one before it comes or goes."""
    return any(isinstance(step, int) for step in path)


def record(document: JsonText, key: str) -> bytes | None:
    """Return the text of the record `key`, or None.  Raises: as `path_of`."""
    return document.value(path_of(document, key))


def with_records(document: JsonText, records: Mapping[Path, bytes]) -> bytes:
    """Return the text with each record as given, in place of what stood there or behind the last of its siblings.

    Raises:
        AmbiguousKeyError: a key on the way, or beside it, is written twice.
        LookupError: what should hold a record is not there.
    """
    return with_edits(document, {path: text for path, text in records.items() if document.value(path) != text})


def without_record(document: JsonText, key: str) -> bytes | None:
    """Return the text without the record `key`; None when it has none.

    Raises:
        AmbiguousKeyError: a key on the way, or beside it, is written twice.
        LookupError: the key names the document itself.
    """
    path = path_of(document, key)
    if document.find(path) is None:
        return None
    return with_edits(document, {path: None})


def without_items(document: JsonText, field: str, key: str) -> bytes | None:
    """Return the text without those items of the root, an array, whose `field` is the text or the number `key`.

    None when there are none, or the root is no array.

    Raises:
        AmbiguousKeyError: an item has a key twice.
    """
    root = document.find(())
    container = document.container(root) if root else None
    if container is None or not container.is_array:
        return None
    found: list[Path] = [(item,) for item in container.members if _spells(document.value((item, field)), key)]
    return with_edits(document, dict.fromkeys(found)) if found else None


def _spells(text: bytes | None, key: str) -> bool:
    """Whether `text` is the number, or the string, that `key` spells."""
    if text is None:
        return False
    if not text.startswith(b'"'):
        return text.decode("utf-8", "replace") == key
    return bool(json.loads(text.decode("utf-8", "replace")) == key)
