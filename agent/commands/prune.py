"""`prune`: what rotation would keep and delete now, and why; with `--yes` it is done."""

import argparse
from collections.abc import Sequence

from msgspec import Struct

from agent.commands.names import resolve_files
from agent.commands.progress import with_progress
from agent.commands.session import Session, add_verb, open_session
from agent.commands.wording import advise, counted, local_time, print_json, records, say, size, snapshot_as_json, table
from agent.core.model import Grade, Snapshot
from agent.core.naming import display
from agent.core.retention import RetentionPlan
from agent.look import Look, one_look
from agent.outcome import SOON
from agent.pack import Packed, pack_file
from agent.rotation import delete, plan_aside, plan_file


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "prune",
        help="show which snapshots the rules keep and why; --yes deletes the others",
        text="Show which snapshots the rules of `backup.retention` keep, each with every reason, and which none of\n"
        "them keeps.  Nothing is deleted without --yes.  The agent does the same after each new snapshot; this is\n"
        "for after a change of the rules.  While a file is not good, or not as it was when last looked at, its good\n"
        "snapshots are held; pinned ones and the newest good one stay whatever the rules say.  With\n"
        "`backup.packing`, --yes packs old snapshots, too.",
        example="examples:\n  backup-agent prune\n  backup-agent prune data/users.json\n"
        "  backup-agent prune --yes\n\n"
        "exit codes: 0 the plan was shown, or done; 3 a file is being written or cannot be read, or a\n"
        "snapshot could not be packed",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="only this data file, or those of this folder")
    parser.add_argument("--file", metavar="FILE", action="append", help="the same; may be repeated")
    parser.add_argument("--yes", action="store_true", help="delete what the plan lets go")
    parser.set_defaults(run=run)


class _Plan(Struct, frozen=True):
    """What becomes of the snapshots of one file; `aside` are suspects and damaged states beyond their numbers."""

    rel: str
    good: RetentionPlan
    aside: Sequence[Snapshot] = ()
    is_busy: bool = False
    error: Exception | None = None  # why the file could not be looked at: its good snapshots are held

    @property
    def delete(self) -> list[Snapshot]:
        return [*self.good.delete, *self.aside]


def run(args: argparse.Namespace) -> int:
    with open_session(args) as session:
        named = [*args.files, *(args.file or ())]
        rels = resolve_files(session, named) if named else _all_files(session)
        plans = [_plan(session, rel, carry_out=args.yes) for rel in with_progress(rels, "planning")]
        packed = _pack(session, rels) if args.yes else []
        if args.json:
            print_json(_as_json(plans, packed, carried_out=args.yes))
        else:
            _print(plans, named=bool(named), carried_out=args.yes)
            _print_packed(packed)
    return 3 if any(plan.is_busy or plan.error for plan in plans) or any(done.failures for done in packed) else 0


def _all_files(session: Session) -> list[str]:
    return list(dict.fromkeys(snapshot.rel for snapshot in session.ws.catalog.all_snapshots()))


def _plan(session: Session, rel: str, *, carry_out: bool) -> _Plan:
    """Plan one file; where something may go, a fresh look at the file must agree first."""
    ws = session.ws
    plan = _Plan(rel, plan_file(ws, rel, ws.catalog.file(rel)), plan_aside(ws, rel))
    if not plan.delete:
        return plan
    with one_look(ws, rel, at_gate=False) as (_, look):
        is_gone = look.outcome is not None and look.outcome.grade is Grade.MISSING  # by itself no reason to wait
        if look.outcome is not None and look.outcome.ending in SOON and not is_gone:
            return _Plan(rel, plan_file(ws, rel, look.past, doubtful=True), is_busy=True)
        error = look.outcome.error if look.outcome is not None else None
        plan = _Plan(
            rel, plan_file(ws, rel, look.past, doubtful=not _is_as_known(look)), plan_aside(ws, rel), error=error
        )
        if carry_out:
            delete(ws, plan.delete)
        return plan


def _pack(session: Session, rels: Sequence[str]) -> list[Packed]:
    """Pack what the config wants packed; return what was done for each file."""
    if not session.config.backup.packing:
        return []
    return [done for rel in with_progress(rels, "packing") for done in list(pack_file(session.ws, rel))[-1:]]


def _is_as_known(look: Look) -> bool:
    """Whether the file is good as it was when last looked at, or gone as it was."""
    known = look.past.grade if look.past else Grade.GOOD
    if look.outcome is not None:
        return False
    return known is (look.result.grade if look.result else Grade.MISSING)


def _print(plans: Sequence[_Plan], *, named: bool, carried_out: bool) -> None:
    for plan in plans:
        if plan.is_busy:
            say(f"{display(plan.rel)}: being written, left out; try again in a moment")
        elif plan.delete or named:
            _print_one(plan)
        if plan.error is not None:
            say(f"{display(plan.rel)}: cannot be looked at, so its good snapshots are held: {plan.error}")
    doomed = [snapshot for plan in plans for snapshot in plan.delete]
    kept = sum(len(plan.good.keep) for plan in plans)
    done = "deleted" if carried_out else "to delete"
    freed = size(sum(snapshot.stored_bytes for snapshot in doomed))
    say(f"{counted(len(plans), 'file')}: {kept:,} good kept, {len(doomed):,} {done} ({freed})")
    if doomed and not carried_out:
        advise("nothing was deleted: `backup-agent prune --yes` does it")
        say("a running agent does it by itself, for each file after its next snapshot")


def _print_one(plan: _Plan) -> None:
    say(f"{display(plan.rel)}")
    rows = [("keep", *_row(kept.snapshot), ", ".join(kept.reasons)) for kept in plan.good.keep]
    rows += [("delete", *_row(snapshot), "no rule keeps it") for snapshot in reversed(plan.good.delete)]
    rows += [("delete", *_row(s), f"{s.grade}: more than are kept") for s in reversed(plan.aside)]
    for line in table(("", "TAKEN", "SIZE", "RECORDS", "SNAPSHOT", "WHY"), rows, right=(2, 3)):
        say(f"  {line}")
    say()


def _print_packed(packed: Sequence[Packed]) -> None:
    count, freed = sum(done.count for done in packed), sum(done.freed_bytes for done in packed)
    if count:
        say(f"{count:,} packed ({size(max(0, freed))} freed)")
    for name, error in (failure for done in packed for failure in done.failures):
        say(f"not packed: {display(name)}: {error}")


def _row(snapshot: Snapshot) -> tuple[str, str, str, str]:
    return (
        local_time(snapshot.taken_at), size(snapshot.size_bytes), records(snapshot.shape), display(snapshot.name)
    )  # fmt: skip


def _as_json(plans: Sequence[_Plan], packed: Sequence[Packed], *, carried_out: bool) -> dict[str, object]:
    doomed = [snapshot for plan in plans for snapshot in plan.delete]
    return {
        "carried_out": carried_out,
        "deleted": len(doomed) if carried_out else 0,
        "to_delete": 0 if carried_out else len(doomed),
        "bytes": sum(snapshot.stored_bytes for snapshot in doomed),
        "packed": sum(done.count for done in packed),
        "files": [
            {
                "file": plan.rel,
                "busy": plan.is_busy,
                "error": str(plan.error) if plan.error else None,
                "keep": [{**snapshot_as_json(k.snapshot), "reasons": list(k.reasons)} for k in plan.good.keep],
                "delete": [snapshot_as_json(snapshot) for snapshot in plan.delete],
            }
            for plan in plans
        ],
    }
