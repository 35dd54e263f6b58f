"""What the commands that change live files do alike: the bot is down meanwhile, and what went wrong is told."""

import sys
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from agent.bot import BotCommandError, bot_stopped
from agent.commands.caller import note
from agent.commands.progress import with_progress
from agent.commands.session import Session
from agent.commands.wording import local_time, say, why
from agent.core.model import Grade
from agent.core.naming import display
from agent.outcome import Ending, Outcome

_Plan = TypeVar("_Plan")
_Result = TypeVar("_Result")
_BEING_WRITTEN = {
    Ending.RACED: "the bot writes it all the time; stop the bot and try again",
    Ending.BUSY: "somebody has it open for writing; stop the bot and try again",
    Ending.CHANGED: "it is being written; stop the bot and try again",
    Ending.WAITING: "it is being written; stop the bot and try again",
}


class Done(Struct, Generic[_Result], frozen=True):
    """How it ended: one result for each plan, in order, and the writes of the bot that came meanwhile and are kept.

    `bot_error` tells why the bot could not be started again, if it could not.
    """

    results: list[_Result]
    late: list[Outcome]
    bot_error: BotCommandError | None


def carry_out(
    session: Session, plans: Sequence[_Plan], act: Callable[[_Plan], _Result], *, stops_bot: bool, doing: str
) -> Done[_Result]:
    """Do `act` with every plan; with `stops_bot` the bot is down meanwhile, where that is configured.

    Raises:
        BotCommandError: the bot could not be stopped; nothing was done.
    """
    bot = session.config.bot if stops_bot else None
    with bot_stopped(bot, session.config.state_dir) as bot_run:
        results = [act(plan) for plan in with_progress(plans, doing)]
        late = session.healer.recheck_displaced()
    return Done(results, late, bot_run.start_error)


def warn_of_memory(session: Session, *, no_bot: bool) -> None:
    """A live file was changed: what a bot that was not stopped will do to it."""
    if session.config.bot is None or no_bot:
        note("a bot that was running writes its memory back with its next save: stop it, do this again, start it")


def tell_late(late: Sequence[Outcome]) -> None:
    """What the bot wrote meanwhile is kept: where."""
    for write in late:
        if write.quarantined:
            say(f"{display(write.rel)}: was written to meanwhile; that state is kept as {display(write.quarantined)}")
        else:
            reason = why(write.error) if write.error else write.ending
            print(f"error: {display(write.rel)}: a write meanwhile could not be kept: {reason}", file=sys.stderr)


def tell_unkept(outcome: Outcome) -> None:
    """What was asked for is done, but the new state has no snapshot yet: why."""
    if outcome.error is not None and outcome.ending in (Ending.HEALED, Ending.UNCHANGED):
        note(f"{display(outcome.rel)}: no snapshot of it could be made: {outcome.error}; the next look tries again")


def kept_as(session: Session, name: str) -> str:
    """Return the copy of what was replaced as it is told: its name, and until when rotation leaves it alone."""
    copy = session.ws.catalog.snapshot_named(name)
    keep = session.ws.retention_policy().keep_replaced
    if copy is None or copy.grade is not Grade.GOOD or not keep:
        return display(name)
    return f"{display(name)}, at least until {local_time(session.ws.clock.utc() + keep)}"


def why_not(outcome: Outcome, done: str) -> str:
    """Return why a file was not `done`, such as "restored"."""
    if isinstance(outcome.error, PermissionError):
        return f"not {done}: {why(outcome.error)}; run it as the bot's user, who owns the file and its folder"
    if outcome.error is not None:
        return f"not {done}: {why(outcome.error)}"
    if outcome.ending is Ending.SKIPPED:
        return f"not {done}: no data file ({outcome.detail.replace('_', ' ')})"
    return f"not {done}: {_BEING_WRITTEN.get(outcome.ending, outcome.ending)}"
