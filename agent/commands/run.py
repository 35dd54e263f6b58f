"""`run`: guard a data folder until told to stop."""

import argparse
import errno
import os
import sys
from contextlib import suppress

from msgspec.structs import replace

from agent import __version__
from agent.commands.caller import add_config_options, pasteable
from agent.commands.config_source import ConfigSource
from agent.config import Config
from agent.core.errors import AgentError
from agent.core.notice import Notice
from agent.logs import configure_logs, get_logger
from agent.metrics import Metrics
from agent.notifications import Notifier, Receivers
from agent.service import Service
from agent.web import WebServer
from agent.workspace import SystemClock

_LAST_NOTICES_S = 3.0


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "run",
        help="guard a data folder until stopped",
        description="Guard a data folder until stopped (Ctrl-C, SIGTERM): check every change, keep snapshots of good\n"
        "states, heal what breaks.  The first start over a folder takes it over, as `migrate` does.  SIGHUP reads\n"
        "the config again.",
        epilog="examples:\n  backup-agent run ./data\n  backup-agent run --config backup-agent.yaml\n\n"
        "exit codes: 0 stopped as asked, 1 it failed, or another agent guards the folder, 2 the config cannot be used",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DATA_DIR", nargs="?", help="the bot's data folder (default: ./data)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the daemon; return its exit code."""
    args.data_dir = args.folder or args.data_dir
    source, metrics = ConfigSource(args), Metrics(__version__)
    config, found = source.first()
    web: WebServer | None = None
    wants_metrics = False

    def about() -> dict[str, str | None]:
        return {**source.about(), "metrics": "unavailable" if wants_metrics and web is None else None}

    def tell_failure(receiver: str, why: str) -> None:
        get_logger().warning("notification_failed", receiver=receiver, error=why)

    notifier = Notifier(metrics.notifications.inc, tell_failure)

    def apply(config: Config) -> None:
        nonlocal wants_metrics
        source.adopt()
        wants_metrics = config.metrics.address is not None
        log, wish = config.log, config.notify
        configure_logs(log.format, log.level, sys.stderr, on_drop=metrics.log_lines_dropped.inc, hints=pasteable)
        receivers = Receivers(wish.urls, wish.command, frozenset(wish.events), wish.min_interval_s)
        notifier.adopt(receivers, config.data_dir)

    def tell_people(notice: Notice) -> None:
        notifier(replace(notice, hint=pasteable(notice.hint)))

    apply(config)
    for told in found:
        get_logger().info("config_found", detail=told)
    if source.path is None:
        os.makedirs(config.data_dir, exist_ok=True)
    service = Service(config, metrics, SystemClock(), reload=source.again, apply=apply, notify=tell_people, about=about)
    web = _serve(config, metrics, service)
    try:
        return service.run()
    except AgentError as error:
        get_logger().error("service_refused", error=str(error), hint=error.hint)
        raise
    finally:
        notifier.close(_LAST_NOTICES_S)
        if web is not None:
            web.stop()


def _serve(config: Config, metrics: Metrics, service: Service) -> WebServer | None:
    """Start the web server; a port in use costs the metrics page, not the protection."""
    if config.metrics.address is None:
        return None
    web = WebServer(config.metrics.address, metrics, service.readiness)
    log = get_logger()
    try:
        host, port = web.start()
    except OSError as error:
        step = "another program has the port: set metrics.listen"
        if error.errno == errno.EAGAIN:
            step = "raise the limit of threads, and restart the agent"
        log.warning(
            "metrics_unavailable", listen=config.metrics.listen, error=str(error),
            hint=f"{step}; the files are guarded all the same",
        )  # fmt: skip
        return None
    with suppress(OSError):
        log.info("metrics_served", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics")
    return web
