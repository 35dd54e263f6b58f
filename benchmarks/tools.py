"""The tools that Debian packages for the same work, each with the commands that a careful person would give."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from floor import compiled

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Place:
    """What is saved, and where to: `data` is a tree in which `changed` changes, `store` is the tool's own."""

    data: Path
    changed: Path
    store: Path

    def versions(self) -> list[Path]:
        """What is in the store, oldest first; for the tools whose versions are plain entries."""
        return sorted(self.store.iterdir(), key=lambda path: path.name)


@dataclass(frozen=True)
class Tool:
    """`begin` makes a store with a first version, `save` adds one named `stamp`; `finish` is what makes it small."""

    name: str
    program: str
    begin: Callable[[Place], Sequence[Command]]
    save: Callable[[Place, str], Sequence[Command]]
    finish: Callable[[Place], Sequence[Command]] = lambda _: ()
    keeps_all: bool = True  # False: every version is a whole tree, so the one before the last is deleted

    @property
    def is_installed(self) -> bool:
        return shutil.which(self.program) is not None


@dataclass(frozen=True)
class Cost:
    """What commands took as whole processes, one after the other."""

    wall_s: float
    resident_bytes: int


def run(commands: Sequence[Command], scratch: Path) -> Cost:
    """Run the commands; nothing of the person's own configuration or cache is used.

    Raises:
        subprocess.CalledProcessError: one of them failed; what it said is in the error.
    """
    wall_s, resident = 0.0, 0
    timed, result, log = compiled("timed", scratch), scratch / "timed.txt", scratch / "tool-output.txt"
    for command in commands:
        with log.open("wb") as output:
            status = subprocess.run(
                [timed, result, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=_environment(scratch), check=False,
            ).returncode  # fmt: skip
        if status:
            raise subprocess.CalledProcessError(status, [*command], log.read_bytes().decode(errors="replace"))
        wall_ns, resident_kb = map(int, result.read_text().split())
        wall_s += wall_ns / 1e9
        resident = max(resident, resident_kb * 1024)
    return Cost(wall_s, resident)


def _environment(scratch: Path) -> Mapping[str, str]:
    home = scratch / "tools-home"
    home.mkdir(exist_ok=True)
    return {
        **os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_CONFIG_HOME": str(home),
        "BORG_BASE_DIR": str(home), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes", "RESTIC_PASSWORD": "benchmark", "PASSPHRASE": "",
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@b", "GIT_COMMITTER_NAME": "b",
        "GIT_COMMITTER_EMAIL": "b@b",
    }  # fmt: skip


def stamp() -> str:
    """Return a name for a version; later ones sort after earlier ones."""
    return str(time.time_ns() // 1_000_000)


# cp


def _cp(place: Place, name: str) -> Sequence[Command]:
    copy = place.store / f"{name}.json"
    return [["cp", place.changed, copy], ["sync", copy, place.store]]  # with names and no option, this is fsync


def _cp_begin(place: Place) -> Sequence[Command]:
    return [["mkdir", "-p", place.store], *_cp(place, stamp())]


# rsync


def _rsync_begin(place: Place) -> Sequence[Command]:
    return [["mkdir", "-p", place.store], ["rsync", "-a", f"{place.data}/", place.store / stamp()]]


def _rsync(place: Place, name: str) -> Sequence[Command]:
    last = place.versions()[-1]
    return [["rsync", "-a", "--fsync", f"--link-dest={last}", f"{place.data}/", place.store / name]]


# git


def _git(place: Place, *words: str) -> Command:
    return ["git", f"--git-dir={place.store}", f"--work-tree={place.data}", "-c", "gc.auto=0", *words]


def _git_save(place: Place, name: str) -> Sequence[Command]:
    return [_git(place, "add", "-A"), _git(place, "commit", "-q", "-m", name)]


def _git_begin(place: Place) -> Sequence[Command]:
    return [_git(place, "init", "-q"), *_git_save(place, "first")]


def _git_finish(place: Place) -> Sequence[Command]:
    return [_git(place, "gc", "-q", "--prune=now")]


# borg, restic


def _borg(place: Place, name: str) -> Sequence[Command]:
    return [["borg", "create", f"{place.store}::{name}", place.data]]


def _borg_begin(place: Place) -> Sequence[Command]:
    return [["borg", "init", "-e", "none", place.store], *_borg(place, stamp())]


def _restic(place: Place, _: str) -> Sequence[Command]:
    return [["restic", "-q", "-r", place.store, "backup", place.data]]


def _restic_begin(place: Place) -> Sequence[Command]:
    return [["restic", "-q", "-r", place.store, "init"], *_restic(place, "")]


# rdiff-backup, duplicity: their versions are told apart by the second


def _rdiff(place: Place, _: str) -> Sequence[Command]:
    return [["rdiff-backup", "--current-time", _next_second(place), "backup", place.data, place.store]]


def _duplicity(place: Place, _: str) -> Sequence[Command]:
    archive = place.store.with_name("duplicity-archive")
    return [
        ["duplicity", "--no-encryption", "--allow-source-mismatch", "--archive-dir", archive, "--current-time",
         _next_second(place), place.data, f"file://{place.store}"]
    ]  # fmt: skip


def _next_second(place: Place) -> str:
    """Return a time that no version of this store has yet, so that none has to wait for its second."""
    note = place.store.with_name(place.store.name + ".time")
    last = int(note.read_text()) if note.exists() else int(time.time()) - 10_000_000
    note.write_text(str(last + 2))
    return str(last + 2)


CP = Tool("cp + sync", "cp", _cp_begin, _cp)
TOOLS = (
    CP,
    Tool("rsync --link-dest", "rsync", _rsync_begin, _rsync, keeps_all=False),
    Tool("git commit", "git", _git_begin, _git_save, _git_finish),
    Tool("borg", "borg", _borg_begin, _borg),
    Tool("restic", "restic", _restic_begin, _restic),
    Tool("rdiff-backup", "rdiff-backup", lambda place: _rdiff(place, ""), _rdiff),
    Tool("duplicity", "duplicity", lambda place: _duplicity(place, ""), _duplicity),
)
