import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from place import Place

from agent.cli import main
from agent.commands.proposal import Wishes, agent_unit_drop_in, config_text
from agent.config import load_config


def init(place: Place, *words: str) -> tuple[int, str, str]:
    code = main(["init", *words])
    said = place.capsys.readouterr()
    return code, said.out, said.err


def tree(folder: Path) -> dict[str, Any]:
    return {str(path): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_written_config_passes_its_check_and_guards_the_folder(place: Place) -> None:
    code, _, _ = init(place, "--required", "data/users.json")

    assert code == 0
    assert main(["config", "check", "--config", "backup-agent.yaml"]) == 0
    config = load_config("backup-agent.yaml", None, {})
    assert config.data_dir == str(place.data)
    assert config.rule_for("users.json").required


def test_looking_changes_nothing_in_the_data_folder(place: Place) -> None:
    place.write("sub/bad.json", b'{"')
    before = tree(place.data)

    init(place)

    assert tree(place.data) == before


def test_it_tells_what_it_found(place: Place) -> None:
    place.write("bad.json", b'{"1": ')
    place.write("backups/users_backup_2024-01-01.json", [1])
    place.write("users_backup_20240101.json", [1])
    (place.data / "temp").mkdir()

    _, out, _ = init(place)
    _, told, _ = init(place, "--json", "--force")

    assert "users.json: 304 B, 12 records, good" in out
    assert "bad.json: 6 B, corrupt, line 1" in out
    assert "1 backup of an older system" in out
    found = json.loads(told)
    assert {f["file"]: f["grade"] for f in found["files"]} == {"users.json": "good", "bad.json": "corrupt"}
    assert (found["old_backups"], found["strays"], found["has_temp"]) == (1, ["users_backup_20240101.json"], True)


def test_copies_beside_the_data_are_excluded(place: Place) -> None:
    place.write("users_backup_20240101.json", [1])

    init(place)

    assert not load_config("backup-agent.yaml", None, {}).is_data_file("users_backup_20240101.json")


def test_a_copy_that_would_count_as_data_is_excluded_by_its_name(place: Place) -> None:
    place.write("users_backup_[old].json", [1])
    place.write("user_backup_codes.json", [1])  # there is no user.json that it could be a copy of

    init(place)

    config = load_config("backup-agent.yaml", None, {})
    assert not config.is_data_file("users_backup_[old].json")
    assert config.is_data_file("user_backup_codes.json")


def test_file_that_is_there_is_written_over_with_force_alone(place: Place) -> None:
    config = place.root / "backup-agent.yaml"
    config.write_text("mine")

    code, _, err = init(place)

    assert (code, config.read_text()) == (1, "mine")
    assert "--force" in err
    assert init(place, "--force")[0] == 0
    assert config.read_text() != "mine"


def test_nothing_is_written_when_one_of_the_files_is_there(place: Place) -> None:
    (place.root / "schemas").mkdir()
    (place.root / "schemas/users.schema.json").write_text("mine")

    assert init(place, "--schemas")[0] == 1
    assert not (place.root / "backup-agent.yaml").exists()
    assert (place.root / "schemas/users.schema.json").read_text() == "mine"


def test_schemas_are_inferred_and_only_alert(place: Place) -> None:
    place.write("guilds/1.json", {"prefix": "!"})
    place.write("bad.json", b"{")

    assert init(place, "--schemas")[0] == 0

    config = load_config("backup-agent.yaml", None, {})
    assert config.rule_for("users.json").check.schema["additionalProperties"]["required"] == ["name"]  # type: ignore[index]
    assert config.rule_for("guilds/1.json").on_invalid == "alert"
    assert config.rule_for("bad.json").check.schema is None


def test_config_inside_the_data_folder_leaves_the_schemas_out(place: Place) -> None:
    assert init(place, "--schemas", "--output", "data/agent.yaml")[0] == 0

    config = load_config("data/agent.yaml", None, {})
    assert config.data_dir == str(place.data)
    assert not config.is_data_file("schemas/users.schema.json")


def test_odd_names_come_through(place: Place) -> None:
    names = ["w [x] ü${HOME}*.json", "a{b,c}.json", "-\U0001f600'\".json", "no\x07bell.json"]
    for name in names:
        place.write(name, [1])
    place.write(os.fsdecode(b"not-utf8-\xff.json"), [1])

    code, _, err = init(place, "--schemas", *(word for name in names for word in ("--required", f"data/{name}")))

    assert (code, err) == (0, "")
    config = load_config("backup-agent.yaml", None, {"HOME": "x"})
    assert [name for name in names if not config.rule_for(name).required] == []
    assert [name for name in names if config.rule_for(name).check.schema is None] == []


def test_output_to_standard_output_writes_no_file(place: Place) -> None:
    code, out, _ = init(place, "--output", "-")

    assert (code, [path.name for path in place.root.glob("backup-agent*")]) == (0, [])
    (place.root / "tried.yaml").write_text(out)
    assert load_config("tried.yaml", None, {}).data_dir == str(place.data)


@pytest.mark.parametrize("words", [["./nowhere"], ["--required", "nothing.json"]])
def test_what_is_not_there_is_wrong_usage(place: Place, words: list[str]) -> None:
    assert init(place, *words)[0] == 2
    assert not (place.root / "backup-agent.yaml").exists()


def test_unit_of_the_bot_brings_both_drop_ins(place: Place) -> None:
    _, out, _ = init(place, "--bot-unit", "bot.service")

    assert "After=backup-agent.service" in out
    assert f"ReadWritePaths={place.data}" in out
    assert "systemctl, stop, bot.service" in (place.root / "backup-agent.yaml").read_text()


def test_path_with_blanks_and_percent_is_one_word_in_a_unit() -> None:
    text = agent_unit_drop_in(
        user="anna", config="/etc/a b.yaml", data_dir="/srv/100%", backup_dir="/mnt/b", program="/x/backup-agent"
    )

    assert 'ExecStart=/x/backup-agent run --config "/etc/a b.yaml"' in text
    assert "ReadWritePaths=/srv/100%% /mnt/b" in text


def test_it_asks_on_a_terminal_only_what_no_option_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["users.json", "./elsewhere"])
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or next(answers))
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    code, _, _ = init(place, "--bot-unit", "bot.service")

    config = load_config("backup-agent.yaml", None, {})
    assert (code, len(asked)) == (0, 2)
    assert config.backup_dir == str(place.root / "elsewhere")
    assert config.rule_for("users.json").required


def test_config_without_any_file_loads(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(config_text(Wishes("./data"), []))

    assert load_config(str(tmp_path / "c.yaml"), None, {})


def test_a_folder_for_snapshots_that_no_config_may_name_leaves_nothing_behind(place: Place) -> None:
    """A config that cannot be used would stop every command, as it is found by itself."""
    code, _, err = init(place, "--backup-dir", str(place.data))

    assert code == 2
    assert "the folder for the snapshots is data_dir itself" in err
    assert not (place.root / "backup-agent.yaml").exists()


def test_files_at_the_top_come_first_and_the_largest_of_them_is_the_example(place: Place) -> None:
    place.write("guilds/1.json", {"name": "x" * 2000})
    place.write("aaa.json", [1])

    _, out, _ = init(place)

    assert out.index("aaa.json") < out.index("users.json") < out.index("guilds/1.json")
    text = (place.root / "backup-agent.yaml").read_text()
    assert "#   - path: users.json\n" in text
    assert "./schemas/users.schema.json" in text


def test_more_files_than_get_a_schema_are_told(place: Place) -> None:
    for number in range(25):
        place.write(f"{number}.json", {"name": "x" * 500})

    _, _, err = init(place, "--schemas")

    assert "schemas for 20 of 26 files" in err
    assert (place.root / "schemas/0.schema.json").exists()


def test_files_of_one_shape_in_a_folder_share_one_rule_and_schema(place: Place) -> None:
    for number in range(25):
        place.write(f"guilds/{number}.json", {"prefix": "!", "level": number} if number else {"prefix": "?"})
        place.write("guilds.json", [number])
        place.write(f"mixed/{number}.json", {str(number): number} if number % 2 else [])

    code, _, _ = init(place, "--schemas", "--required", "guilds/7.json")

    config = load_config("backup-agent.yaml", None, {})
    shared = config.rule_for("guilds/99.json")
    assert code == 0
    assert shared.check.schema == json.loads((place.root / "schemas/guilds/_each.schema.json").read_bytes())
    assert shared.check.schema["required"] == ["prefix"]
    assert (shared.required, config.rule_for("guilds/7.json").required) == (False, True)
    assert config.rule_for("mixed/99.json").check.schema is None
    assert 'path: "guilds/*.json"  # 25 files of one shape' in (place.root / "backup-agent.yaml").read_text()


def test_a_schema_that_is_there_is_used_as_it_is(place: Place) -> None:
    mine = place.root / "schemas" / "users.schema.json"
    mine.parent.mkdir()
    mine.write_text('{"type": "object"}')

    code, _, err = init(place, "--schemas")

    assert (code, mine.read_text()) == (0, '{"type": "object"}')
    assert "is used as it is" in err
    assert load_config("backup-agent.yaml", None, {}).rule_for("users.json").check.schema == {"type": "object"}


def test_agent_that_runs_is_told_to_read_the_new_config(place: Place) -> None:
    with place.daemon():
        pid = place.json("status")[1]["daemon_pid"]
        _, same, _ = init(place, "--output", "agent.yaml", "--force")
        _, other, _ = init(place)

    assert f"kill -HUP {pid}  (an agent guards" in same
    assert "restart the agent with --config backup-agent.yaml" in other
    assert "backup-agent run" not in same + other
