"""Whether the folders can do what the agent needs of them: rights, leases, exchanges, space, events.

Probe files are made in folders that are there already, and removed.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack

from agent.commands.finding import Case, Finding, fail, ok, warn
from agent.commands.wording import counted, size
from agent.core.naming import display
from agent.core.room import Room
from agent.disk import lease
from agent.disk.atomic import cannot_exchange, exchange
from agent.disk.mounts import is_remote
from agent.disk.staging import StagingFolder

_WATCH_LIMIT = "/proc/sys/fs/inotify/max_user_watches"
_MOUNTS = "/proc/self/mountinfo"


def examine_folders(case: Case) -> Iterator[Finding]:
    """Yield what is found, the most basic aspect first."""
    yield _permissions(case)
    yield from _owner(case)
    yield _leases(case)
    yield _exchange(case)
    yield from _mounted_files(case)
    yield from _kinds(case)
    yield _space(case)
    yield _watches(case)


def _permissions(case: Case) -> Finding:
    config, lacking = case.config, []
    for folder in (config.data_dir, config.backup_dir, config.temp_dir, config.state_dir):
        place = nearest(folder)
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            lacking.append(display(place))
    if lacking:
        return fail(
            "permissions", f"no right to read and write {', '.join(dict.fromkeys(lacking))}", "run it as the bot's user"
        )
    return ok("permissions", "data, backup, temp and state folder can be read and written")


def nearest(folder: str) -> str:
    """Return `folder`, or the part of its path that is there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _owner(case: Case) -> Iterator[Finding]:
    if not case.seen.owner_is_us:
        yield warn(
            "user", f"the data folder is {case.seen.owner}'s, and this is another user",
            f"run the agent, and doctor, as {case.seen.owner}: what is said here holds for this user",
        )  # fmt: skip
        return
    foreign = [seen.rel for seen in case.seen.files if not _is_ours(os.path.join(case.config.data_dir, seen.rel))]
    if foreign:
        yield warn(
            "user", f"{counted(len(foreign), 'data file')} of another user, such as {display(foreign[0])}",
            "give them to the bot's user: the kernel grants leases to the owner alone",
        )  # fmt: skip
    else:
        yield ok("user", f"the data files are {case.seen.owner}'s, and so is this process")


def _is_ours(path: str) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_uid == os.geteuid()
    except OSError:
        return True  # gone meanwhile


def _probe_folder(case: Case) -> str:
    return case.config.temp_dir if os.path.isdir(case.config.temp_dir) else case.config.data_dir


def _leases(case: Case) -> Finding:
    try:
        with StagingFolder(_probe_folder(case)) as folder:
            staged = folder.create()
            try:
                fd = staged.reopen_for_reading()
                try:
                    granted = lease.take_read_lease(fd)
                    lease.release(fd)
                finally:
                    os.close(fd)
            finally:
                staged.discard()
    except OSError as error:
        return fail("leases", f"cannot be tried: {error.strerror}", "mend the permissions first")
    if granted is lease.Lease.HELD:
        return ok("leases", "the kernel holds a writer back while a file is read")
    return warn(
        "leases", "not on this file system: a read counts as whole when nothing changed before and after it",
        "nothing, or keep the data on a local disk",
    )  # fmt: skip


def _exchange(case: Case) -> Finding:
    aspect = "exchange"
    try:
        with ExitStack() as held:
            here = held.enter_context(StagingFolder(_probe_folder(case)))
            there = held.enter_context(StagingFolder(case.config.data_dir))
            one, other = here.create(), there.create()
            held.callback(one.discard)
            held.callback(other.discard)
            exchange(here.fd, one.name, there.fd, other.name)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return warn(
                aspect, "temp_dir is on another file system or mount than data_dir: heals stage in the bot's folder",
                "leave temp_dir out of the config, or put it where data_dir is",
            )  # fmt: skip
        if cannot_exchange(error):
            return warn(
                aspect, "not on this file system: a heal replaces the file, with a look at it right before",
                "nothing, or keep the data on a local disk such as ext4, xfs or btrfs",
            )  # fmt: skip
        return fail(aspect, f"cannot be tried: {error.strerror}", "mend the permissions first")
    return ok(aspect, "a healed file takes its place in one step, from temp_dir")


def _mounted_files(case: Case) -> Iterator[Finding]:
    points = _mount_points()
    root = os.path.realpath(case.config.data_dir)
    mounted = [seen.rel for seen in case.seen.files if os.path.join(root, seen.rel) in points]
    if mounted:
        yield warn(
            "mounts", f"{display(mounted[0])} is a mount of its own: it can only be healed by writing into it",
            "mount its folder instead of the file",
        )  # fmt: skip


def _mount_points() -> set[str]:
    """Where something is mounted; proc_pid_mountinfo(5) escapes blanks as octal."""
    try:
        with open(_MOUNTS, "rb") as stream:
            fields = [line.split(b" ")[4] for line in stream]
    except OSError:
        return set()
    return {os.fsdecode(field.decode("unicode_escape").encode("latin-1")) for field in fields}


def _kinds(case: Case) -> Iterator[Finding]:
    config = case.config
    remote = {
        key: is_remote(os.stat(nearest(folder)).st_dev)
        for key, folder in (("data_dir", config.data_dir), ("state_dir", config.state_dir))
    }
    if remote["state_dir"]:
        yield fail(
            "file system", "state_dir is on a network or FUSE file system, where locks and catalog are not safe",
            "set state_dir to a folder on a local disk",
        )  # fmt: skip
    if remote["data_dir"]:
        yield warn(
            "file system", "data_dir is on a network or FUSE file system: changes are found by walks alone",
            "nothing, if it has to be there: watch.mode auto polls it",
        )  # fmt: skip
    if not any(remote.values()):
        same = os.stat(nearest(config.backup_dir)).st_dev == os.stat(config.data_dir).st_dev
        yield ok("file system", f"local; the snapshots are on {'the same' if same else 'another'} disk")


def _space(case: Case) -> Finding:
    wish = case.config.backup
    disk = os.statvfs(nearest(case.config.backup_dir))
    once, free = sum(seen.size_bytes for seen in case.seen.files), disk.f_bavail * disk.f_frsize
    need = once + (wish.min_free_bytes or 0)
    room = Room(free, disk.f_blocks * disk.f_frsize, wish.min_free_bytes or 0, once)
    told = f"{size(free)} free; one snapshot of everything takes {size(once)}"
    if free < need:
        reserve = f" and {size(wish.min_free_bytes)} are to stay free" if wish.min_free_bytes else ""
        return fail("space", f"{told}{reserve}", "free space on that disk, or set backup_dir to another one")
    if wish.max_total_size_bytes is not None and wish.max_total_size_bytes < 2 * once:
        return warn("space", f"{told}, backup.max_total_size is less than twice that", "raise backup.max_total_size")
    if room.is_low(was_low=False):
        return warn("space", f"{told}, and less than {size(room.low_bytes)} is low", "free space on that disk")
    return ok("space", told)


def _watches(case: Case) -> Finding:
    config = case.config
    if config.watch.mode == "polling":
        return ok("watches", "not needed: watch.mode is polling")
    folders = _count_folders(case)
    try:
        with open(_WATCH_LIMIT, encoding="ascii") as stream:
            limit = int(stream.read())
    except (OSError, ValueError):
        return ok("watches", f"{counted(folders, 'folder')} to watch; the limit is not known")
    told = f"{counted(folders, 'folder')} to watch, and the limit of this user's watches is {limit:,}"
    if folders > limit * 0.8:
        return warn("watches", told, f"sysctl fs.inotify.max_user_watches={max(524288, 4 * folders)}")
    return ok("watches", told)


def _count_folders(case: Case) -> int:
    config, count = case.config, 0
    for path, names, _ in os.walk(config.data_dir):
        count += 1
        rel = os.path.relpath(path, config.data_dir)
        below = "" if rel == os.curdir else f"{rel}/"
        names[:] = [name for name in names if config.may_hold_data_files(below + name)]
    return count
