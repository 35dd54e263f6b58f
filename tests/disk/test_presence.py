from pathlib import Path

import pytest

from agent.disk.presence import is_folder, is_there


def test_file_folder_and_broken_link_are_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")

    assert [is_there(str(tmp_path / name)) for name in ("file", "link", "none", "file/below", "x" * 300)] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert [is_folder(str(path)) for path in (tmp_path, tmp_path / "file", tmp_path / "link")] == [True, False, False]


def test_disk_that_does_not_tell_is_no_absence(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(OSError, match="Too many levels"):
        is_folder(str(tmp_path / "loop"))
    with pytest.raises(OSError, match="Too many levels"):
        is_there(str(tmp_path / "loop/below"))
