"""Kill the agent at every system call that touches its folders: `python tests/torture/kill_everywhere.py`.

Each operation is run once per call, with SIGKILL at that call; then the agent is started again, and `invariants.py`
judges what is there.  With --distinct only the calls right after one that changes the disk are struck: a kill at any
other leaves what the kill before it left.  One line per operation, and a summary; the exit code is 1 when a promise was
broken and 2 when the time limit cut the walk short.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from calls import Blow, Strike
from scene import Scene
from syscalls import Ended
from walk import walk_from_command_line

_BEYOND = 5  # threads make runs differ by some calls


def blows(clean: Ended) -> Sequence[Blow]:
    return [Blow(Strike.KILL, at) for at in range(1, len(clean.calls) + 1 + _BEYOND)]


def distinct(clean: Ended) -> Sequence[Blow]:
    return [b for b in blows(clean) if not 2 <= b.at <= len(clean.calls) or clean.calls[b.at - 2].changes_the_disk]


def judge(scene: Scene, _blow: Blow, ended: Ended) -> list[str]:
    """What is broken after a kill, after the start that follows, and in a heal after that."""
    if ended.struck is None and ended.code not in scene.operation.ends:
        return [f"not struck, and ended with {ended.code}: {scene.place.said[-300:]}"]
    return [*scene.at_once(), *scene.after_a_start(), *scene.drill()]


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--distinct"]
    points = distinct if "--distinct" in sys.argv else blows
    sys.exit(walk_from_command_line(__doc__, "killed", points, judge, words))
