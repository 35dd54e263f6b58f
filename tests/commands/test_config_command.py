import json

import jsonschema_rs
import yaml
from place import Place

from agent.cli import main


def test_a_usable_config_tells_what_it_guards(place: Place) -> None:
    place.configure("files:\n  - {path: users.json, required: true}\n  - {path: shop.json}")

    code, out, _ = place.run("config", "check")

    assert code == 0
    assert out.startswith("ok: 5 keys in ")
    assert f"guards **/*.json in {place.data}" in out


def test_every_problem_is_listed_with_its_place(place: Place) -> None:
    place.configure("backup: {intervall: 5m}\nrecovery: {heal_attempts: none}")

    code, _, err = place.run("config", "check")

    assert code == 2
    assert "agent.yaml:3:10: backup.intervall: unknown key" in err
    assert "agent.yaml:4:27: recovery.heal_attempts" in err


def test_problems_are_there_for_programs_too(place: Place) -> None:
    place.configure("backup: {intervall: 5m}")

    code, told = place.json("config", "check")

    assert (code, told["ok"]) == (2, False)
    assert [(p["line"], p["key_path"]) for p in told["problems"]] == [(3, "backup.intervall")]


def test_a_config_that_is_not_there_is_wrong_usage(place: Place) -> None:
    code, _, err = place.run("config", "check", "--config", "nowhere.yaml")

    assert code == 2
    assert "there is no config file nowhere.yaml" in err


def test_without_a_config_the_defaults_are_told(place: Place) -> None:
    assert main(["config", "check", "--json"]) == 0

    told = json.loads(place.capsys.readouterr().out)
    assert (told["keys"], told["data_dir"]) == (0, str(place.data))


def test_the_schema_accepts_what_the_loader_accepts(place: Place) -> None:
    assert main(["config", "schema"]) == 0

    schema = json.loads(place.capsys.readouterr().out)
    assert jsonschema_rs.is_valid(schema, yaml.safe_load((place.root / "agent.yaml").read_text()) | {"metrics": {}})
