"""Whether a config is still what somebody read."""

import hashlib
import os
from collections.abc import Mapping

from agent.config.model import Config
from agent.config.reader import NodeReader
from agent.config.source import SIZE_MAX_BYTES, InvalidConfigError, compose


def fingerprint(path: str, environ: Mapping[str, str]) -> str | None:
    """Return a digest of the config at `path` and of the schema files that it names; None when it cannot be read."""
    digest = hashlib.sha256()
    try:
        digest.update(content := _bytes_of(path))
        node = compose(content, file=path)
        config = (node and NodeReader(file=path, environ=environ).read(Config, node)) or Config()
    except (OSError, InvalidConfigError):
        return None
    folder = os.path.dirname(os.path.abspath(path))
    named = [entry.schema for entry in config.files if isinstance(entry.schema, str)]
    for schema in named:
        try:
            digest.update(hashlib.sha256(_bytes_of(os.path.join(folder, os.path.expanduser(schema)))).digest())
        except OSError:
            return None
    return digest.hexdigest()


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(SIZE_MAX_BYTES + 1)
