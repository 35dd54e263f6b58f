"""What a bot keeps and does: JSON documents of a given size that change a little, and trees full of small ones."""

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

KB, MB, GB = 10**3, 10**6, 10**9
SMALL = 4 * KB
_FILES_PER_FOLDER = 100
_ITEMS = ("sword", "shield", "potion", "map", "lantern", "rope", "cartridge", "amulet")


class Document:
    """A JSON object of records, about `size` bytes of it."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._records: list[bytes] = []
        length = 4
        while length < size - 100 or not self._records:
            self._records.append(self._record(len(self._records)))
            length += len(self._records[-1]) + 2

    def _record(self, number: int) -> bytes:
        draw = self._random
        items = ", ".join(f'"{item}"' for item in draw.sample(_ITEMS, draw.randrange(1, 5)))
        return (
            f'  "{10**17 + number * 7919}": {{"name": "player {draw.getrandbits(32):08x}", "cartridge":'
            f' {draw.randrange(10**6)}, "level": {draw.randrange(90)}, "items": [{items}],'
            f' "seen": "2026-0{draw.randrange(1, 10)}-{draw.randrange(10, 29)}T{draw.randrange(10, 24)}:00:00Z"}}'
        ).encode()

    def change(self, share: float = 0.01) -> None:
        """That share of the records gets new values, at least one."""
        count = len(self._records)
        for number in self._random.sample(range(count), max(1, round(count * share))):
            self._records[number] = self._record(number)

    def data(self) -> bytes:
        return b"{\n" + b",\n".join(self._records) + b"\n}\n"


def write_in_place(path: Path, data: bytes) -> None:
    """As most bots save: truncate, write, close."""
    path.write_bytes(data)


def write_by_rename(path: Path, data: bytes) -> None:
    """As careful bots save, but for the flush that few of them do."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    beside.replace(path)


STYLES = {"rename": write_by_rename, "in place": write_in_place}


CHANGED = {"2 MB": 2 * MB, "4 KB": 4 * KB}  # the files of a tree that the bot changes, by what they are called here


def changed_rel(size: str) -> str:
    return f"{size.replace(' ', '')}.json"


def tree_of(scratch: Path, count: int, name: str = "tree") -> Path:
    """Return a folder whose `data` holds `count` files: those of `CHANGED`, and small ones.

    It is kept for the next run, with what an agent made in it, so that a large tree is made and protected once.
    """
    folder = scratch / f"{name}-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    grow_tree(folder / "data", max(0, count - len(CHANGED)))
    for size, size_bytes in CHANGED.items():
        if not (path := folder / "data" / changed_rel(size)).exists():
            path.write_bytes(Document(size_bytes).data())
    return folder


def grow_tree(data: Path, count: int) -> None:
    """`data` holds `count` files of 4 KB, 100 to a folder; a tree that is whole already stays as it is."""
    done = data.with_name(f"{data.name}.whole")
    if done.exists() and done.read_text() == str(count):
        return
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    texts = [Document(SMALL, seed).data() for seed in range(64)]
    for number, path in enumerate(tree_files(data, count)):
        if number % _FILES_PER_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(texts[number % 64].replace(b"player", b"%06d" % number))  # no two are alike
    done.write_text(str(count))


def tree_files(data: Path, count: int) -> Sequence[Path]:
    return [data / f"guild{n // _FILES_PER_FOLDER:04}" / f"file{n % _FILES_PER_FOLDER:02}.json" for n in range(count)]


def settle(folder: Path) -> None:
    """Nothing of what came before is left to be written when the clock starts."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    os.sync()
