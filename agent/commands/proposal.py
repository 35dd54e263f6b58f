"""The texts that `init` proposes: a config with comments, and the drop-ins for systemd."""

import json
import os
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from agent.commands.survey import Seen
from agent.commands.wording import counted, size

_FILES_SHOWN = 20
_PLAIN = re.compile(r"\.{0,2}/[\w./-]*|[A-Za-z][\w./-]*\.json", re.ASCII)


class Wishes(Struct, frozen=True):
    """What the config is to say; folders as they are to be written, `schemas` by rel, as paths from the config.

    `folders` are the schemas that all JSON files right in a folder share.
    """

    data_dir: str
    backup_dir: str | None = None
    required: Sequence[str] = ()
    schemas: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    bot_unit: str | None = None


def config_text(wishes: Wishes, files: Sequence[Seen]) -> str:
    """Return a config that says `wishes` and explains what it leaves at its default."""
    backup_dir = f"backup_dir: {_quoted(wishes.backup_dir)}" if wishes.backup_dir else "# backup_dir: /mnt/other/bot"
    exclude = f"[{', '.join(map(_quoted, wishes.exclude))}]"
    lines = [
        "# The settings of backup-agent for this bot.  What is left out has its default; config.example.yaml, or",
        "# `backup-agent config schema` in an editor, explains every key.  After a change:",
        "#     backup-agent config check --config THIS_FILE",
        "",
        f"data_dir: {_quoted(wishes.data_dir)}",
        f"{backup_dir}  # snapshots; left out: backups in data_dir.  Another disk is safer.",
        "",
        "watch:",
        f"  exclude: {exclude}  # what is not worth keeping: caches, sessions",
        "",
        "backup:",
        "  min_free: 100MB  # space left on the disk of the snapshots: the oldest go before the disk is full",
        "",
        "recovery:",
        "  on_corrupt: restore  # cannot be parsed: restore | alert",
        "  on_missing: alert  # is gone: alert | restore; a required file is restored anyway",
        "",
        *_rules(wishes, files),
        "",
        *_bot(wishes.bot_unit),
        "",
        "metrics:",
        "  listen: 127.0.0.1:9184  # HOST:PORT, or off; another one for each agent on this machine",
    ]
    return "\n".join(lines) + "\n"


def _rules(wishes: Wishes, files: Sequence[Seen]) -> list[str]:
    seen = {each.rel: each for each in files}
    named = list(dict.fromkeys([*wishes.required, *wishes.schemas]))
    if not named and not wishes.folders:
        example = _example(files)
        schema = _quoted(f"./schemas/{os.path.splitext(example)[0]}.schema.json")
        return [
            "# Rules for single files.",
            "# files:",
            f"#   - path: {_path(example)}",
            "#     required: true  # must exist: restored when it is missing",
            f"#     schema: {schema}  # `backup-agent schema infer FILE` makes a first one",
        ]
    lines = ["files:"]
    for rel in named:
        note = f"  # {_described(seen[rel])} when this was written" if rel in seen else ""
        lines.append(f"  - path: {_path(rel)}{note}")
        if rel in wishes.required:
            lines.append("    required: true  # must exist: restored when it is missing")
        if rel in wishes.schemas:
            lines += _schema(wishes.schemas[rel])
    for folder, schema in wishes.folders.items():
        count = sum(_is_right_in(each.rel, folder) for each in files)
        lines.append(f"  - path: {_path(folder, '/*.json')}  # {counted(count, 'file')} of one shape")
        lines += _schema(schema)
    ruled = {each.rel for each in files for folder in wishes.folders if _is_right_in(each.rel, folder)}
    others = [each for each in files if each.rel not in named and each.rel not in ruled][:_FILES_SHOWN]
    return [*lines, *(f"  # guarded too: {_comment(each.rel)}, {_described(each)}" for each in others)]


def _schema(path: str) -> list[str]:
    return [
        f"    schema: {_quoted(path)}",
        "    on_invalid: alert  # the schema was inferred from one state: read it, then say repair",
    ]


def _is_right_in(rel: str, folder: str) -> bool:
    return os.path.dirname(rel) == folder and rel.endswith(".json")


def _example(files: Sequence[Seen]) -> str:
    """The file that a rule of its own suits best: the largest of those that lie highest."""
    best = min(files, key=lambda seen: (seen.rel.count("/"), -seen.size_bytes, seen.rel), default=None)
    return best.rel if best else "users.json"


def _bot(unit: str | None) -> list[str]:
    lines = ["# A bot that keeps its data in memory writes the damage back: with these it is stopped around a heal."]
    if unit is None:
        unit = "my-bot.service"
    else:
        lines.append("# The agent's user needs the right to do so, see docs/systemd.md; then take the # away.")
    return [
        *lines,
        "# bot:",
        f"#   stop: [systemctl, stop, {_comment(unit)}]",
        f"#   start: [systemctl, start, {_comment(unit)}]",
    ]


def _described(seen: Seen) -> str:
    records = f"{counted(seen.records, 'record')}, " if seen.records is not None else ""
    return f"{records}{size(seen.size_bytes)}"


def _quoted(text: str) -> str:
    """`text` as YAML reads it back, with nothing filled in from the environment."""
    plain = text.replace("${", "$${")
    if _PLAIN.fullmatch(plain):
        return plain
    quoted = json.dumps(plain, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def _path(rel: str, glob: str = "") -> str:
    """The pattern for `rel`, and `glob` behind it; a brace, which begins no pattern here, becomes any character."""
    return _quoted("".join(f"[{c}]" if c in "*?[" else "?" if c == "{" else c for c in rel) + glob)


def _comment(text: str) -> str:
    return text.encode("unicode_escape").decode() if not text.isprintable() else text


def agent_unit_drop_in(*, user: str, config: str, data_dir: str, backup_dir: str, program: str) -> str:
    """Return what `systemctl edit backup-agent.service` is to hold for this bot."""
    folders = [data_dir] if _is_below(backup_dir, data_dir) else [data_dir, backup_dir]
    mounts = " ".join(map(_unit_word, folders))
    lines = [
        "[Unit]", f"RequiresMountsFor={mounts}",
        "[Service]", f"User={user}",
        "ExecStart=", f"ExecStart={_unit_word(program)} run --config {_unit_word(config)}",
        "ReadWritePaths=", f"ReadWritePaths={mounts}",
    ]  # fmt: skip
    if data_dir.startswith(("/home/", "/root/")):
        lines += [
            "ProtectHome=tmpfs",
            f"BindPaths={mounts}",
            f"BindReadOnlyPaths={_unit_word(os.path.dirname(config))}",
        ]
    return "\n".join(lines) + "\n"


def bot_unit_drop_in(*, config: str, program: str) -> str:
    """Return the drop-in of the bot's own unit: it starts on checked data, and stops before the agent."""
    gate = f"{_unit_word(program)} check --heal --config {_unit_word(config)}"
    lines = [
        "[Unit]", "Wants=backup-agent.service", "After=backup-agent.service",
        "[Service]", f"ExecStartPre=-{gate}", "TimeoutStartSec=10min",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _unit_word(text: str) -> str:
    """A path as a unit file reads it back (systemd.syntax(7)): % begins a specifier, a blank ends a word."""
    escaped = text.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return f'"{escaped}"' if any(c.isspace() or c in "\"'\\" for c in text) else escaped
