"""How many files are gone is counted for every absence that began after the last count."""

from pathlib import Path

import pytest
from bench import USERS, Bench, document

from agent.absence import Absences

RELS = (USERS, "badges.json", "settings.json", "guilds.json")


def test_absence_that_began_before_a_count_under_way_is_not_judged_by_the_count_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    for rel in RELS:
        bench.protect(document(1), rel)
    absences = Absences(bench.ws)
    judged: list[bool] = []
    count = absences._count

    def count_beside_another_thread(root_fd: int) -> tuple[int, int]:
        if len(judged) < 1:
            judged.append(False)
            judged[0] = absences.are_mass(root_fd, gone_at)
        return count(root_fd)

    with bench.ws.data_root() as root_fd:
        assert not absences.are_mass(root_fd, bench.clock.monotonic())
        bench.clock.advance(0.1)
        gone_at = bench.clock.monotonic()
        for rel in RELS:
            (bench.data / rel).unlink()
        bench.clock.advance(0.1)
        monkeypatch.setattr(absences, "_count", count_beside_another_thread)

        assert absences.are_mass(root_fd, gone_at)
    assert judged == [True]
