"""Hours of a bot and its agent in seconds: the pure core on a scripted clock, with a disk and a store in memory.

`model_world` is what happens to the files, `model_agent` and `model_store` the shortest possible stand-in for pipeline,
loop and store.  Each promise is checked at the moment it could break; a broken one is an AssertionError with the step
that led to it.

    python tests/torture/model.py --steps 1000000 --seed 1
"""

import argparse
import random
import time
from collections.abc import Callable
from datetime import timedelta

from model_disk import FILES, Settings
from model_world import World

from agent.core.decide import HealPolicy
from agent.core.model import Grade
from agent.core.retention import RetentionPolicy


def random_settings(dice: random.Random) -> Settings:
    wishes = ["restore", "alert"]
    debounce_s = dice.choice([0.5, 2.0, 10.0])
    return Settings(
        debounce_s,
        max(debounce_s, dice.choice([1.0, 30.0, 120.0])),
        HealPolicy(
            dice.choice(wishes), dice.choice(["repair", *wishes]), dice.choice(wishes), dice.randrange(1, 5),
            timedelta(seconds=dice.choice([5, 60, 600])),
        ),
        RetentionPolicy(
            dice.randrange(4), dice.randrange(4), timedelta(seconds=dice.choice([1, 300])), None, dice.randrange(3),
            dice.randrange(3), minimum_good=dice.randrange(1, 3),
        ),
        dice.choice([None, None, 20_000]),
    )  # fmt: skip


def random_step(world: World, dice: random.Random) -> Callable[[], None]:
    """Return the next thing that happens."""
    rel, n = dice.choice(FILES), dice.randrange(20)
    few = dice.choice([0, 1, 3, 9, 10, 11, 12])
    steps: list[tuple[int, Callable[[], None]]] = [
        (30, lambda: world.wait(dice.choice([0.01, 0.3, 1, 2, 5, 31, 45]))),
        (1, lambda: world.wait(300)),
        (14, lambda: world.write(rel, records=dice.randrange(9, 13))),
        (4, lambda: world.write(rel, records=few)),
        (8, lambda: world.write(rel, Grade.CORRUPT)),
        (3, lambda: world.write(rel, Grade.INVALID)),
        (6, lambda: world.write_again(rel, n)),
        (5, lambda: world.open_slowly(rel)),
        (6, lambda: world.close(rel)),
        (2, lambda: world.write_without_pause(rel, dice.choice([5, 90]))),
        (4, lambda: world.delete(rel)),
        (1, world.unmount),
        (2, lambda: world.step_clock(dice.choice([-86400 * 400, -3600, -1, -0.001, 1, 3600]))),
        (2, lambda: world.lose_events(dice.random() < 0.4)),
        (2, lambda: world.break_disk(dice.random() < 0.3)),
        (2, world.restart),
        (2, lambda: world.reload(random_settings(dice))),
        (2, lambda: world.pin(rel, n)),
        (2, lambda: world.accept(rel)),
        (1, lambda: world.rot(rel, n)),
    ]
    weights, choices = zip(*steps, strict=True)
    return dice.choices(choices, weights)[0]  # type: ignore[no-any-return]  # zip of two kinds of values


def run(steps: int, seed: int, *, steps_each: int = 400) -> int:
    """Take random steps in one world after the other; return how many.  A broken promise is an AssertionError."""
    done = 0
    for number in range(-(-steps // steps_each)):
        dice = random.Random(f"{seed}/{number}")
        world = World()
        for step in range(min(steps_each, steps - done)):
            try:
                random_step(world, dice)()
            except AssertionError as error:
                error.add_note(f"world {number} of seed {seed}, step {step}")
                raise
            done += 1
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    try:
        done = run(given.steps, given.seed)
    except AssertionError as error:
        print(f"BROKEN: {error} ({'; '.join(error.__notes__)})")
        return 1
    print(f"kept: {done} steps, seed {given.seed}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
