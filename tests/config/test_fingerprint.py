from pathlib import Path

from agent.config.fingerprint import fingerprint


def written(tmp_path: Path, schema: str = "{}") -> str:
    (tmp_path / "users.schema.json").write_text(schema)
    path = tmp_path / "agent.yaml"
    path.write_text("files: [{path: users.json, schema: ./users.schema.json}]")
    return str(path)


def test_files_that_nobody_changed_have_the_same_one(tmp_path: Path) -> None:
    path = written(tmp_path)

    assert fingerprint(path, {}) == fingerprint(path, {}) is not None


def test_edited_config_has_another_one(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = fingerprint(path, {})
    with open(path, "a") as file:
        file.write("\nwatch: {debounce: 1}")

    assert fingerprint(path, {}) != before


def test_edited_schema_makes_another_one(tmp_path: Path) -> None:
    before = fingerprint(written(tmp_path), {})

    assert fingerprint(written(tmp_path, '{"type": "object"}'), {}) != before


def test_config_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "users.schema.json").unlink()

    assert fingerprint(path, {}) is None
    assert fingerprint(str(tmp_path / "nowhere.yaml"), {}) is None
