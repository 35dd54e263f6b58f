"""The same value in an older version of a document."""

from collections.abc import Mapping

from agent.core.json_places import AmbiguousKeyError, Container, JsonText, Path

_ID_KEYS = ("id", "_id")


class Counterparts:
    """Finds in `older` what stands at a path of `newer`.

    Members of objects are the same when their keys are.  Items of arrays are the same when their ids (`id` or `_id`)
    are, if every item of both arrays has one of its own; else when their indexes are, if both arrays are equally long
    and no item has another id than the one it is set against.
    """

    def __init__(self, newer: JsonText, older: JsonText) -> None:
        self._newer, self._older = newer, older
        self._matches: dict[Path, Mapping[int, int]] = {}

    def value(self, path: Path) -> bytes | None:
        """Return the older text of the value at `path`, or None if there is none or it is not certain which it is."""
        try:
            older: Path = ()
            for depth, step in enumerate(path):
                if isinstance(step, int):
                    index = self._items(path[:depth], older).get(step)
                    if index is None:
                        return None
                    older = (*older, index)
                else:
                    older = (*older, step)
            return self._older.value(older)
        except AmbiguousKeyError:
            return None

    def _items(self, path: Path, older_path: Path) -> Mapping[int, int]:
        """Return which index of the older array each index of the newer one means."""
        if path not in self._matches:
            self._matches[path] = self._match(path, older_path)
        return self._matches[path]

    def _match(self, path: Path, older_path: Path) -> Mapping[int, int]:
        newer, older = _array(self._newer, path), _array(self._older, older_path)
        if newer is None or older is None:
            return {}
        in_step = len(newer.members) == len(older.members)
        for key in _ID_KEYS:
            ids, older_ids = _ids(self._newer, newer, key), _ids(self._older, older, key)
            if _are_unique(ids) and _are_unique(older_ids):
                index_of = {older_id: index for index, older_id in enumerate(older_ids)}
                return {index: index_of[one] for index, one in enumerate(ids) if one in index_of}
            pairs = zip(ids, older_ids, strict=False)
            in_step = in_step and all(one == other for one, other in pairs if one is not None and other is not None)
        return {index: index for index in range(len(newer.members))} if in_step else {}


def _array(text: JsonText, path: Path) -> Container | None:
    member = text.find(path)
    container = text.container(member) if member else None
    return container if container is not None and container.is_array else None


def _ids(text: JsonText, array: Container, key: str) -> list[bytes | None]:
    """Return the id of each item as it is written; None for an item that has no such number or string."""
    ids = list[bytes | None]()
    for item in array.members.values():
        record = text.container(item)
        member = record.members.get(key) if record and not record.is_array and not record.has_repeated_key else None
        written = text.text[member.value : member.end] if member else None
        ids.append(None if written is None or written[:1] in b"{[ntf" else written)
    return ids


def _are_unique(ids: list[bytes | None]) -> bool:
    return None not in ids and len(set(ids)) == len(ids)
