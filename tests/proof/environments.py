"""Hostile surroundings, one after the other: `python tests/proof/environments.py [-k WORD]`.

Every case runs the real agent on real folders and prints one line; the exit code is 1 when one of them fails.
Cases that mount or change the owner need root and are told as skipped without it.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import env_catalog  # noqa: F401  # its cases
import env_disks  # noqa: F401  # its cases
import env_folders  # noqa: F401  # its cases
import env_heals  # noqa: F401  # its cases
import env_names  # noqa: F401  # its cases
import env_rights  # noqa: F401  # its cases
import env_signals  # noqa: F401  # its cases
from rig import Place
from scene import CASES, Scene


def run_case(name: str, run: Callable[[Scene], None], parent: Path | None, *, keep: bool) -> str:
    """Return '' when the case holds, else what is wrong."""
    with Place.scratch(parent, keep=keep) as place:
        try:
            run(Scene(place, set()))
        except Exception:
            return traceback.format_exc(limit=-2)
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="WORD", default="", help="only the cases whose name holds WORD")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    args = parser.parse_args(arguments)
    failed = ran = 0
    with tempfile.TemporaryDirectory(prefix="environments-") as parent:
        for name, run, root in CASES:
            if args.k not in name:
                continue
            if root and os.geteuid() != 0:
                print(f"skip {name}: needs root", flush=True)
                continue
            began = time.monotonic()
            wrong = run_case(name, run, None if args.keep else Path(parent), keep=args.keep)
            ran += 1
            failed += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok  '} {name} ({time.monotonic() - began:.1f} s)", flush=True)
            if wrong:
                print(wrong, flush=True)
    print(f"{ran - failed} of {ran} cases hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
