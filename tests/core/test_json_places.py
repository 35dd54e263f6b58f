import pytest

from agent.core.json_places import JsonText, Path


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("", ()),
        ("/", ("",)),
        ("/1", ("1",)),
        ("/a~1b~01/0", ("a/b~1", 0)),
        ("/a~1b~01/-", ("a/b~1", 2)),
        ("/a~1b~01/01", ("a/b~1", "01")),
        ("/nothing/0", ("nothing", "0")),
    ],
)
def test_pointer_means_an_index_only_in_an_array(pointer: str, path: Path) -> None:
    assert JsonText(b'{"a/b~1": [1, 2], "1": 3}').resolve(pointer) == path


def test_text_that_is_no_pointer_is_refused() -> None:
    with pytest.raises(ValueError, match="pointer"):
        JsonText(b"{}").resolve("users/1")
