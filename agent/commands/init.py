"""`init`: look at a data folder, tell what is there, and write a config to begin with."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import asdict

from agent.commands.caller import note
from agent.commands.inference import require_library
from agent.commands.proposal import Wishes, agent_unit_drop_in, bot_unit_drop_in, config_text
from agent.commands.running import step_after_new_config
from agent.commands.schema_proposal import Schemas, propose_schemas
from agent.commands.survey import Seen, Survey, survey, told
from agent.commands.wording import print_json, say
from agent.config import Config, load_config
from agent.config.consistency import findings
from agent.core.errors import AgentError, UsageError
from agent.core.naming import display
from agent.core.paste import shell_word
from agent.disk.atomic import rename_new, rename_over
from agent.disk.staging import StagingFolder

_CONFIG = "backup-agent.yaml"
_MODE = 0o644


class NotWrittenError(AgentError):
    """The config could not be written; nothing was changed."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "init",
        help="look at a data folder and write a config to begin with",
        description="Look at the bot's data folder, tell what is there, and write a config with comments to begin\n"
        "with.  The data folder is only read.  On a terminal it asks a few questions first; with --yes, or\n"
        "without a terminal, the options alone decide.  A file that is there is never written over without --force.",
        epilog="examples:\n  backup-agent init\n  backup-agent init ./data --required users.json --yes\n"
        "  backup-agent init ./data --output /etc/backup-agent/bot.yaml --bot-unit bot.service --schemas\n\n"
        "exit codes: 0 written; 1 a file is there already, or cannot be written; 2 there is no such folder",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data_dir", metavar="DATA_DIR", nargs="?", default="./data", help="default: ./data")
    parser.add_argument(
        "--output", metavar="FILE", default=_CONFIG, help=f"the config (default: {_CONFIG}); - prints it"
    )
    parser.add_argument("--backup-dir", metavar="DIR", help="where snapshots go (default: backups in DATA_DIR)")
    parser.add_argument("--required", metavar="FILE", action="append", default=[], help="a data file that must exist")
    parser.add_argument("--schemas", action="store_true", help="infer a starting schema for each file (takes genson)")
    parser.add_argument("--bot-unit", metavar="UNIT", help="the bot's systemd unit: shows the drop-ins for it")
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--json", action="store_true", help="print JSON for programs, ask nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not os.path.isdir(args.data_dir):
        raise UsageError(
            f"there is no data folder {display(args.data_dir)}", hint="name it: backup-agent init DATA_DIR"
        )
    if args.schemas:
        require_library()
    found = _survey(load_config(None, args.data_dir, os.environ))
    prints_config = args.output == "-"
    if not args.json and not prints_config:
        for line in told(found):
            say(line)
    if not (args.yes or args.json or prints_config) and sys.stdin.isatty() and sys.stdout.isatty():
        _ask(args)
    required = [_known(found, name) for name in args.required]
    _refuse_contradiction(found, args.backup_dir)
    home = os.getcwd() if prints_config else os.path.dirname(os.path.abspath(args.output))
    good = list(filter(_can_be_written, found.good()))
    schemas = propose_schemas(found, good, required) if args.schemas else Schemas()
    wishes = Wishes(
        data_dir=_from(home, found.data_dir),
        backup_dir=_from(home, os.path.abspath(args.backup_dir)) if args.backup_dir else None,
        required=required,
        schemas={rel: f"./{path}" for rel, path in schemas.files.items()},
        folders={folder: f"./{path}" for folder, path in schemas.folders.items()},
        exclude=_exclusions(found, home, bool(schemas.texts)),
        bot_unit=args.bot_unit,
    )
    text = config_text(wishes, found.files)
    if prints_config:
        sys.stdout.write(text)
        return 0
    written = _write(home, args.output, text, schemas.texts, force=args.force)
    config = load_config(args.output, None, os.environ)
    if args.json:
        print_json({"written": written, **_as_json(found, config)})
    else:
        _next_steps(args, found, config, written)
    return 0


def _survey(config: Config) -> Survey:
    try:
        return survey(config)
    except OSError as error:
        raise UsageError(
            f"cannot look at {display(config.data_dir)}: {error.strerror}", hint="run it as the user of the bot"
        ) from error


def _ask(args: argparse.Namespace) -> None:
    """Let a person say what no option said."""
    if not args.required:
        args.required = _answer("Files that must always exist, apart by commas (none): ").replace(",", " ").split()
    if args.backup_dir is None:
        args.backup_dir = _answer("Folder for the snapshots (backups in the data folder): ") or None
    if args.bot_unit is None:
        args.bot_unit = _answer("The bot's systemd unit (none): ") or None


def _answer(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        return ""


def _known(found: Survey, name: str) -> str:
    """The rel of a data file that a person named, by its path in the data folder or on the machine."""
    rels = {seen.rel for seen in found.files if _can_be_written(seen)}
    for rel in (os.path.normpath(name), os.path.relpath(os.path.abspath(name), found.data_dir)):
        if rel in rels:
            return rel
    raise UsageError(
        f"{display(name)} is no data file of {display(found.data_dir)}",
        hint="name it as it is shown above the questions",
    )


def _refuse_contradiction(found: Survey, backup_dir: str | None) -> None:
    """Raises UsageError when no config can say this; nothing was written."""
    if backup_dir is None:
        return
    for finding in findings(Config(data_dir=found.data_dir, backup_dir=os.path.abspath(backup_dir))):
        raise UsageError(f"the folder for the snapshots {finding.message}", hint=finding.hint)


def _from(home: str, path: str) -> str:
    """A folder as the config is to name it: relative where it lies beside or below the config."""
    rel = os.path.relpath(path, home)
    return path if rel.split("/")[0] == os.pardir else f"./{rel}" if rel != os.curdir else "."


def _can_be_written(seen: Seen) -> bool:
    """Whether a config, which is UTF-8, can name the file."""
    return _is_text(seen.rel)


def _is_text(rel: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in rel)


def _exclusions(found: Survey, home: str, has_schemas: bool) -> list[str]:
    """What matches as a data file and is none: copies of an older system, and schemas beside the data."""
    exclude = ["**/*_backup_[0-9]*"] if not all(map(os.path.isabs, found.strays)) else []
    exclude += [re.sub(r"([*?\[])", r"[\1]", rel) for rel in found.lookalikes if _is_text(rel)]
    beside = os.path.relpath(os.path.join(home, "schemas"), found.data_dir)
    return [*exclude, f"{beside}/**"] if has_schemas and beside.split("/")[0] != os.pardir else exclude


def _write(home: str, output: str, text: str, schemas: dict[str, str], *, force: bool) -> list[str]:
    """Every file is written, whole; return their paths.  A schema that is there is used as it is.

    Raises:
        NotWrittenError: nothing was written over.
    """
    files = {os.path.join(home, path): content for path, content in schemas.items()}
    files[os.path.join(home, os.path.basename(output))] = text  # last: it names the others
    kept = [path for path in list(files)[:-1] if not force and _is_schema(path)]
    for path in kept:
        note(f"{display(path)} is there already, and is used as it is")
        del files[path]
    there = [path for path in files if os.path.lexists(path)]
    if there and not force:
        raise NotWrittenError(f"{display(there[0])} is there already", hint="choose another --output, or add --force")
    try:
        for path, content in files.items():
            _write_one(path, content, force=force)
    except OSError as error:
        where = display(os.fsdecode(error.filename)) if error.filename else display(home)
        raise NotWrittenError(f"{where}: {error.strerror}", hint="choose another --output") from error
    return list(files)


def _is_schema(path: str) -> bool:
    """Whether a person may have made a schema of it; what is none would make the config unusable."""
    try:
        return isinstance(json.loads(Path(path).read_bytes()), dict)
    except (OSError, ValueError):
        return False


def _write_one(path: str, content: str, *, force: bool) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    with StagingFolder(folder) as staging:
        staged = staging.create()
        try:
            staged.write(content.encode("utf-8", "surrogateescape"))
            os.fchmod(staged.fd, _MODE)
            (rename_over if force else rename_new)(staging.fd, staged.name, staging.fd, name)
        finally:
            staged.discard()


def _next_steps(args: argparse.Namespace, found: Survey, config: Config, written: Sequence[str]) -> None:
    for path in written:
        say(f"written: {display(path)}")
    is_found = os.path.normpath(args.output) == _CONFIG  # every command finds it here by itself
    option = "" if is_found else f" --config {shell_word(args.output)}"
    say(f"next: backup-agent doctor{option}")
    say(f"      {_step_to_guard(args.output, config) or f'backup-agent run{option}'}")
    if args.bot_unit:
        agent, bot = _drop_ins(args, found, config)
        say(f"\nfor `systemctl edit backup-agent.service` (docs/systemd.md has the unit itself):\n\n{agent}")
        say(f"for /etc/systemd/system/{display(args.bot_unit)}.d/backup-agent.conf:\n\n{bot}")


def _step_to_guard(output: str, config: Config) -> str | None:
    """What makes an agent that guards the folder already work by the new config; None without one."""
    without_config = load_config(None, config.data_dir, os.environ)
    for state_dir in (config.state_dir, without_config.state_dir):
        if step := step_after_new_config(state_dir, output):
            return f"{step}  (an agent guards the folder already)"
    return None


def _drop_ins(args: argparse.Namespace, found: Survey, config: Config) -> tuple[str, str]:
    path, program = os.path.abspath(args.output), os.path.abspath(sys.argv[0])
    return (
        agent_unit_drop_in(
            user=found.owner, config=path, data_dir=config.data_dir, backup_dir=config.backup_dir, program=program
        ),
        bot_unit_drop_in(config=path, program=program),
    )


def _as_json(found: Survey, config: Config) -> dict[str, object]:
    return {
        "data_dir": config.data_dir, "backup_dir": config.backup_dir, "owner": found.owner,
        "owner_is_us": found.owner_is_us, "has_temp": found.has_temp, "is_guarded": found.is_guarded,
        "old_backups": found.old_backups, "strays": found.strays,
        "files": [{**asdict(seen), "file": seen.rel} for seen in found.files],
    }  # fmt: skip
