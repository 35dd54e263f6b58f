"""Take over a folder that an older system, or nobody, looked after: originals kept, damage mended, all verified.

The older backups stay where they are: `recover` has graded and listed those in the backup folder, `older_copies` finds
those that lie beside the data.  The first start of the daemon does this
by itself, before its gate; `backup-agent migrate` does it for a person.
"""

import sqlite3
from collections.abc import Callable, Sequence

from msgspec import Struct

from agent.causes import error_fields
from agent.core.decide import restore_candidates
from agent.core.errors import AgentError
from agent.core.model import Grade, Reason
from agent.core.stamp import format_stamp
from agent.cure import Cure
from agent.disk.originals import Originals, is_migrated
from agent.disk.walk import Skipped, walk_in_batches
from agent.gate import Gate, dues_of
from agent.healing import Healer
from agent.keeping import DAMAGED, OriginalsKeeper
from agent.logs import get_logger
from agent.mending import mend
from agent.obstacles import MigrationRefusedError, refuse_unfit
from agent.older_copies import Adopter, Adoption
from agent.outcome import SOON, Ending, Outcome
from agent.pipeline import Pipeline
from agent.rescan import Rescan
from agent.summary import Summary
from agent.workspace import Workspace

_log = get_logger()
_NOTE = "migration"
_BEGUN, _DONE, _GUARDED = "begun ", "done ", "guarded"
_SHOWN_MAX = 10
_LOOKS_MAX = 3


def is_done(ws: Workspace) -> bool:
    """Whether a migration came to its end here."""
    return (ws.catalog.note(_NOTE) or "").startswith(_DONE)


def is_first_start(ws: Workspace) -> bool:
    """Whether the daemon has to migrate by itself: nobody guarded this folder, or a migration was cut short."""
    note = ws.catalog.note(_NOTE)
    if note is not None:
        return note.startswith(_BEGUN)
    if is_migrated(ws.config.backup_dir) or _was_guarded(ws):
        ws.catalog.set_note(_NOTE, _GUARDED)
        return False
    return True


def _was_guarded(ws: Workspace) -> bool:
    looked_at = (state for page in ws.catalog.file_pages() for state in page if state.signature is not None)
    ours = (snapshot for snapshot in ws.catalog.all_snapshots() if snapshot.reason is not Reason.ADOPTED)
    return next(looked_at, None) is not None or next(ours, None) is not None


class Migration(Struct):
    """One migration; `tell`, `pause` and `stopping` are those of the gate, `progress` is called after each file."""

    ws: Workspace
    pipeline: Pipeline
    healer: Healer
    tell: Callable[[Outcome], None]
    pause: Callable[[float], None]
    stopping: Callable[[], bool] = lambda: False
    progress: Callable[[], None] = lambda: None

    def run(self) -> Summary | None:
        """Migrate; None when it was told to stop before the end: the next run goes on.

        Raises: as `Pipeline.run`; the next run goes on.
        """
        ws = self.ws
        summary, rels = self._inventory(Adopter(ws, self.progress).run())
        if summary.is_nothing():
            return summary
        originals = Originals(ws.config.backup_dir, self._begin())
        kept = self._keep_originals(rels, originals, summary)
        self._gate(summary)
        if self.stopping():
            return None
        self._verify(originals, kept, summary)
        if summary.is_complete():  # else the next run goes on
            with ws.store.staging() as staging:
                originals.write_summary(summary.as_text(kept.digests), staging)
            ws.catalog.set_note_durably(_NOTE, _DONE + originals.folder)
        return summary

    def plan(self) -> Summary:
        """Return what `run` would do; nothing is changed."""
        copies = Adopter(self.ws, self.progress).run(dry_run=True)
        summary, rels = self._inventory(copies)
        for rel in rels:
            outcome = self._mended(rel, dry_run=True)
            if outcome.ending is Ending.UNCHANGED:
                summary.good += 1
            elif outcome.ending is Ending.DAMAGED:
                summary.repaired[rel] = outcome.detail
            elif outcome.grade in DAMAGED and (name := self._restore_point(rel) or copies.newest_good.get(rel)):
                summary.restored[rel] = name
            else:
                summary.left[rel] = str(outcome.grade or outcome.ending)
            self.progress()
        return summary

    def _inventory(self, copies: Adoption) -> tuple[Summary, list[str]]:
        """Return what is there, and all data files."""
        adopted: dict[str, int] = {}
        for snapshot in self.ws.catalog.all_snapshots():
            if snapshot.reason is Reason.ADOPTED:
                adopted[snapshot.grade.value] = adopted.get(snapshot.grade.value, 0) + 1
        summary = Summary(
            adopted=dict(sorted(adopted.items())), beside=dict(sorted(copies.adopted.items())), left_beside=copies.left
        )
        rels = self._files(summary)
        summary.files = len(rels)
        return summary, rels

    def _files(self, summary: Summary) -> list[str]:
        """Return all data files; where the disk gives no answer it is asked again, and then that is noted."""
        config = self.ws.config
        for attempt in range(_LOOKS_MAX):
            if attempt:
                self.pause(config.watch.debounce_s)
            rels, hidden = list[str](), list[Skipped]()
            with self.ws.data_root() as root_fd:
                for _, found, skipped, _ in walk_in_batches(
                    root_fd, config.is_data_file, lambda d: not config.may_hold_data_files(d)
                ):
                    rels += [rel for rel, _ in found]
                    hidden += [entry for entry in skipped if entry.hides_files]
            if not hidden or self.stopping():
                break
        self._note_hidden(hidden, summary)
        return rels

    def _note_hidden(self, hidden: Sequence[Skipped], summary: Summary) -> None:
        for entry in hidden:
            rel = entry.rel or "."
            if rel not in summary.hidden:
                summary.hidden[rel] = str(entry.error or entry.reason)
                self.tell(Outcome(rel, Ending.UNREADABLE, grade=Grade.UNREADABLE, error=entry.error))

    def _begin(self) -> str:
        """The stamp of this migration; one that was cut short goes on under its own."""
        note = self.ws.catalog.note(_NOTE) or ""
        if note.startswith(_BEGUN):
            return note.removeprefix(_BEGUN)
        now = self.ws.clock.utc()
        stamp = format_stamp(now.replace(microsecond=now.microsecond // 1000 * 1000))
        self.ws.catalog.set_note_durably(_NOTE, _BEGUN + stamp)
        return stamp

    # the steps

    def _keep_originals(self, rels: list[str], originals: Originals, summary: Summary) -> OriginalsKeeper:
        """Every live file has its copy, and the good ones a snapshot; then those are mended that were never good."""
        kept = OriginalsKeeper(self.ws, originals)
        todo = rels
        for attempt in range(_LOOKS_MAX):
            dues = dues_of(self.ws, todo, self.stopping)
            for outcome in self.pipeline.outcomes(dues, Reason.STARTUP, at_gate=True, keeper=kept):
                self.tell(outcome)
            todo = [rel for rel in todo if rel not in kept.digests]
            if not todo or self.stopping() or attempt == _LOOKS_MAX - 1:
                break
            self.pause(self.ws.config.watch.debounce_s)  # they were written a moment ago
        summary.originals_in, summary.originals = originals.folder, len(kept.digests)
        summary.good, summary.snapshots = kept.good_count, kept.snapshot_count
        for rel in kept.never_good if not self.stopping() else ():
            self._mend(rel, summary)
        return kept

    def _mend(self, rel: str, summary: Summary) -> None:
        outcome = self._mended(rel, dry_run=False)
        if outcome.ending is Ending.HEALED:  # else the gate says how it is
            self.tell(outcome)
            summary.repaired[rel] = outcome.detail
        elif outcome.error is not None:
            summary.errors[rel] = str(outcome.error)

    def _mended(self, rel: str, *, dry_run: bool) -> Outcome:
        allow, displaced = self._may_mend(rel), self.healer.displaced
        for _ in range(_LOOKS_MAX):
            outcome = mend(self.ws, rel, displaced, at_gate=True, dry_run=dry_run, allow=allow).outcome
            if outcome.ending not in SOON or self.stopping():
                break
            self.pause(self.ws.config.watch.debounce_s)
        return outcome

    def _may_mend(self, rel: str) -> Callable[[Cure], bool]:
        """Whether a repair of `rel` may be made unasked; where nothing good is known, no value may give way."""
        rule, was_good = self.ws.config.rule_for(rel), self.ws.catalog.newest(rel, Grade.GOOD) is not None

        def allow(cure: Cure) -> bool:
            is_wished = rule.on_invalid == "repair" if cure.patch else rule.on_corrupt == "restore"
            return is_wished and self.ws.pause() is None and (was_good or not cure.gives_up)

        return allow

    def _restore_point(self, rel: str) -> str | None:
        whole = (s for s in restore_candidates(self.ws.catalog.snapshots(rel)) if self.ws.store.is_intact(s))
        return next((s.name for s in whole), None)

    def _gate(self, summary: Summary) -> None:
        """Every other file is looked at: healed from the older backups where it is damaged, kept where it is good."""

        def note(outcome: Outcome) -> None:
            self.tell(outcome)
            summary.note(outcome)

        for attempt in range(_LOOKS_MAX):
            if attempt:
                self.pause(self.ws.config.watch.debounce_s)
            gate = Gate(self.ws, self.pipeline, self.healer, Rescan(self.ws), note, self.pause, self.stopping)
            hidden = [entry for entry in gate.run().skipped if entry.hides_files]
            if not hidden or self.stopping():
                break
        self._note_hidden(hidden, summary)

    def _verify(self, originals: Originals, kept: OriginalsKeeper, summary: Summary) -> None:
        """Read back the newest good snapshot of every file, and every original, but what just was when it was made."""
        for rel in self._files(summary):
            if kept.has_read_back(rel):
                summary.verified += 1
            elif (newest := self.ws.catalog.newest(rel, Grade.GOOD)) is not None:
                self._tick(summary, newest.name, whole=self.ws.store.is_intact(newest))
            elif rel not in summary.left:
                summary.left[rel] = str(Grade.UNREADABLE)  # it came after the gate, or nobody was told of its look
        for rel, digest in kept.digests.items():
            whole = rel not in kept.copied or originals.digest(rel) == digest.hex()
            self._tick(summary, f"{originals.folder}/{rel}", whole=whole)
        for rel in sorted(kept.refused - kept.digests.keys()):
            self._tick(summary, f"{originals.folder}/{rel}", whole=False)

    def _tick(self, summary: Summary, name: str, *, whole: bool) -> None:
        summary.verified += whole
        if not whole:
            summary.unverified.append(name)
        self.progress()


def migrate_first(migration: Migration) -> None:
    """The daemon's first start over this folder: migrate, and say so.

    What stands against it is told; the folder is then guarded as it is, and `backup-agent migrate` may be run later.
    """
    ws = migration.ws
    try:
        if not is_first_start(ws):
            return
        refuse_unfit(ws.config)
        summary = migration.run()
    except MigrationRefusedError as error:
        _log.error("migration_refused", error=str(error), hint=error.hint)
        return
    except (OSError, sqlite3.Error, AgentError) as error:
        _log.error("migration_failed", **error_fields(error))
        return
    if summary is None:
        return
    if summary.is_nothing():
        ws.catalog.set_note(_NOTE, _GUARDED)
        return
    say = _log.info if summary.is_complete() else _log.error
    say(
        "migration_done", files=summary.files, good=summary.good, adopted=summary.adopted or None,
        beside=summary.beside or None, left_beside=len(summary.left_beside) or None,
        repaired=len(summary.repaired), restored=len(summary.restored), left=len(summary.left),
        snapshots=summary.snapshots, verified=summary.verified, originals=summary.originals_in,
        unverified=summary.unverified[:_SHOWN_MAX] or None, hidden=list(summary.hidden)[:_SHOWN_MAX] or None,
    )  # fmt: skip
