from pathlib import Path

from agent.disk.taken import own_bytes


def test_files_of_all_levels_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "sub/sub").mkdir(parents=True)
    (tmp_path / "sub/sub/b").write_bytes(bytes(5))

    assert own_bytes(str(tmp_path)) == 15


def test_file_with_a_second_name_is_counted_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "snapshot").write_bytes(bytes(10))
    (tmp_path / "inside/original").hardlink_to(tmp_path / "snapshot")
    (tmp_path / "inside/link").symlink_to(tmp_path / "snapshot")

    assert own_bytes(str(tmp_path / "inside")) == 0


def test_folder_that_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert own_bytes(str(tmp_path / "nowhere")) == 0
