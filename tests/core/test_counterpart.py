import json
from typing import Any

import pytest

from agent.core.counterpart import Counterparts
from agent.core.json_places import JsonText, Path


def counterpart(newer: Any, older: Any, path: Path) -> Any:
    texts = [JsonText(one if isinstance(one, bytes) else json.dumps(one).encode()) for one in (newer, older)]
    found = Counterparts(*texts).value(path)
    return None if found is None else json.loads(found)


@pytest.mark.parametrize(
    ("newer", "older", "path", "value"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ("a", "b"), 2),
        ({"a": {}}, {"a": {"b": 2}}, ("a", "b"), 2),
        ({"a": {"b": 1}}, {"a": 5}, ("a", "b"), None),
        ({"a": {"b": 1}}, {"a": [2]}, ("a", "b"), None),
        ({"a": [1]}, {"a": {"0": 2}}, ("a", 0), None),
        ([1, "x"], [3, 4], (1,), 4),
        ([1, "x"], [3, 4, 5], (1,), None),
        ([{"id": 1}, {"id": 2, "n": "x"}], [{"id": 2, "n": 7}, {"id": 9}, {"id": 1}], (1, "n"), 7),
        ([{"_id": "a"}, {"_id": "b", "n": "x"}], [{"_id": "b", "n": 7}], (1, "n"), 7),
        ([{"id": 1}, {"id": 3}], [{"id": 1}, {"id": 2}], (1,), None),
        ([{"id": 1}, {"id": "1"}], [{"id": "1", "n": 1}, {"id": 1, "n": 2}], (0, "n"), 2),
        ([{"id": 7}, {"id": 7, "n": "x"}], [{"id": 7, "n": 1}, {"id": 7, "n": 2}], (1, "n"), 2),
        ([{"id": 1}, {"n": "x"}], [{"id": 1}, {"id": 2, "n": 5}], (1, "n"), 5),
        ([{"id": 2}, {"n": "x"}], [{"id": 1}, {"id": 2, "n": 5}], (1, "n"), None),
        ({"l": [[{"id": 1}, {"id": 2}]]}, {"l": [[{"id": 2, "n": 3}]]}, ("l", 0, 1, "n"), 3),
        (b'{"a": 1}', b'{"a": 2, "a": 3}', ("a",), None),
        (b'[{"id": 1, "id": 2}]', b'[{"id": 1, "id": 2, "n": 3}]', (0,), {"id": 2, "n": 3}),
    ],
)
def test_same_value_is_found_by_key_by_id_or_by_index_or_not_at_all(
    newer: Any, older: Any, path: Path, value: Any
) -> None:
    assert counterpart(newer, older, path) == value


def test_value_keeps_the_spelling_it_has_there() -> None:
    newer, older = JsonText(b'{"a": 1}'), JsonText(b'{"a":  [0.10, 1e400, "\\u00e9"] }')

    assert Counterparts(newer, older).value(("a",)) == b'[0.10, 1e400, "\\u00e9"]'
