"""Stop and start the bot around a heal: argument lists, no shell, with a time limit."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent.config.model import Bot
from agent.core.errors import AgentError

_OUTPUT_SHOWN = 300


class BotCommandError(AgentError):
    """`bot.stop` or `bot.start` did not do what it is for."""


@dataclass(slots=True)
class BotRun:
    """What became of the bot's start after a heal; `start_error` is set when it may be down."""

    start_error: BotCommandError | None = None


@contextmanager
def bot_stopped(bot: Bot | None) -> Iterator[BotRun]:
    """The bot is down in the block and is started after it, whatever happened in between.

    Without a configured bot nothing is stopped.

    Raises:
        BotCommandError: it could not be stopped (it was then started again); the block was not entered.
    """
    run = BotRun()
    if bot is None:
        yield run
        return
    try:
        _run(bot.stop, bot.timeout_s, "bot.stop")
    except BotCommandError:
        _start(bot, run)
        raise
    try:
        yield run
    finally:
        _start(bot, run)


def _start(bot: Bot, run: BotRun) -> None:
    try:
        _run(bot.start, bot.timeout_s, "bot.start")
    except BotCommandError as error:
        run.start_error = error


def _run(argv: Sequence[str], timeout_s: float, key: str) -> None:
    hint = f"run it by hand as the agent's user: {' '.join(argv)}"
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own argument list, never a shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BotCommandError(f"{key} did not end within {timeout_s:g} s", hint=hint) from error
    except OSError as error:
        raise BotCommandError(f"{key} cannot be run: {error}", hint=hint) from error
    if done.returncode != 0:
        said = done.stdout[-_OUTPUT_SHOWN:].decode("utf-8", "replace").strip()
        raise BotCommandError(f"{key} ended with code {done.returncode}: {said}", hint=hint)
