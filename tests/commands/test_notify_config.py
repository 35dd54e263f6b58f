"""`notify` in a config, as a person meets it: tried by `config check`, and heard by a real daemon."""

import json
import sys

import pytest
from place import USERS, Place

TELLS = f"notify: {{command: [{sys.executable}, -c, \"import sys; open('told', 'a').write(sys.stdin.read())\"], events: [%s]}}"


def test_the_command_hears_of_a_heal_of_the_daemon(place: Place) -> None:
    place.configure(TELLS % "healed")
    told = place.root / "told"
    with place.daemon():
        place.wait(place.snapshots)
        place.write("users.json", b"{")
        place.wait(lambda: told.exists() and told.read_text().endswith("\n"))

    message = json.loads(told.read_text().splitlines()[0])
    assert (message["event"], message["file"]) == ("healed", "users.json")
    assert "restored from users_backup_" in message["text"]
    assert place.read("users.json") == USERS


@pytest.mark.parametrize("url", ["nonsense", "nonsense://${SECRET}"])
def test_config_check_tells_an_unusable_address_by_its_place(
    place: Place, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    place.configure(f'notify: {{urls: ["json://127.0.0.1/", "{url}"]}}')

    code, out, err = place.run("config", "check")

    assert code == 2
    assert "notify.urls[1]" in err
    assert "s3cret" not in out + err


def test_config_check_takes_what_can_be_used(place: Place) -> None:
    place.configure(TELLS % "damaged")

    assert place.run("config", "check")[0] == 0


@pytest.mark.parametrize("wrong", ["events: [burnt]", "command: []", "urls: nonsense", "min_interval: soon"])
def test_what_is_malformed_is_refused(place: Place, wrong: str) -> None:
    place.configure(f"notify: {{{wrong}}}")

    code, _, err = place.run("config", "check")

    assert code == 2
    assert f"notify.{wrong.split(':')[0]}" in err
