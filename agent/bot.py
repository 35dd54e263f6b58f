"""Stop and start the bot around a heal: argument lists, no shell, with a time limit."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from agent.config.sections import Bot
from agent.core.errors import AgentError
from agent.core.labels import BotCommand, BotResult
from agent.disk.presence import is_there

_MARKER = "bot_stopped"
_STDERR = 2


OnRun = Callable[[BotCommand, BotResult], None]
"""Hears how each run of a command ended."""


class BotCommandError(AgentError):
    """`bot.stop` or `bot.start` did not do what it is for."""

    def __init__(self, what: str, result: BotResult, *, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.result = result


class BotRun(Struct):
    """What became of the bot's start after a heal; `start_error` is set when it may be down."""

    start_error: BotCommandError | None = None


@contextmanager
def bot_stopped(
    bot: Bot | None, state_dir: str, run: BotRun | None = None, on_run: OnRun = lambda _, __: None
) -> Iterator[BotRun]:
    """The bot is down in the block and is started after it, whatever happened in between; `run` tells how.

    Without a configured bot nothing is stopped.  A marker in `state_dir` tells the next start of the agent, should
    this one be killed meanwhile.

    Raises:
        BotCommandError: it could not be stopped (it was then started again); the block was not entered.
    """
    run = run if run is not None else BotRun()
    if bot is None:
        yield run
        return
    marker = os.path.join(state_dir, _MARKER)
    os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        _run(BotCommand.STOP, bot, on_run)
        yield run
    finally:
        run.start_error = _start(bot, marker, on_run)


def start_if_left_stopped(
    bot: Bot | None, state_dir: str, on_run: OnRun = lambda _, __: None
) -> BotCommandError | None:
    """A bot that a killed agent left stopped is started; return why it could not be."""
    marker = os.path.join(state_dir, _MARKER)
    try:
        if bot is None or not is_there(marker):
            return None
    except OSError as error:
        what, hint = f"was the bot left stopped? The disk does not tell: {error}", "it is asked again; see if it runs"
        return BotCommandError(what, BotResult.NOT_RUN, hint=hint)
    return _start(bot, marker, on_run)


def _start(bot: Bot, marker: str, on_run: OnRun) -> BotCommandError | None:
    try:
        _run(BotCommand.START, bot, on_run)
    except BotCommandError as error:
        return error
    with suppress(FileNotFoundError):
        os.unlink(marker)
    return None


def _run(command: BotCommand, bot: Bot, on_run: OnRun) -> None:
    argv = bot.stop if command is BotCommand.STOP else bot.start
    try:
        _call(argv, bot.timeout_s, f"bot.{command}")
    except BotCommandError as error:
        on_run(command, error.result)
        raise
    on_run(command, BotResult.OK)


def _call(argv: Sequence[str], timeout_s: float, key: str) -> None:
    # What the command says goes where the agent's own errors go.  A pipe would be inherited by a bot that a script
    # puts into the background: the command would never seem to end, and the bot would die with the agent.
    hint = f"what it said stands in the agent's output; run it by hand as the agent's user: {' '.join(argv)}"
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own argument list, never a shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            stderr=_STDERR,
            timeout=timeout_s,
            start_new_session=True,  # a Ctrl-C at the agent's terminal is not meant for the bot
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BotCommandError(f"{key} did not end within {timeout_s:g} s", BotResult.TIMED_OUT, hint=hint) from error
    except OSError as error:
        raise BotCommandError(f"{key} cannot be run: {error}", BotResult.NOT_RUN, hint=hint) from error
    if done.returncode != 0:
        raise BotCommandError(f"{key} ended with code {done.returncode}", BotResult.FAILED, hint=hint)
