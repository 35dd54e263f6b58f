"""Repairs, through the one-shot gate on real folders: newer valid data stays, and what was changed can be read."""

import json
from pathlib import Path

import pytest

from agent.cli import main

CONFIG = """
data_dir: ./data
watch: {debounce: 1ms}
files:
  - path: users.json
    schema:
      type: object
      additionalProperties:
        type: object
        required: [cartridge]
        properties: {cartridge: {type: integer, minimum: 0, default: 0}}
metrics: {listen: "off"}
"""


@pytest.fixture
def live(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    return tmp_path / "data/users.json"


def heal(live: Path) -> int:
    return main(["check", "--heal", "--config", f"{live.parent.parent}/config.yaml"])


def users(count: int) -> str:
    return json.dumps({f"9007199254740{n:05}": {"cartridge": 4200 + n} for n in range(count)}, indent=2) + "\n"


def test_a_broken_field_is_mended_and_newer_records_stay(live: Path) -> None:
    live.write_text(users(20))
    heal(live)
    newer = users(21)
    live.write_text(newer.replace('"cartridge": 4207', '"cartridge": null'))

    code = heal(live)

    assert code == 0
    assert live.read_text() == newer


def test_a_repair_leaves_its_patch_beside_the_original(live: Path) -> None:
    live.write_text(users(20))
    heal(live)
    live.write_text(users(20).replace('"cartridge": 4207', '"cartridge": "4207"'))

    heal(live)

    (patch,) = live.parent.glob("backups/_quarantine/*.patch")
    assert json.loads(patch.read_text()) == [{"op": "replace", "path": "/900719925474000007/cartridge", "value": 4207}]
    assert '4207"' in patch.with_name(patch.name.removesuffix(".patch")).read_text()


def test_what_cannot_be_mended_field_by_field_is_restored(live: Path) -> None:
    live.write_text(users(20))
    heal(live)
    live.write_text("[1, 2, 3]" + " " * 900)

    code = heal(live)

    assert code == 0
    assert live.read_text() == users(20)
