from collections.abc import Iterable

from agent.core.folding import FOLDED_MIN, Fold, fold


def folded(kinds: dict[str, str], known: Iterable[str] = (), *, parts: bool = True) -> list[Fold[str]]:
    return fold(kinds, known, may_be_part=lambda _: parts)


def files(folder: str, count: int) -> list[str]:
    return [f"{folder}{number}.json" for number in range(count)]


def test_few_files_stay_by_themselves() -> None:
    kinds = dict.fromkeys(files("guilds/", FOLDED_MIN - 1), "missing")

    assert folded(kinds) == [Fold("missing", (rel,)) for rel in sorted(kinds)]


def test_folder_that_is_gone_altogether_is_one() -> None:
    rels = files("guilds/", FOLDED_MIN)

    assert folded(dict.fromkeys(rels, "missing"), ["users.json"]) == [
        Fold("missing", tuple(rels), "guilds/", is_whole=True)
    ]


def test_folder_with_other_files_is_no_whole_one() -> None:
    rels = files("guilds/", FOLDED_MIN)

    (one,) = folded(dict.fromkeys(rels, "missing"), ["guilds/well.json"])

    assert (one.folder, one.is_whole, one.rels) == ("guilds/", False, tuple(rels))


def test_kind_that_takes_a_whole_folder_stays_by_itself_in_a_part_of_one() -> None:
    kinds = dict.fromkeys(files("guilds/", FOLDED_MIN), "suspect")

    assert all(one.folder is None for one in folded(kinds, ["guilds/well.json"], parts=False))
    assert len(folded(kinds, parts=False)) == 1


def test_topmost_folder_that_is_lost_stands_for_those_in_it() -> None:
    """Of a bot with a folder for each guild no line for each guild is told."""
    kinds = dict.fromkeys([f"guilds/{number}/a.json" for number in range(FOLDED_MIN)], "missing")

    assert [one.folder for one in folded(kinds, ["users.json"])] == ["guilds/"]
    assert [one.folder for one in folded(kinds)] == [""]


def test_kinds_are_kept_apart_in_the_order_of_paths() -> None:
    kinds = dict.fromkeys(files("b/", 4), "missing") | {"b/x.json": "corrupt", "a.json": "missing"}

    assert [(one.kind, one.folder, one.rels[0]) for one in folded(kinds)] == [
        ("missing", None, "a.json"),
        ("missing", "b/", "b/0.json"),
        ("corrupt", None, "b/x.json"),
    ]
