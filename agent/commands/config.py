"""`config check` and `config schema`: try a config file before the agent reads it, and help an editor write it."""

import argparse

import yaml

from agent.commands.caller import add_config_options, read_config
from agent.commands.wording import counted, print_json, say
from agent.config import Config, ConfigProblem, InvalidConfigError, config_json_schema
from agent.config.source import compose
from agent.core.naming import display
from agent.notifications import unusable_urls


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "config",
        help="try a config file, or print its JSON Schema for editors",
        description="Try a config file before the agent reads it, or print its JSON Schema for editors.",
        epilog="examples:\n  backup-agent config check --config backup-agent.yaml\n"
        "  backup-agent config schema > backup-agent.schema.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(metavar="check|schema", required=True)
    check = words.add_parser(
        "check",
        help="list every problem of the config, with its place",
        description="List every problem of the config, each with file, line, column and key; nothing is changed.",
        epilog="example:\n  backup-agent config check --config backup-agent.yaml\n\nexit codes: 0 usable, 2 not",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_options(check)
    check.add_argument("--json", action="store_true", help="print JSON for programs")
    check.set_defaults(run=run_check)
    schema = words.add_parser(
        "schema",
        help="print the JSON Schema of the config file",
        description="Print the JSON Schema of the config file: an editor completes and explains the keys by it.",
        epilog="example:\n  backup-agent config schema > backup-agent.schema.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    schema.add_argument("--json", action="store_true", help="as without: a schema is JSON")
    schema.set_defaults(run=run_schema)


def run_schema(_args: argparse.Namespace) -> int:
    print_json(config_json_schema())
    return 0


def run_check(args: argparse.Namespace) -> int:
    try:
        config = read_config(args)
        _try_receivers(config, args.config)
    except InvalidConfigError as error:
        if not args.json:
            raise
        print_json({"ok": False, "problems": [_problem_as_json(problem) for problem in error.problems]})
        return error.exit_code
    keys = _count_keys(args.config)
    if args.json:
        print_json({"ok": True, "keys": keys, **_folders(config), "problems": []})
        return 0
    whence = f"{counted(keys, 'key')} in {display(args.config)}" if args.config else "no config file, all is default"
    say(f"ok: {whence}; guards {', '.join(config.watch.include)} in {display(config.data_dir)}")
    say(f"    snapshots in {display(config.backup_dir)}")
    return 0


def _try_receivers(config: Config, path: str | None) -> None:
    """Every address of `notify` is one that can be used; nothing is sent.

    Raises:
        InvalidConfigError: some are not.
    """
    problems = [
        ConfigProblem(path, None, None, f"notify.urls[{index}]", why)
        for index, why in unusable_urls(config.notify.urls)
    ]
    if problems:
        raise InvalidConfigError(problems)


def _count_keys(path: str | None) -> int:
    """How many values the file sets."""
    if path is None:
        return 0
    with open(path, "rb") as stream:
        node = compose(stream.read(), file=path)
    return _leaves(node) if node is not None else 0


def _leaves(node: yaml.Node) -> int:
    if isinstance(node, yaml.MappingNode):
        return sum(_leaves(child) for _, child in node.value)
    if isinstance(node, yaml.SequenceNode) and any(isinstance(item, yaml.MappingNode) for item in node.value):
        return sum(_leaves(item) for item in node.value)
    return 1


def _folders(config: Config) -> dict[str, object]:
    return {
        "data_dir": config.data_dir, "backup_dir": config.backup_dir, "temp_dir": config.temp_dir,
        "state_dir": config.state_dir, "include": list(config.watch.include),
    }  # fmt: skip


def _problem_as_json(problem: object) -> dict[str, object]:
    keys = ("file", "line", "column", "key_path", "message", "hint")
    return {key: getattr(problem, key) for key in keys}
