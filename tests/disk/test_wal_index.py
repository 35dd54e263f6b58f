import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.disk import wal_index
from agent.disk.catalog import Catalog
from agent.disk.database import CATALOG_NAME


def test_index_of_an_open_catalog_has_all_its_blocks(tmp_path: Path) -> None:
    """A block that is missing is asked for at the first touch of a mapped page: SIGBUS where the disk is full by then."""
    catalog = Catalog(str(tmp_path))
    index = os.stat(tmp_path / f"{CATALOG_NAME}-shm")
    catalog.close()

    assert index.st_blocks * 512 >= index.st_size > 0


def test_catalog_is_not_opened_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_index.os, "statvfs", lambda _: SimpleNamespace(f_bavail=15, f_frsize=4096))

    with pytest.raises(sqlite3.OperationalError, match="full"):
        Catalog(str(tmp_path))


def test_catalog_that_is_open_already_is_opened_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Catalog(str(tmp_path))
    monkeypatch.setattr(wal_index.os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4096))

    second = Catalog(str(tmp_path))

    assert second.is_whole()
    second.close()
    first.close()


def test_index_that_cannot_get_its_blocks_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> int:
        wal_index.ctypes.set_errno(28)
        return -1

    monkeypatch.setattr(wal_index, "_libc", SimpleNamespace(fallocate=refuses))

    with pytest.raises(sqlite3.OperationalError, match="full"):
        Catalog(str(tmp_path))
