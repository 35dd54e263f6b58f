"""The data files, folders and snapshots that people name."""

import difflib
import os
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from agent.commands.session import Session
from agent.core.errors import UsageError
from agent.core.model import Grade, Snapshot
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.disk.walk import Found, Skipped, walk_data_files
from agent.outcome import Ending, Outcome

# what there is to name


def found_files(session: Session) -> list[str]:
    """Return the rel of every data file that is there now, sorted."""
    return find_files(session)[0]


def find_files(session: Session) -> tuple[list[str], list[Outcome]]:
    """Return the rel of every data file that is there now, sorted, and an outcome for each place that may hide some."""
    config = session.config
    with session.ws.data_root() as root_fd:
        entries = list(
            walk_data_files(root_fd, config.is_data_file, lambda folder: not config.may_hold_data_files(folder))
        )
    found = sorted(entry.rel for entry in entries if isinstance(entry, Found))
    return found, [hidden(entry) for entry in entries if isinstance(entry, Skipped) and entry.hides_files]


def hidden(entry: Skipped) -> Outcome:
    """What is told of an entry that hides files."""
    return Outcome(entry.rel or ".", Ending.UNREADABLE, grade=Grade.UNREADABLE, error=entry.error)


def known_files(session: Session) -> list[str]:
    """Return the rel of every data file that is there, or was when it was last looked at, sorted."""
    return sorted({*found_files(session), *(state.rel for state in session.ws.catalog.files())})


def all_files(session: Session) -> list[str]:
    """Return the rel of every data file that is there, was there, or left snapshots, sorted."""
    left = {snapshot.rel for snapshot in session.ws.catalog.all_snapshots()}
    return sorted({*known_files(session), *left})


# what a name means


def resolve_files(
    session: Session, names: Sequence[str], within: Callable[[Session], list[str]] = all_files
) -> list[str]:
    """Return the rel of each data file that a person named, each once; a folder stands for those `within` it.

    A name is a path on the machine, as the shell completes it, or else a path in the data folder, or the name that
    `list` shows for one that cannot be typed.

    Raises:
        UsageError: a name is neither a data file, there now or known from before, nor a folder that holds any; the
            closest one is suggested.
    """
    return list(dict.fromkeys(rel for name in names for rel in meant_by(session, name, within).rels))


def resolve_file(session: Session, name: str) -> str:
    """Return the rel of the one data file that a person named.

    Raises:
        UsageError: as `resolve_files`, or it is a folder.
    """
    meant = meant_by(session, name)
    if meant.is_folder:
        raise UsageError(f"{display(name)} is a folder", hint=f"name one file, such as {shell_word(meant.rels[0])}")
    return meant.rels[0]


class Meant(Struct, frozen=True):
    """The data files that one name stands for."""

    rels: tuple[str, ...]  # sorted; for a folder at least one
    is_folder: bool = False


def meant_by(session: Session, name: str, within: Callable[[Session], list[str]] = all_files) -> Meant:
    """Return what a person named; raises as `resolve_files`."""
    exact = _exact(session, name)
    if exact is not None:
        return Meant((exact,))
    everything = all_files(session)
    folder = next((f for f in _spellings(session, name) if any(map(_lies_in(f), everything))), None)
    if folder is not None:
        rels = tuple(filter(_lies_in(folder), within(session)))
        if not rels:
            raise UsageError(
                f"no data file is left in the folder {display(name)}",
                hint=f"`backup-agent list {shell_word(name)}` shows what is kept of them",
            )
        return Meant(rels, is_folder=True)
    shown = {display(rel): rel for rel in everything}
    if name in shown:
        return Meant((shown[name],))
    raise _unknown(session, name, list(shown))


def _exact(session: Session, name: str) -> str | None:
    """The data file of exactly this name, there or known."""
    config, catalog = session.config, session.ws.catalog
    for rel in () if name.endswith("/") else filter(None, _spellings(session, name)):
        if catalog.file(rel) is not None or catalog.newest(rel) is not None:
            return rel
        if config.is_data_file(rel) and os.path.lexists(os.path.join(config.data_dir, rel)):
            return rel
    return None


def _lies_in(folder: str) -> Callable[[str], bool]:
    return lambda rel: not folder or rel.startswith(f"{folder}/")


def _spellings(session: Session, name: str) -> Iterator[str]:
    """Yield what `name` may be below the data folder, which is "" itself: as a path on the machine, then as it is."""
    yield from _below(session.config.data_dir, name)
    typed = os.path.normpath(name)
    if not os.path.isabs(typed) and typed.split("/")[0] not in (os.curdir, os.pardir):
        yield typed


def _below(folder: str, name: str) -> Iterator[str]:
    """Yield what `name`, typed here, is called below `folder`, however both are spelled."""
    path = os.path.abspath(name)
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    for rel in (os.path.relpath(path, folder), os.path.relpath(real, os.path.realpath(folder))):
        if rel.split("/")[0] != os.pardir:
            yield "" if rel == os.curdir else rel


def _unknown(session: Session, name: str, shown: Sequence[str]) -> UsageError:
    """Nothing is called so: the closest file or folder is suggested."""
    data_dir = session.config.data_dir
    if any(os.path.isdir(os.path.join(data_dir, folder)) for folder in _spellings(session, name)):
        return UsageError(
            f"there are no data files in the folder {display(name)}", hint="`backup-agent list` shows all there are"
        )
    folders = {f"{parent}/" for rel in shown for parent in _parents(rel)}
    tried = [name, *(display(rel) for rel in _below(data_dir, name) if rel)]
    near = [close for spelling in tried for close in difflib.get_close_matches(spelling, [*shown, *folders], n=1)]
    hint = f"did you mean {shell_word(near[0])}?" if near else "`backup-agent list` shows the files that are known"
    return UsageError(f"{display(name)} is no data file or folder of {display(data_dir)}", hint=hint)


def _parents(rel: str) -> Iterator[str]:
    while "/" in rel:
        rel = rel.rpartition("/")[0]
        yield rel


def resolve_snapshot(session: Session, name: str, rel: str | None = None) -> Snapshot:
    """Return the snapshot that a person named, by its path in the backup folder, on the machine, or its bare name.

    Raises:
        UsageError: no snapshot (of `rel`, where given) has this name, or several have.
    """
    catalog = session.ws.catalog
    for candidate in (name, *filter(None, _below(session.config.backup_dir, name))):
        exact = catalog.snapshot_named(candidate)
        if exact is not None and rel in (None, exact.rel):
            return exact
    pool = list(catalog.snapshots(rel) if rel is not None else catalog.all_snapshots())
    matches = [s for s in pool if name in (os.path.basename(s.name), display(s.name))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            f"{display(name)} is the name of {len(matches)} snapshots",
            hint=f"name one with its folder, such as {display(matches[0].name)}",
        )
    whose = f" of {display(rel)}" if rel is not None else ""
    begun = [s for s in pool if os.path.basename(s.name).startswith(name) or s.name.startswith(name)]
    raise UsageError(
        f"there is no snapshot{whose} called {display(name)}",
        hint=f"did you mean {shell_word(begun[0].name)}?"
        if name and len(begun) == 1
        else f"`backup-agent list {shell_word(rel) if rel is not None else 'FILE'}` shows their names",
    )
