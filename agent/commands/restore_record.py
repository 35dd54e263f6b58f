"""`restore --key`: bring single records back into the live file; everything else in it stays as it is."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from msgspec import Struct, field

from agent.commands.by_hand import carry_out, kept_as, tell_unkept, warn_of_memory
from agent.commands.caller import note
from agent.commands.moments import in_both_zones
from agent.commands.session import Session
from agent.commands.states import LIVE, NoStateError, UnfitStateError, open_snapshot, open_state
from agent.commands.wording import advise, described, iso_time, print_json, say, why
from agent.core.difference import shown
from agent.core.errors import AgentError
from agent.core.json_patch import pointer_to
from agent.core.json_places import AmbiguousKeyError, JsonText, Path
from agent.core.json_record import NoDocumentError, open_document, path_of, with_records
from agent.core.model import Reason, Snapshot
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.edit import EditRefusedError, edit_live
from agent.outcome import Ending, Outcome


class _Wish(Struct):
    """The records as the snapshot has them, and as the live file had them when it was last looked at."""

    rel: str
    snapshot: Snapshot
    texts: dict[Path, bytes]
    were: dict[Path, bytes | None] = field(default_factory=dict)

    def edited(self, data: bytes) -> bytes:
        """Return `data` with the records in it.

        Raises:
            EditRefusedError: there is no place for them.
        """
        try:
            return self.put_into(open_document(data))
        except NoDocumentError as error:
            raise EditRefusedError(
                f"{display(self.rel)} is no JSON document in UTF-8: {error}",
                hint=f"`backup-agent restore {shell_word(self.rel)}` brings back all of it",
            ) from error

    def put_into(self, document: JsonText) -> bytes:
        try:
            self.were = {path: document.value(path) for path in self.texts}
            return with_records(document, self.texts)
        except (AmbiguousKeyError, LookupError) as error:
            raise EditRefusedError(
                f"{display(self.rel)}: there is no place for the record: {error}",
                hint="bring back what holds it, with --key and a shorter pointer, or restore the whole file",
            ) from error


def restore_records(
    session: Session, rel: str, candidates: Sequence[Snapshot], args: argparse.Namespace, at: datetime | None
) -> int:
    """Bring the records `args.keys` back out of the first of `candidates` that is whole and has them all.

    `at` is the moment they were chosen for.

    Raises:
        NoStateError: none has.
        AgentError: it cannot be done; the live file is as it was.
    """
    wish = _found(session, rel, candidates, args.keys)
    if args.dry_run:
        with open_state(session, rel, LIVE) as live:
            wish.put_into(live.document())
        _tell(session, wish, Outcome(rel, Ending.DAMAGED), at, as_json=args.json)
        return 0
    done = carry_out(session, [wish], partial(_bring_back, session), stops_bot=not args.no_bot, doing="restoring")
    outcome = done.results[0]
    if outcome.ending not in (Ending.HEALED, Ending.UNCHANGED):
        raise _refusal(outcome)
    _tell(session, wish, outcome, at, as_json=args.json)
    tell_unkept(outcome)
    for write in done.late:
        note(f"a write meanwhile is kept as {display(write.quarantined or '')}")
    if outcome.ending is Ending.HEALED:
        warn_of_memory(session, no_bot=args.no_bot)
    if done.bot_error is not None:
        raise done.bot_error
    return 0


def _bring_back(session: Session, wish: _Wish) -> Outcome:
    displaced = session.healer.displaced
    return session.until_settled(
        lambda: edit_live(session.ws, session.pipeline, wish.rel, wish.edited, displaced, reason=Reason.RESTORED)
    )


def _found(session: Session, rel: str, candidates: Sequence[Snapshot], keys: Sequence[str]) -> _Wish:
    unfit: UnfitStateError | None = None
    for snapshot in candidates:
        try:
            with open_snapshot(session, snapshot) as state:
                texts = _texts(state.document(), keys) if state.is_whole else None
        except NoStateError:
            continue
        except UnfitStateError as error:
            unfit = unfit or error
            continue
        if texts is not None:
            return _Wish(rel, snapshot, texts)
    if unfit is not None:
        raise unfit
    what = " and ".join(display(key) for key in keys)
    raise NoStateError(
        f"no kept state of {display(rel)} to choose from has the key {what}",
        hint="--at and --snapshot choose others; `backup-agent show NAME` prints one",
    )


def _texts(document: JsonText, keys: Sequence[str]) -> dict[Path, bytes] | None:
    """The text of every record by its path; None when one is not there, or not for every reader."""
    texts: dict[Path, bytes] = {}
    try:
        for key in keys:
            path = path_of(document, key)
            text = document.value(path)
            if text is None:
                return None
            texts[path] = text
    except AmbiguousKeyError:
        return None
    return texts


def _refusal(outcome: Outcome) -> AgentError:
    if isinstance(outcome.error, AgentError):
        return outcome.error
    name = display(outcome.rel)
    if outcome.ending in (Ending.RACED, Ending.BUSY, Ending.CHANGED):
        return EditRefusedError(f"{name} is being written all the time", hint="stop the bot and try again")
    reason = (why(outcome.error) if outcome.error else outcome.detail.replace("_", " ")) or outcome.ending
    return EditRefusedError(f"{name} was not changed: {reason}", hint="try again when it can be read and written")


def _tell(session: Session, wish: _Wish, outcome: Outcome, at: datetime | None, *, as_json: bool) -> None:
    is_done = outcome.ending is Ending.HEALED
    if as_json:
        print_json(
            {
                "at": iso_time(at),
                "file": wish.rel,
                "outcome": {Ending.HEALED: "restored", Ending.UNCHANGED: "same"}.get(outcome.ending, "would_restore"),
                "snapshot": wish.snapshot.name,
                "older_seconds": round((at - wish.snapshot.taken_at).total_seconds(), 3) if at else None,
                "kept_as": outcome.quarantined,
                "records": [
                    {"path": pointer_to(path), "before": _text(wish.were.get(path)), "after": _text(text)}
                    for path, text in wish.texts.items()
                ],
            }
        )
        return
    if at is not None:
        say(f"the state at {in_both_zones(at)}:")
    told = described(wish.snapshot, session.ws.clock.utc(), at)
    say(f"{display(wish.rel)}: from {display(wish.snapshot.name)}, {told}")
    for path, text in wish.texts.items():
        before = wish.were.get(path)
        name = display(str(path[0]) if len(path) == 1 else pointer_to(path) or "the whole document")
        if before == text:
            say(f"  {name}: is the same already")
        elif before is None:
            say(f"  {name}: {'brought back' if is_done else 'would be brought back'}: {shown(text)}")
        else:
            say(f"  {name}: {'replaced' if is_done else 'would replace'} {shown(before)} by {shown(text)}")
    if outcome.quarantined:
        say(f"  what it was before is kept as {kept_as(session, outcome.quarantined)}")
    if outcome.ending is Ending.UNCHANGED:
        advise(f"  `backup-agent list {shell_word(wish.rel)}` shows older states, for --at or --snapshot")


def _text(text: bytes | None) -> str | None:
    return None if text is None else text.decode("utf-8", "surrogateescape")
