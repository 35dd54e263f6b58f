"""What can go wrong on purpose.  `cli.py` turns these into `error:` and `hint:` lines and an exit code."""

from typing import ClassVar


class AgentError(Exception):
    """Base of every error raised on purpose; anything else that escapes is a bug.

    `what` says what is true now, with the path or key; `hint` is the one next step.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class UsageError(AgentError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class ConfigError(AgentError):
    """The configuration cannot be used; `str()` lists every problem, one a line."""

    exit_code = 2


class LockHeldError(AgentError):
    """Another process works on the same folder or file; nothing was changed."""


class FormatVersionError(AgentError):
    """The backup folder was written by a newer backup-agent; nothing was changed."""


class SpaceBudgetError(AgentError):
    """A snapshot was refused because the space budget leaves no room for it."""


class ReadBackError(AgentError):
    """What came back from the disk is not what was written; nothing was published."""


class BackupFolderReplacedError(AgentError):
    """Another folder stands where the backup folder was; nothing was changed."""


class NoRestorePointError(AgentError):
    """The store holds nothing that may be put back; nothing was changed."""

    exit_code = 4
