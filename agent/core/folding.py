"""Many files of one folder that are in the same state are told of as one."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

K = TypeVar("K", bound=Hashable)
FOLDED_MIN = 4


class Fold(Struct, Generic[K], frozen=True):
    """Data files of one `kind`: those of a folder, or one by itself.

    `folder` ends with a slash, and is "" for the data folder itself; None: one file by itself.  `is_whole` says that no
    other file is known there, so that what is done with the folder is done with these files alone.
    """

    kind: K
    rels: tuple[str, ...]
    folder: str | None = None
    is_whole: bool = False

    @property
    def is_part(self) -> bool:
        """Whether the folder holds other files as well."""
        return self.folder is not None and not self.is_whole

    def name(self, data_dir: str) -> str:
        """Return what a person calls it: its path in the data folder, or that of the data folder."""
        return self.rels[0] if self.folder is None else self.folder or f"{data_dir}/"


def fold(kinds: Mapping[str, K], known: Iterable[str], *, may_be_part: Callable[[K], bool]) -> list[Fold[K]]:
    """Return the files of `kinds`, in the order of their paths, those of one kind and folder as one.

    A folder whose `known` files, at any depth, are all of one kind is one, and the topmost such; else the files that
    lie right in it, if `may_be_part` says that this kind may leave other files of the folder out.
    """
    all_below = Counter(folder for rel in {*known, *kinds} for folder in _folders_above(rel))
    of_kind = Counter((folder, kind) for rel, kind in kinds.items() for folder in _folders_above(rel))
    right_in = Counter((_folder_of(rel), kind) for rel, kind in kinds.items())

    def home(rel: str, kind: K) -> tuple[str, bool] | None:
        for folder in _folders_above(rel):
            if of_kind[folder, kind] == all_below[folder] >= FOLDED_MIN:
                return folder, True
        own = _folder_of(rel)
        return (own, False) if right_in[own, kind] >= FOLDED_MIN and may_be_part(kind) else None

    together: dict[object, list[str]] = {}
    for rel in sorted(kinds):
        together.setdefault((home(rel, kinds[rel]) or rel, kinds[rel]), []).append(rel)
    folds = []
    for rels in together.values():
        kind = kinds[rels[0]]
        folder, is_whole = home(rels[0], kind) or (None, False)
        folds.append(Fold(kind, tuple(rels), folder, is_whole))
    return folds


def _folder_of(rel: str) -> str:
    return rel[: rel.rfind("/") + 1]


def _folders_above(rel: str) -> Iterator[str]:
    """Yield the folders that `rel` lies in, the data folder first."""
    yield ""
    for place, character in enumerate(rel):
        if character == "/":
            yield rel[: place + 1]
