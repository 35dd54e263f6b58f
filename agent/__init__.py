"""backup-agent: a sidecar that keeps a bot's data files from being lost."""

__version__ = "0.1.0"
