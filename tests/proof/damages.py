"""The proof on one file at a time: every damage is healed, nothing readable is touched, a collapse is only held.

    python tests/proof/damages.py            # all of it, against a running agent

Each case is a file of its own.  It holds a good state of 500 records that the agent has snapshotted; then a newer state,
which the agent never saw, is put there damaged.  Healed means: the last good bytes, or the newer state where the damaged
bytes hold exactly that and nothing else can be read from them; owner, group and mode as before; the damaged bytes in
quarantine.
"""

import argparse
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from damager import KINDS, over
from rig import Agent, Place, digest_of, wait_until

DEBOUNCE_S = 0.2
OWNER, MODE = 1234, 0o640
LIMIT_S = 15.0
FURTHER_WRITES = 50
PARSERS = ("strict", "node", "python")


def good_state(seed: int, records: int = 500, **more: object) -> bytes:
    """Return one state of a bot's users.json; the same seed has the same ids in every state."""
    dice = random.Random(seed)
    users: dict[str, object] = {}
    for n in range(records):
        items = [
            {"id": dice.choice(["potion", "rope", "map"]), "count": dice.randrange(99)}
            for _ in range(dice.randrange(1, 4))
        ]
        inventory = {"gold": dice.randrange(5000), "items": items}
        users[str(176496171100000000 + n)] = {
            "name": f"Zoë {n}",
            "cartridge": dice.randrange(10**6),
            "inventory": inventory,
        }
    return json.dumps(users | more, indent=1, ensure_ascii=False).encode()


OLD, NEW = good_state(1), good_state(2)
LONGER = good_state(3, records=520)


def with_text(text: str) -> bytes:
    """Return the newer state with one more record whose value is this JSON text, as it stands."""
    return NEW[:-2] + b',\n "extra": ' + text.encode() + b"\n}"


def conflict() -> bytes:
    middle = NEW.index(b"\n", len(NEW) // 2) + 1
    ours, theirs = NEW[middle : middle + 200], OLD[middle : middle + 200]
    markers = b"<<<<<<< HEAD\n" + ours + b"\n=======\n" + theirs + b"\n>>>>>>> main\n"
    return NEW[:middle] + markers + NEW[middle + 200 :]


def cases_healed() -> Mapping[str, tuple[bytes, Sequence[bytes]]]:
    """Return what is put there, and which bytes a heal may leave."""
    dice = random.Random(7)
    last_good, either, reading = [OLD], [OLD, NEW], [NEW]
    cut = {f"cut_at_random_{n}": (NEW[: dice.randrange(1, len(NEW))], last_good) for n in range(5)}
    return cut | {
        "empty": (b"", last_good),
        "cut_at_4096": (NEW[:4096], last_good),
        "cut_at_8192": (NEW[:8192], last_good),
        "cut_last_byte": (NEW[:-1], last_good),
        "all_nul": (bytes(len(NEW)), last_good),
        "nul_block": (over(NEW, 4096, bytes(4096)), last_good),
        "nul_padding": (NEW + bytes(4096), reading),
        "second_document": (NEW + NEW, either),
        "second_other_document": (NEW + OLD, either),
        "older_tail": (NEW + LONGER[len(NEW) :], reading),
        "invalid_utf8": (NEW.replace("ë".encode(), b"\xff\xfe", 1), last_good),
        "invalid_utf8_in_structure": (over(NEW, 5000, b"\xff\xfe\xc3\x28"), last_good),
        "conflict_markers": (conflict(), last_good),
        "undefined": (b"undefined", last_good),
        "object_object": (b"[object Object]", last_good),
        "bom": (b"\xef\xbb\xbf" + NEW, reading),
        "utf16": (NEW.decode().encode("utf-16"), reading),
        "open_brackets": (b"[" * 100_000, last_good),
        "garbage": (KINDS["garbage"](NEW, OLD, dice), last_good),
    }


READABLE = {
    "lone_surrogate": with_text('"\\ud800"'),
    "big_integer": with_text("123456789012345678901234567890"),
    "duplicate_key": with_text('1,\n "extra": 2'),
    "infinite_double": with_text("1e400"),
    "long_integer": with_text("7" * 5000),
    "deep_nesting": with_text("[" * 5000 + "]" * 5000),
}
COLLAPSED = {
    "emptied_object": b"{}",
    "emptied_array": b"[]",
    "null": b"null",
    "two_thirds_gone": good_state(2, records=166),
}
NOT_DAMAGE_TO = {
    "node": {"invalid_utf8"},
    "python": {"bom", "utf16"},
}  # Node reads it with U+FFFD and then writes the loss: suspect
PYTHON_REJECTS = {"long_integer"}  # more than 4,300 digits; so a bot in Python could not have written or read it


@dataclass(frozen=True)
class Case:
    group: str
    parser: str
    kind: str
    state: bytes
    wanted: Sequence[bytes] = ()

    @property
    def stem(self) -> str:
        return f"{self.parser}-{self.group}-{self.kind}"


def all_cases(parsers: Sequence[str]) -> list[Case]:
    cases = []
    for parser in parsers:
        healed = {kind: it for kind, it in cases_healed().items() if kind not in NOT_DAMAGE_TO.get(parser, ())}
        cases += [Case("healed", parser, kind, state, wanted) for kind, (state, wanted) in healed.items()]
        readable = {kind: it for kind, it in READABLE.items() if parser != "python" or kind not in PYTHON_REJECTS}
        cases += [Case("untouched", parser, kind, state) for kind, state in readable.items()]
        cases += [Case("held", parser, kind, state) for kind, state in COLLAPSED.items()]
    if "node" in parsers:
        cases += [Case("held", "node", kind, cases_healed()[kind][0]) for kind in sorted(NOT_DAMAGE_TO["node"])]
    if "python" in parsers:
        cases += [
            Case("untouched", "python", kind, cases_healed()[kind][0]) for kind in sorted(NOT_DAMAGE_TO["python"])
        ]
    return cases


@dataclass
class Trial:
    """One agent, one file for each case; every method returns what is wrong, by case."""

    place: Place
    agent: Agent
    cases: Sequence[Case]

    def put(self, case: Case, state: bytes) -> None:
        """Write in place, as most bots do; the file keeps its owner and mode."""
        (self.place.data / f"{case.stem}.json").write_bytes(state)

    def live(self, case: Case) -> bytes:
        return (self.place.data / f"{case.stem}.json").read_bytes()

    def begin(self) -> None:
        """Write the good states with their owner and mode, and wait until each is snapshotted."""
        for case in self.cases:
            self.put(case, OLD)
            path = self.place.data / f"{case.stem}.json"
            path.chmod(MODE)
            if os.geteuid() == 0:
                os.chown(path, OWNER, OWNER)

    def outcomes(self, further_writes: int) -> dict[str, str]:
        """Damage everything at once, wait, and return '' or a complaint for each case."""
        kept = wait_until(
            lambda: all(self.place.copies(stem=case.stem) for case in self.cases), limit_s=60, every_s=0.1
        )
        if not kept:
            return {
                case.stem: "its good state was not snapshotted"
                for case in self.cases
                if not self.place.copies(stem=case.stem)
            }
        for case in self.cases:
            self.put(case, case.state)
        results = {case.stem: self.judged(case) for case in self.cases}
        held = [case for case in self.cases if case.group == "held"]
        for n in range(further_writes if held else 0):
            for case in held:
                self.put(case, json.dumps({str(n): {"name": "new"} for n in range(n % 7)} | {"n": n}).encode())
            time.sleep(DEBOUNCE_S * 1.5)
        for case in held:
            if digest_of(OLD) not in self.place.digests(stem=case.stem):
                results[case.stem] += f" the good snapshot is gone after {further_writes} further writes"
        return results

    def judged(self, case: Case) -> str:
        judge: Callable[[Case], str] = {"healed": self.healed, "untouched": self.untouched, "held": self.held}[
            case.group
        ]
        complaint = ""

        def content() -> bool:
            nonlocal complaint
            complaint = judge(case)
            return not complaint

        wait_until(content, limit_s=LIMIT_S, every_s=0.05)
        return complaint

    def healed(self, case: Case) -> str:
        live = self.live(case)
        if live not in case.wanted:
            return "not healed" if live == case.state else f"healed to something else ({len(live)} bytes)"
        return self.owner_complaint(case) or self.quarantine_complaint(case)

    def owner_complaint(self, case: Case) -> str:
        status = (self.place.data / f"{case.stem}.json").stat()
        owner = OWNER if os.geteuid() == 0 else os.geteuid()
        if (status.st_uid, status.st_mode & 0o777) != (owner, MODE):
            return f"owner {status.st_uid}, mode {status.st_mode & 0o777:o}"
        return ""

    def quarantine_complaint(self, case: Case) -> str:
        kept = digest_of(case.state) in self.place.digests("quarantined", case.stem)
        return "" if kept else "its damaged bytes are not in quarantine"

    def untouched(self, case: Case) -> str:
        if self.live(case) != case.state:
            return "was changed"
        return "" if digest_of(case.state) in self.place.digests(stem=case.stem) else "is not a good snapshot"

    def held(self, case: Case) -> str:
        if self.live(case) != case.state:
            return "was changed"
        if digest_of(case.state) not in self.place.digests("suspect", case.stem):
            return "is not held as suspect"
        return "" if digest_of(OLD) in self.place.digests(stem=case.stem) else "the good snapshot is gone"


def node_reads(state: bytes) -> bool:
    """Return whether Node's own parser reads these bytes, as a bot would read its file."""
    program = "JSON.parse(require('fs').readFileSync(0, 'utf8'))"
    return subprocess.run(["node", "-e", program], input=state, capture_output=True, check=False).returncode == 0


def run(parsers: Sequence[str] = PARSERS, further_writes: int = FURTHER_WRITES) -> dict[str, str]:
    """Return a complaint, or '', for each case by its name."""
    cases = all_cases(parsers)
    with Place.scratch() as place:
        files = [{"path": f"{parser}-*.json", "parser": parser} for parser in parsers]
        port = place.configure(debounce_s=DEBOUNCE_S, files=files)
        with Agent(place, port) as agent:
            agent.ready()
            trial = Trial(place, agent, cases)
            trial.begin()
            return trial.outcomes(further_writes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parser", choices=PARSERS, action="append", help="only for a bot of this kind; may be repeated"
    )
    parser.add_argument("--further-writes", type=int, default=FURTHER_WRITES)
    given = parser.parse_args()
    strangers = [kind for kind, state in READABLE.items() if not node_reads(state)]
    assert not strangers, f"Node does not read {strangers}"
    results = run(given.parser or PARSERS, given.further_writes)
    for name, complaint in results.items():
        print(f"{name:<44} {complaint or 'as promised'}")
    broken = sum(bool(complaint) for complaint in results.values())
    print(f"{len(results) - broken} of {len(results)} as promised")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
