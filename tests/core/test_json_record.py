import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.json_places import AmbiguousKeyError
from agent.core.json_record import NoDocumentError, open_document, path_of, record, with_records, without_record

RECORDS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=3), max_size=6)


@pytest.mark.parametrize(
    ("text", "key", "path"),
    [
        (b'{"a": {"b": 1}}', "a", ("a",)),
        (b'{"a": {"b": 1}}', "/a/b", ("a", "b")),
        (b'{"/a": 1, "a": 2}', "/a", ("/a",)),
        (b"[1, 2]", "1", (1,)),
        (b'{"1": 2}', "1", ("1",)),
        (b"{}", "new", ("new",)),
    ],
)
def test_a_record_is_named_by_its_key_a_pointer_or_an_index(text: bytes, key: str, path: object) -> None:
    assert path_of(open_document(text), key) == path


@settings(deadline=None)
@given(RECORDS, st.data())
def test_a_record_taken_out_and_put_in_again_leaves_the_same_values(
    records: dict[str, object], data: st.DataObject
) -> None:
    text = json.dumps(records, indent=data.draw(st.sampled_from([None, 2]))).encode()
    key = data.draw(st.sampled_from(sorted(records)) if records else st.just("gone"))
    taken = record(open_document(text), key)

    without = without_record(open_document(text), key)

    if taken is None:
        assert without is None
        return
    assert without is not None
    assert json.loads(without) == {k: v for k, v in records.items() if k != key}
    assert json.loads(with_records(open_document(without), {(key,): taken})) == records


def test_what_is_there_already_changes_no_byte() -> None:
    text = b'{ "a":1 }'

    assert with_records(open_document(text), {("a",): b"1"}) == text


@pytest.mark.parametrize("data", [b"", b"{", b"\xef\xbb\xbf{}", b"{} {}", b"[1,]"])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(NoDocumentError):
        open_document(data)


def test_a_key_written_twice_is_not_guessed() -> None:
    with pytest.raises(AmbiguousKeyError):
        without_record(open_document(b'{"a": 1, "a": 2}'), "a")
