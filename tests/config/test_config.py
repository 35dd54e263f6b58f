import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, ConfigProblem, InvalidConfigError, config_json_schema, load_config
from agent.config.kind import key_paths
from agent.config.reader import NodeReader
from agent.config.source import compose
from agent.core.errors import ConfigError
from agent.core.model import CheckSpec, Parser

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def written(folder: Path, text: str | bytes, name: str = "config.yaml") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def load(
    folder: Path, text: str | bytes, *, data_dir: str | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    return load_config(written(folder, text), data_dir, environ or {})


def problems(folder: Path, text: str | bytes, *, environ: Mapping[str, str] | None = None) -> tuple[ConfigProblem, ...]:
    with pytest.raises(InvalidConfigError) as caught:
        load(folder, text, environ=environ)
    return caught.value.problems


def the_problem(folder: Path, text: str | bytes, *, environ: Mapping[str, str] | None = None) -> ConfigProblem:
    (problem,) = problems(folder, text, environ=environ)
    return problem


# ---------------------------------------------------------------- folders


def test_no_config_protects_data_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    config = load_config(None, None, {})

    assert config.data_dir == f"{tmp_path}/data"
    assert config.backup_dir == f"{tmp_path}/data/backups"
    assert config.temp_dir == f"{tmp_path}/data/temp"
    assert config.state_dir == f"{tmp_path}/data/backups/.agent"


def test_folders_are_relative_to_the_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    config = load(tmp_path, "data_dir: ../x/./data\nstate_dir: /var/lib/state\n")

    assert config.data_dir == f"{tmp_path.parent}/x/data"
    assert config.backup_dir == f"{tmp_path.parent}/x/data/backups"
    assert config.state_dir == "/var/lib/state"


def test_data_dir_of_the_command_line_moves_what_the_file_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    config = load(tmp_path, "data_dir: a\nbackup_dir: b\n", data_dir="c")

    assert config.data_dir == f"{tmp_path}/here/c"
    assert config.backup_dir == f"{tmp_path}/b"
    assert config.temp_dir == f"{tmp_path}/here/c/temp"
    assert config.state_dir == f"{tmp_path}/b/.agent"


def test_home_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/bot")

    assert load(tmp_path, "data_dir: ~/data\n").data_dir == "/home/bot/data"


@pytest.mark.parametrize(
    ("text", "key_path"),
    [
        ("backup_dir: ./data", "backup_dir"),
        ("data_dir: ./a/b\nbackup_dir: ./a", "backup_dir"),
        ("data_dir: ./a/b\nbackup_dir: /", "backup_dir"),
        ("temp_dir: ./data/", "temp_dir"),
        ("temp_dir: ./data/backups/temp", "temp_dir"),
        ("temp_dir: ./data/backups", "temp_dir"),
        ("state_dir: ./data", "state_dir"),
        ("state_dir: ./data/backups", "state_dir"),
        ("state_dir: ./data/temp", "state_dir"),
        ("data_dir: ./real\nbackup_dir: ./link", "backup_dir"),
    ],
)
def test_folders_that_would_swallow_each_other_are_refused(tmp_path: Path, text: str, key_path: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    assert the_problem(tmp_path, text).key_path == key_path


def test_own_folder_behind_a_symbolic_link_holds_no_data_files(tmp_path: Path) -> None:
    (tmp_path / "real" / "keep").mkdir(parents=True)
    (tmp_path / "data").symlink_to("real")

    config = load(tmp_path, "backup_dir: ./real/keep\n")

    assert not config.is_data_file("keep/users_backup.json")
    assert not config.may_hold_data_files("keep")
    assert config.is_data_file("users.json")


# ---------------------------------------------------------------- values


def test_quantities_words_and_lists_become_plain_values(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        shutdown_timeout: 1m
        watch: {debounce: 500ms, max_file_size: 64KiB, include: ["*.json", "a/**"]}
        backup: {max_total_size: 5GB, min_free: none, retention: {keep_within: 2w, keep_deleted: forever}}
        recovery: {suspect: {enabled: false, min_fraction: 0.2}}
        bot: {stop: [sleep, 5], start: [echo, on, 0x10]}
        metrics: {listen: off}
        """,
    )

    assert config.shutdown_timeout_s == 60.0
    assert (config.watch.debounce_s, config.watch.max_file_size_bytes) == (0.5, 65536)
    assert config.watch.include == ("*.json", "a/**")
    assert (config.backup.max_total_size_bytes, config.backup.min_free_bytes) == (5 * 10**9, None)
    assert (config.backup.retention.keep_within_s, config.backup.retention.keep_deleted_s) == (1209600.0, None)
    assert (config.recovery.suspect.enabled, config.recovery.suspect.min_fraction) == (False, 0.2)
    assert config.bot is not None
    assert (config.bot.stop, config.bot.start) == (("sleep", "5"), ("echo", "on", "0x10"))
    assert config.metrics.address is None


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeffwatch: {mode: auto}\n"])
def test_file_that_sets_nothing_means_the_defaults(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert load(tmp_path, text) == load_config(None, None, {})


def test_config_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        load(tmp_path, "").data_dir = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${A}", "one"),
        ("x-${A}-${B:-two}", "x-one-two"),
        ("${EMPTY:-two}", "two"),
        ("${A:-two}", "one"),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("${B:-}x", "x"),
    ],
)
def test_environment_is_filled_in(tmp_path: Path, text: str, filled: str) -> None:
    config = load(tmp_path, f"bot: {{stop: ['{text}'], start: [x]}}\n", environ={"A": "one", "EMPTY": ""})

    assert config.bot is not None
    assert config.bot.stop == (filled,)


def test_number_may_come_from_the_environment(tmp_path: Path) -> None:
    config = load(tmp_path, "backup: {retention: {keep_last: '${N}'}}\n", environ={"N": "3"})

    assert config.backup.retention.keep_last == 3


@pytest.mark.parametrize("text", ["${NOT_SET}", "${", "${1x}", "${A-b}"])
def test_variable_that_cannot_be_filled_in_is_a_problem(tmp_path: Path, text: str) -> None:
    assert "${" in the_problem(tmp_path, f"data_dir: '{text}'\n").hint


@pytest.mark.parametrize("text", ["log: {level: '${TOKEN}'}\n", "watch: {debounce: '${TOKEN}'}\n"])
def test_value_from_the_environment_is_not_shown(tmp_path: Path, text: str) -> None:
    problem = the_problem(tmp_path, text, environ={"TOKEN": "s3cret"})

    assert "s3cret" not in str(problem)
    assert "${TOKEN}" in problem.message


# ---------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("text", "place", "key_path", "says"),
    [
        ("watch:\n  debonce: 2s\n", (2, 3), "watch.debonce", "did you mean debounce?"),
        ("debounce: 2s\n", (1, 1), "debounce", "it belongs at watch.debounce"),
        ("watch: {debounce: 2s, debounce: 3s}\n", (1, 23), "watch.debounce", "given twice, first on line 1"),
        ("watch: {debounce: 30}\n", (1, 19), "watch.debounce", "write 30s"),
        ("watch: {debounce: -2s}\n", (1, 19), "watch.debounce", "cannot be negative"),
        ("watch: {debounce: 40s}\n", (1, 19), "watch.debounce", "longer than watch.max_delay (30s)"),
        ("watch: {max_delay: 1s}\n", None, "watch.debounce", "longer than watch.max_delay (1s)"),
        ("watch: {rescan: 0}\n", (1, 17), "watch.rescan", "at least 1s"),
        ("watch: {max_file_size: -1}\n", (1, 24), "watch.max_file_size", "cannot be negative"),
        ("watch: {include: '*.json'}\n", (1, 18), "watch.include", "expected a list"),
        ("watch: {include: ['']}\n", (1, 19), "watch.include[0]", "not empty"),
        ("watch: {include: [./]}\n", (1, 19), "watch.include[0]", "names no file"),
        ("watch: {include: [a/]}\n", (1, 19), "watch.include[0]", "a/**"),
        ("watch: {include: ['*.{json,yaml}']}\n", (1, 19), "watch.include[0]", "one pattern for each"),
        ("watch: {exclude: [../a]}\n", (1, 19), "watch.exclude[0]", "leads out of data_dir"),
        ("watch: {exclude: [/etc/*]}\n", (1, 19), "watch.exclude[0]", "leads out of data_dir"),
        ("watch: {exclude: ['[z-a]']}\n", (1, 19), "watch.exclude[0]", "is not a glob"),
        ("watch: {mode: poling}\n", (1, 15), "watch.mode", "did you mean polling?"),
        ("watch:\n", (1, 7), "watch", "got nothing"),
        ("watch: {mode: }\n", (1, 14), "watch.mode", "got nothing"),
        ("backup: {keep_suspect: -1}\n", (1, 24), "backup.keep_suspect", "at least 1"),
        ("backup: {keep_suspect: 1.5}\n", (1, 24), "backup.keep_suspect", "a whole number"),
        ("backup: {interval: 0}\n", (1, 20), "backup.interval", "at least 1s"),
        ("backup: {retention: {minimum_good: 0}}\n", (1, 36), "backup.retention.minimum_good", "at least 1"),
        ("recovery: {suspect: {min_fraction: .nan}}\n", (1, 36), "recovery.suspect.min_fraction", "a number"),
        ("recovery: {suspect: {min_fraction: nan}}\n", (1, 36), "recovery.suspect.min_fraction", "a number"),
        ("recovery: {suspect: {enabled: yes}}\n", (1, 31), "recovery.suspect.enabled", "true or false"),
        ("bot: {stop: [x]}\n", (1, 6), "bot", "`start` is missing"),
        ("bot: {stop: [], start: [x]}\n", (1, 13), "bot.stop", "is empty"),
        ("bot: {stop: stop it, start: [x]}\n", (1, 13), "bot.stop", "expected a list"),
        ("metrics: {listen: 9184}\n", (1, 19), "metrics.listen", "127.0.0.1:9184"),
        ("files: [{required: true}]\n", (1, 9), "files[0]", "`path` is missing"),
        ("files: [{path: a}, {path: ./a}]\n", (1, 27), "files[1].path", "has a rule already"),
        ("files: [{path: ../a}]\n", (1, 16), "files[0].path", "leads out of data_dir"),
        ("files: [{path: temp/a}]\n", (1, 16), "files[0].path", "the agent's own"),
        ("files: [{path: 'a\n\n  b', parser: nod}]\n", (3, 15), "files[0].parser", "did you mean node?"),
        ("files: users.json\n", (1, 8), "files", "expected a list"),
        ('data_dir: "a\\0b"\n', (1, 11), "data_dir", "NUL"),
        ("[a]: b\n", (1, 1), "", "cannot be a key"),
        ("x: &x {}\n<<: *x\n", None, "x", "unknown key"),
        ("- a\n", (1, 1), "", "expected keys with values, got a list"),
    ],
)
def test_problem_has_its_place_and_says_what_to_do(
    tmp_path: Path, text: str, place: tuple[int, int] | None, key_path: str, says: str
) -> None:
    problem = problems(tmp_path, text)[0]

    assert problem.key_path == key_path
    assert says in f"{problem.message} {problem.hint}"
    if place is not None:
        assert (problem.line, problem.column) == place


def test_retention_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    nothing = "backup: {retention: {keep_last: 0, keep_intervals: 0, keep_hourly: 0, keep_daily: 0%s}}\n"

    assert the_problem(tmp_path, nothing % "").key_path == "backup.retention"
    assert load(tmp_path, nothing % ", keep_within: 1h").backup.retention.keep_within_s == 3600.0


def test_every_problem_is_told_at_once_one_a_line(tmp_path: Path) -> None:
    text = "wach: {}\nwatch: {debounce: 5, mode: x}\nfiles:\n  - required: maybe\n  - {path: a}\n  - {path: a}\nlog: {level: loud}\n"

    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "wach", "watch.debounce", "watch.mode", "files[0]", "files[0].required", "files[2].path", "log.level",
    ]  # fmt: skip
    assert lines[1].startswith(f"{tmp_path}/config.yaml:2:19: watch.debounce: `5` has no unit (")
    assert caught.value.exit_code == 2
    assert "backup-agent config check" in caught.value.hint


@pytest.mark.parametrize(
    "text", ['"a\\nb\\ud800\\e": 1\n', 'log: {level: "x\\n\\udcffy"}\n', "log: {level: %s}\n" % ("x" * 100_000)]
)
def test_problem_is_one_short_printable_line(tmp_path: Path, text: str) -> None:
    line = str(the_problem(tmp_path, text))

    assert line.isprintable()
    assert len(line) < 1000


def test_contradiction_with_a_value_that_is_a_problem_itself_is_not_told(tmp_path: Path) -> None:
    assert the_problem(tmp_path, "watch: {debounce: 1h, max_delay: 5}\n").key_path == "watch.max_delay"


def test_missing_config_file_is_told_with_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no config file .*nope\.yaml") as caught:
        load_config(f"{tmp_path}/nope.yaml", None, {})

    assert "`backup-agent init`" in caught.value.hint


def test_config_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the config file"):
        load_config(str(tmp_path), None, {})


def test_problem_of_the_command_line_has_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_config(written(tmp_path, "backup_dir: ./a\n"), str(tmp_path / "a" / "b"), {})

    assert caught.value.problems[0].key_path == "backup_dir"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: [\n", 2, "expected"),
        ("a:\n\tb: 1\n", 2, "spaces, not tabs"),
        ("a: 1\n--- \nb: 2\n", 2, "single document"),
        ("a: 1\nb: \x00\n", 2, "control character"),
        (b"a: 1\nb: \xff\n", 2, "UTF-8"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "means nothing here"),
        ("a: !env X\n", 1, "means nothing here"),
        ("a: &a [*a]\n", 1, "within itself"),
        ("a: *nope\n", 1, "undefined alias"),
        ("a: " + "[" * 100_000, 1, "nested more than"),
        ("a: " + "{a: " * 5000 + "}" * 5000, 1, "nested more than"),
        ("a: [" + "x," * 600_000 + "]", None, "bytes long"),
    ],
)
def test_text_that_is_no_sane_yaml_is_one_problem(
    tmp_path: Path, text: str | bytes, line: int | None, says: str
) -> None:
    problem = the_problem(tmp_path, text)

    assert problem.line == line
    assert says in f"{problem.message} {problem.hint}"


def test_alias_bomb_is_refused_unopened(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    assert "holds more than" in the_problem(tmp_path, "a0: &a0 [x]\n" + "\n".join(levels)).message


def test_value_may_be_shared_by_an_alias(tmp_path: Path) -> None:
    config = load(tmp_path, "files:\n  - {path: a, schema: &user {type: object}}\n  - {path: b, schema: *user}\n")

    assert config.rule_for("b").check.schema == {"type": "object"}


settings = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["5m", "none", "${X}", "**", "../a", "a.json"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([path.rpartition(".")[2] for path in key_paths(Config)]), inner, max_size=4),
    ),
    max_leaves=15,
)


@given(settings)
def test_no_document_is_beyond_a_list_of_problems(tmp_path_factory: pytest.TempPathFactory, settings: object) -> None:
    import yaml

    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(settings))

    try:
        config = load_config(str(path), None, {"X": "0"})
    except InvalidConfigError as error:
        found: InvalidConfigError | Config = error
    else:
        found = config

    if isinstance(found, Config):
        assert os.path.isabs(found.data_dir)
        assert isinstance(found.is_data_file("a.json"), bool)
    else:
        assert len(found.problems) == len(str(found).splitlines()) > 0


# ---------------------------------------------------------------- rules


def test_exact_path_beats_globs_and_the_first_glob_beats_the_next(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        files:
          - {path: "**/*.json", parser: python}
          - {path: "a/*.json", parser: node}
          - {path: a/users.json, on_corrupt: alert}
        """,
    )

    assert config.rule_for("a/users.json").on_corrupt == "alert"
    assert config.rule_for("a/users.json").check.parser is Parser.STRICT
    assert config.rule_for("a/other.json").check.parser is Parser.PYTHON
    assert config.rule_for("a/other.json").path == "**/*.json"
    assert config.rule_for("notes.txt").path is None
    assert config.rule_for("notes.txt").check == CheckSpec()
    assert config.named_files() == ("a/users.json",)


def test_rule_takes_what_it_leaves_out_from_recovery(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        recovery: {on_corrupt: alert, on_invalid: alert, suspect: {min_records: 9, min_fraction: 0.1}}
        files: [{path: a.json, on_invalid: restore, suspect: {enabled: false, min_bytes: 0}}]
        """,
    )

    rule = config.rule_for("a.json")

    assert (rule.on_corrupt, rule.on_invalid, rule.on_missing) == ("alert", "restore", "alert")
    assert (rule.suspect.enabled, rule.suspect.min_records, rule.suspect.min_fraction) == (False, 9, 0.1)
    assert rule.suspect.min_bytes == 0
    assert config.rule_for("b.json").suspect == config.recovery.suspect


@pytest.mark.parametrize(
    ("entry", "reaction"),
    [
        ("required: true", "restore"),
        ("required: true, on_missing: alert", "alert"),
        ("required: false", "alert"),
        ("on_missing: restore", "restore"),
    ],
)
def test_missing_required_file_is_restored_unless_its_rule_says_not(tmp_path: Path, entry: str, reaction: str) -> None:
    config = load(tmp_path, f"recovery: {{on_missing: alert}}\nfiles: [{{path: a.json, {entry}}}]\n")

    assert config.rule_for("a.json").on_missing == reaction


def test_name_that_is_not_utf8_finds_its_rule(tmp_path: Path) -> None:
    config = load(
        tmp_path, 'files: [{path: "log?.json", parser: node}, {path: "log\\udcfe.json", on_corrupt: alert}]\n'
    )

    assert config.rule_for(os.fsdecode(b"log\xfe.json")).on_corrupt == "alert"
    assert config.rule_for(os.fsdecode(b"log\xff.json")).check.parser is Parser.NODE


# ---------------------------------------------------------------- schemas of data files


def test_schema_in_place_is_read_as_json_has_it(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "files: [{path: a, schema: {enum: [off, no, 012, 2024-01-01, 5:30, 1e3, null, true, '1', '${X}', 123456789012345678901]}}]\n",
    )

    assert config.rule_for("a").check.schema == {
        "enum": ["off", "no", 12, "2024-01-01", "5:30", 1000.0, None, True, "1", "${X}", 123456789012345678901]
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s/users.json", '{"type":\n\t"object"}'),
        ("s/users.yaml", "type: object\n"),
        ("s/users.yml", '{"type": "object"}'),
    ],
)
def test_schema_file_is_relative_to_the_config_file(
    tmp_path: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    written(tmp_path, text, name)

    config = load(tmp_path, f"files: [{{path: a, schema: ./{name}}}]\n")

    assert config.rule_for("a").check.schema == {"type": "object"}


@pytest.mark.parametrize(
    ("schema", "place", "key_path", "says"),
    [
        ("{properties: {a: {type: strin}}}", (1, 51), "files[0].schema.properties.a.type", "types are array"),
        ("{allOf: [{}, {minLength: x}]}", (1, 52), "files[0].schema.allOf[1].minLength", "integer"),
        ("{pattern: '('}", (1, 37), "files[0].schema.pattern", "regex"),
        ("{$ref: 'http://localhost/x'}", (1, 27), "files[0].schema", "$defs"),
        ("{$ref: other.json}", (1, 27), "files[0].schema", "$defs"),
        ("{$ref: '#/$defs/x'}", (1, 27), "files[0].schema", "does not exist"),
        ("{$schema: 'http://json-schema.org/draft-07/schema#'}", (1, 37), "files[0].schema.$schema", "2020-12"),
        ("{type: object, type: array}", (1, 42), "files[0].schema.type", "given twice"),
        ("nope.json", (1, 27), "files[0].schema", "cannot read"),
        ("[]", (1, 27), "files[0].schema", "expected"),
    ],
)
def test_faulty_schema_is_told_at_its_place(
    tmp_path: Path, schema: str, place: tuple[int, int], key_path: str, says: str
) -> None:
    problem = the_problem(tmp_path, f"files: [{{path: a, schema: {schema}}}]\n")

    assert (problem.line, problem.column, problem.key_path) == (*place, key_path)
    assert says in f"{problem.message} {problem.hint}"


def test_every_fault_of_a_schema_is_told(tmp_path: Path) -> None:
    found = problems(tmp_path, "files: [{path: a, schema: {type: x, properties: {b: {minLength: x}}, items: 3}}]\n")

    assert [problem.key_path.removeprefix("files[0].schema.") for problem in found] == [
        "type",
        "properties.b.minLength",
        "items",
    ]


@pytest.mark.parametrize(
    ("name", "text", "place", "says"),
    [
        ("s.json", '{"a": 1,\n}', (2, 1), "is not JSON"),
        ("s.json", '{"a": 1, "a": 2}', (None, None), "given twice"),
        ("s.json", '{"a": NaN}', (None, None), "not a number"),
        ("s.json", "[" * 200_000, (None, None), "JSON"),
        ("s.json", "3", (None, None), "must be an object"),
        ("s.json", '{"type": 5}', (None, None), "types are"),
        ("s.yaml", "a: 1\na: 2\n", (2, 1), "given twice"),
        ("s.yaml", "x: 1\ntype: 5\n", (2, 7), "types are"),
        ("s.yaml", "", (None, None), "must be an object"),
        ("s.yaml", "a: [", (1, 5), "expected"),
    ],
)
def test_problem_in_a_schema_file_names_that_file(
    tmp_path: Path, name: str, text: str, place: tuple[int | None, int | None], says: str
) -> None:
    path = written(tmp_path, text, name)

    problem = the_problem(tmp_path, f"files: [{{path: a, schema: {name}}}, {{path: b, schema: {name}}}]\n")

    assert (problem.file, problem.line, problem.column) == (path, *place)
    assert says in f"{problem.message} {problem.hint}"


# ---------------------------------------------------------------- the example and the editor's schema


def editor_accepts(text: str) -> bool:
    node = compose(text.encode(), file="x")
    assert node is not None
    value = NodeReader(file="x", environ={}).plain(node, "")
    return bool(jsonschema_rs.Draft202012Validator(config_json_schema(), offline=True).is_valid(value))


def uncommented(text: str) -> str:
    """Switch on the sections that the example shows commented out: `# bot:`, `# files:`, `# notify:`, and what is below them."""
    section = re.compile(r"^# (?:bot|files|notify):.*\n(?:^#   .*\n)+", re.MULTILINE)
    return section.sub(lambda match: re.sub("^# ", "", match[0], flags=re.MULTILINE), text)


def test_example_is_exactly_the_defaults() -> None:
    assert load_config(str(EXAMPLE), None, {}) == load_config(None, str(EXAMPLE.parent / "data"), {})


def test_example_with_its_commented_sections_loads() -> None:
    path_text = uncommented(EXAMPLE.read_text())

    node = compose(path_text.encode(), file="example")
    assert node is not None
    reader = NodeReader(file="example", environ={})
    config = reader.read(Config, node)

    assert reader.problems == []
    assert config is not None
    assert config.bot is not None
    assert config.named_files() == ("users.json",)


def test_example_mentions_every_key_of_the_model() -> None:
    node = compose(uncommented(EXAMPLE.read_text()).encode(), file="example")
    assert node is not None
    reader = NodeReader(file="example", environ={})
    reader.read(Config, node)

    mentioned = {re.sub(r"\[[0-9]+\]", "[]", path) for path in reader.nodes}

    assert set(key_paths(Config)) <= mentioned


@pytest.mark.parametrize("switched_on", [False, True])
def test_example_satisfies_the_schema_for_editors(switched_on: bool) -> None:
    text = EXAMPLE.read_text()

    assert editor_accepts(uncommented(text) if switched_on else text)


@pytest.mark.parametrize(
    "text",
    [
        "watch: {debounce: 30}",
        "watch: {debonce: 2s}",
        "watch: {debounce: x2s}",
        "watch: {mode: x}",
        "watch: {max_file_size: -1}",
        "backup: {max_total_size: lots}",
        "backup: {retention: {minimum_good: 0}}",
        "bot: {stop: [x]}",
        "files: [{required: true}]",
        "data_dir: ''",
    ],
)
def test_schema_for_editors_refuses_what_the_loader_refuses(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)
    assert not editor_accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "watch: {debounce: 0}",
        "watch: {debounce: '${D:-2s}'}",
        "watch: {max_file_size: 1024}",
        "backup: {retention: {keep_deleted: forever, keep_within: null}}",
        "metrics: {listen: off}",
        "files: [{path: a, on_corrupt: null, schema: {type: object}}]",
    ],
)
def test_schema_for_editors_accepts_what_the_loader_accepts(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)

    assert editor_accepts(text)


def test_schema_for_editors_describes_every_key_and_shows_quantities_as_written() -> None:
    schema = config_json_schema()
    sections = [schema, *schema["$defs"].values()]

    assert [
        key for section in sections for key, its in section.get("properties", {}).items() if not its.get("description")
    ] == []
    assert schema["$defs"]["Watch"]["properties"]["debounce"]["default"] == "2s"
    assert schema["$defs"]["Retention"]["properties"]["keep_deleted"]["default"] == "forever"
    assert schema["$defs"]["Suspect"]["properties"]["min_bytes"]["default"] == "1KiB"


# ---------------------------------------------------------------- cost


def test_config_without_schemas_loads_nothing_heavy() -> None:
    program = (
        "import sys; from agent.config import load_config; load_config(sys.argv[1], None, {});"
        "print([m for m in ('jsonschema_rs', 'rich', 'asyncio', 'structlog') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program, str(EXAMPLE)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_packing_without_zstd_is_told_with_its_place_and_the_next_step(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(f"backup:\n  compression: {compression}\n  packing: true\n")

    with pytest.raises(InvalidConfigError) as caught:
        load_config(str(path), None, {})

    (problem,) = caught.value.problems
    assert (problem.line, problem.key_path) == (3, "backup.packing")
    assert "compression: zstd" in problem.hint
