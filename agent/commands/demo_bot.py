"""The bot of `backup-agent demo`: told `play` it reads users.json, adds one user and saves; told `look` it only reads.

A process of its own, started with the path of the file.  It saves in place, as most bots do, and answers one line:
what it read or saved, or that it cannot read its file.
"""

import json
import sys

_FIRST_USERS = 200


def main(path: str) -> None:
    """Write a first file, then serve until standard input ends."""
    _save(path, {str(number): _user(number) for number in range(1, _FIRST_USERS + 1)})
    for line in sys.stdin:
        try:
            with open(path, encoding="utf-8") as stream:
                users = json.load(stream)
        except ValueError as error:
            print(f"cannot read users.json: {error}", flush=True)
            continue
        if line.strip() == "look":
            print(f"read users.json: {len(users)} users", flush=True)
            continue
        number = max(map(int, users), default=0) + 1
        users[str(number)] = _user(number)
        _save(path, users)


def _user(number: int) -> dict[str, object]:
    return {"name": f"player {number}", "coins": number * 37 % 1000, "cartridge": number % 6}


def _save(path: str, users: dict[str, dict[str, object]]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(users, stream, indent=2)
    print(f"saved users.json: {len(users)} users", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
