"""Where the daemon's config comes from, at its start and whenever it is told to read it again."""

import argparse
import os

from agent.commands.caller import read_config, remember_caller
from agent.config import Config, load_config
from agent.config.fingerprint import fingerprint
from agent.logs import get_logger


class ConfigSource:
    """The file that the caller named, or the one that is found; both may change while the daemon runs.

    `path` is the file that the daemon works by, None without one.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._asked = args
        self._read_last: tuple[str | None, str | None] = None, None  # path and fingerprint of what was loaded last
        self.path: str | None = None
        self._fingerprint: str | None = None

    def first(self) -> tuple[Config, list[str]]:
        """Return the config of the start, and what is to be told of it.

        Raises:
            UsageError, ConfigError: it cannot be used.
        """
        args, told = argparse.Namespace(**vars(self._asked)), list[str]()
        config = read_config(args, told.append)
        self._note(args.config)
        if args.config is None:
            remember_caller(None, config.data_dir)
        return config, told

    def again(self) -> Config:
        """Return the config as it is now; without a file, one is looked for where a start would.

        Raises: as `first`.
        """
        if self.path is not None:
            self._note(self.path)  # before it is read: what is written meanwhile is news
            return load_config(self.path, self._asked.data_dir, os.environ)
        args = argparse.Namespace(**vars(self._asked))
        config = read_config(args, lambda told: get_logger().info("config_found", detail=told))
        self._note(args.config)
        return config

    def adopt(self) -> None:
        """What was loaded last is what the daemon works by; hints repeat it."""
        self.path, self._fingerprint = self._read_last
        if self.path is not None:
            data_dir = self._asked.data_dir
            remember_caller(self.path, data_dir and os.path.abspath(data_dir))

    def about(self) -> dict[str, str | None]:
        """Return what commands may know of it."""
        return {"config": self.path, "fingerprint": self._fingerprint}

    def _note(self, path: str | None) -> None:
        self._read_last = (path and os.path.abspath(path), path and fingerprint(path, os.environ))
