"""Whether files, snapshots and times are as they should be; nothing is changed by looking."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from agent.commands.finding import Case, Finding, fail, ok, warn
from agent.commands.wording import age, counted, local_time
from agent.core.model import Grade, Snapshot
from agent.core.naming import display, is_temp_name, parse_name
from agent.core.paste import shell_word
from agent.disk.pause import pause_in_effect
from agent.disk.staging import StagingFolder
from agent.disk.store import STAGING_BELOW
from agent.verify_report import last_results

_SLACK = timedelta(minutes=5)
_STUCK_S = 3600.0
_DRILL_EVERY = timedelta(days=30)
_YEARS = range(2024, 2100)


def examine_files(case: Case) -> Iterator[Finding]:
    """Yield what is found, the live files first."""
    yield _integrity(case)
    yield _missing(case)
    yield from _copies(case)
    yield _clock(case)
    yield _stuck(case)
    if case.catalog is None:
        yield warn("snapshots", "no agent has guarded this folder yet", "backup-agent run")
        return
    yield _vanished(case)
    yield _good_states(case)
    yield _drill(case)
    pause = pause_in_effect(case.config.state_dir, now=case.now, steady_s=time.monotonic())
    if pause is not None:
        yield warn("healing", f"paused until {local_time(pause.ends_at)}", "backup-agent resume")


def _integrity(case: Case) -> Finding:
    bad = [seen for seen in case.seen.files if seen.grade is not Grade.GOOD]
    aspect, total = "data files", counted(len(case.seen.files), "data file")
    if bad:
        first = f"{display(bad[0].rel)}: {bad[0].problem or bad[0].grade}"
        return fail(
            aspect, f"{len(bad):,} of {total} not good, such as {first}", "backup-agent check, then backup-agent status"
        )
    if not case.seen.files:
        return warn(aspect, "none", "name the bot's folder with data_dir, and its files with watch.include")
    return ok(aspect, f"{total}, all good")


def _missing(case: Case) -> Finding:
    """Files that were there once, or must be, and are not."""
    config = case.config
    required = {rel for rel in config.named_files() if config.rule_for(rel).required}
    states = case.catalog.files() if case.catalog else []
    known = required | {state.rel for state in states if config.is_data_file(state.rel)}
    gone = sorted(rel for rel in known if not os.path.lexists(os.path.join(config.data_dir, rel)))
    if not gone:
        return ok("missing files", "none")
    needed = [rel for rel in gone if rel in required]
    first = (needed or gone)[0]
    what = f"{display(first)}, which must exist" if needed else display(first)
    step = f"backup-agent restore {shell_word(first)}, or backup-agent accept {shell_word(first)} if it was meant to go"
    told = f"{len(gone):,} of {counted(len(known), 'known file')} not there, such as {what}"
    return (fail if needed else warn)(
        "missing files", told, step if len(gone) == 1 else f"backup-agent status names them; {step}"
    )


def _copies(case: Case) -> Iterator[Finding]:
    """Files called like backups: no data, or taken for it."""
    aspect, seen = "older backups", case.seen
    if seen.lookalikes:
        first = display(seen.lookalikes[0])
        yield warn(
            aspect, f"{first} is called like a backup, and guarded as data",
            f"if it is a backup, add it to watch.exclude: {shell_word(seen.lookalikes[0])}",
        )  # fmt: skip
    elif seen.strays:
        yield ok(
            aspect, f"{len(seen.strays):,} beside the data, such as {display(seen.strays[0])}: not watched as data"
        )


def _clock(case: Case) -> Finding:
    if case.now.year not in _YEARS:
        return fail("clock", f"it says {local_time(case.now)}", "set the clock: names and ages of snapshots follow it")
    latest = case.now + _SLACK
    ahead = [s.name for s in case.catalog.all_snapshots() if _dated(s) > latest] if case.catalog else []
    if ahead:
        return warn(
            "clock", f"{counted(len(ahead), 'snapshot')} dated in the future, such as {display(ahead[0])}",
            "nothing, if the clock was wrong then: they are counted apart until their time comes",
        )  # fmt: skip
    files = [seen.rel for seen in case.seen.files if _mtime(case, seen.rel) > latest]
    if files:
        return warn(
            "clock", f"{display(files[0])} was changed in the future: the clock is wrong now, or was then",
            "compare the clock with another one",
        )  # fmt: skip
    return ok("clock", f"it says {local_time(case.now)}, and nothing is newer")


def _dated(snapshot: Snapshot) -> datetime:
    """The time that the name bears, if any: an adopted copy with a name from the future was taken earlier."""
    parsed = parse_name(snapshot.name)
    return max(snapshot.taken_at, parsed.taken_at) if parsed else snapshot.taken_at


def _mtime(case: Case, rel: str) -> datetime:
    try:
        return datetime.fromtimestamp(os.lstat(os.path.join(case.config.data_dir, rel)).st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return case.now


def _stuck(case: Case) -> Finding:
    ours = [name for folder in _staging_folders(case) for name in _leftovers(folder)]
    if ours:
        return warn(
            "temporary files", f"{counted(len(ours), 'file')} of an agent that was killed, such as {display(ours[0])}",
            "the next start of the agent, or any command without one, sweeps them",
        )  # fmt: skip
    others = _old_files(case.config.temp_dir, case.now.timestamp() - _STUCK_S)
    if others:
        return warn(
            "temporary files", f"{counted(len(others), 'old file')} in temp_dir, such as {display(others[0])}",
            "see whether the bot failed to finish a save, and delete them",
        )  # fmt: skip
    return ok("temporary files", "none is left over")


def _staging_folders(case: Case) -> list[str]:
    config = case.config
    folders = [config.temp_dir, os.path.join(config.backup_dir, STAGING_BELOW)]
    return [folder for folder in folders if os.path.isdir(folder)]


def _leftovers(path: str) -> list[str]:
    try:
        with StagingFolder(path) as folder:
            return folder.leftovers()
    except OSError:
        return []  # said under permissions


def _old_files(folder: str, before: float) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_file(follow_symlinks=False)
                and not is_temp_name(entry.name)
                and entry.stat(follow_symlinks=False).st_mtime < before
            )
    except OSError:
        return []


def _vanished(case: Case) -> Finding:
    assert case.catalog is not None
    gone, count = [], 0
    for snapshot in case.catalog.all_snapshots():
        count += 1
        if not os.path.lexists(os.path.join(case.config.backup_dir, snapshot.name)):
            gone.append(snapshot.name)
    gone = [name for name in gone if case.catalog.snapshot_named(name) is not None]  # not by rotation meanwhile
    if gone:
        return fail(
            "snapshots", f"{len(gone):,} of {count:,} were deleted by something else, such as {display(gone[0])}",
            "find what deletes there, or give the agent a backup_dir of its own",
        )  # fmt: skip
    return ok("snapshots", f"all {count:,} are where they should be")


def _good_states(case: Case) -> Finding:
    assert case.catalog is not None
    states = {state.rel: state for page in case.catalog.file_pages() for state in page}
    newest = max((state.last_good_at for state in states.values() if state.last_good_at), default=None)
    bare = [seen.rel for seen in case.seen.files if case.catalog.newest(seen.rel, Grade.GOOD) is None]
    if newest is None:
        return fail("good states", "none was ever seen", "backup-agent snapshot")
    told = f"the newest was seen {age(newest, case.now)}"
    if bare:
        return warn(
            "good states", f"{told}; {counted(len(bare), 'file')} without a good snapshot, such as {display(bare[0])}",
            "backup-agent snapshot",
        )  # fmt: skip
    return ok("good states", f"{told}; every data file has a good snapshot")


def _drill(case: Case) -> Finding:
    assert case.catalog is not None
    last = last_results(case.catalog)
    if last.failure_count:
        found = counted(last.failure_count, "problem")
        return fail("drill", f"{found} when the snapshots were read back last", "backup-agent verify")
    if not last.drilled_at:
        return warn("drill", "no restore was rehearsed yet", "backup-agent verify --drill")
    when = datetime.fromtimestamp(last.drilled_at, UTC)
    if case.now - when > _DRILL_EVERY:
        return warn("drill", f"a restore was rehearsed {age(when, case.now)}", "backup-agent verify --drill")
    return ok("drill", f"a restore was rehearsed {age(when, case.now)}")
