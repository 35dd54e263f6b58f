"""A catalog is opened and looked through; one that is damaged is set aside for a new one."""

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from agent.core.stamp import format_stamp
from agent.disk.catalog import Catalog
from agent.disk.database import CATALOG_NAME, set_aside
from agent.disk.presence import is_there


def open_catalog(state_dir: str, now: datetime) -> tuple[Catalog, str | None]:
    """Return the catalog, and where a damaged one was set aside (or "missing") when it had to be begun anew.

    Whether it is whole is still to be asked.
    """
    is_new = not is_there(os.path.join(state_dir, CATALOG_NAME))
    try:
        return Catalog(state_dir), "missing" if is_new else None
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return begin_catalog_anew(state_dir, now)


def begin_catalog_anew(state_dir: str, now: datetime) -> tuple[Catalog, str]:
    """Return an empty catalog, and where the damaged one is kept."""
    kept = set_aside(state_dir, format_stamp(now.replace(microsecond=now.microsecond // 1000 * 1000)))
    return Catalog(state_dir), kept


def says_yes(is_whole: Callable[[], bool]) -> bool:
    """Return the answer; a catalog too damaged to give one is not whole.

    Raises:
        sqlite3.OperationalError: it cannot be told now.
    """
    try:
        return is_whole()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False


def in_thread(is_whole: Callable[[], bool]) -> Callable[[], bool]:
    """Have it asked at once, beside everything else; return what waits for the answer.

    Where no thread can be made, it is asked by whoever waits.
    """
    pool = ThreadPoolExecutor(1, "catalog-check")
    try:
        return pool.submit(is_whole).result
    except RuntimeError:
        return is_whole
    finally:
        pool.shutdown(wait=False)
