"""No regular expression falls into the trap of Python before 3.11.5 (Debian 12 has 3.11.2).

A possessive group there keeps what its last, failed round had taken (gh-106052): of `(?:ab|ac+d)*+` the `ac` of a round
that failed at its `d`.  A single character, a class, or an atomic group inside cannot be half taken.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

import agent
from agent.core import json_text

sre = pytest.importorskip("re._parser")
WHOLE = {"LITERAL", "NOT_LITERAL", "IN", "ANY", "ATOMIC_GROUP"}


def modules() -> list[str]:
    return [info.name for info in pkgutil.walk_packages(agent.__path__, "agent.") if ".commands" not in info.name]


def patterns_of(value: object) -> Iterator[re.Pattern[Any]]:
    value = getattr(value, "__self__", value)  # a bound method, such as `match`
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from patterns_of(inner)


def half_taken(parsed: Any) -> Iterator[str]:
    """Yield what is repeated possessively in `parsed` and may be taken by half."""
    for op, argument in parsed:
        if str(op) == "POSSESSIVE_REPEAT":
            inner = argument[2]
            if len(inner) != 1 or str(inner[0][0]) not in WHOLE:
                yield repr(inner)
        for part in argument if isinstance(argument, tuple | list) else [argument]:
            for piece in part if isinstance(part, list) else [part]:
                if isinstance(piece, sre.SubPattern):
                    yield from half_taken(piece)


@pytest.mark.parametrize("name", modules())
def test_no_possessive_group_can_be_taken_by_half(name: str) -> None:
    found = {
        pattern.pattern: list(half_taken(sre.parse(pattern.pattern, pattern.flags & ~re.DEBUG)))
        for value in vars(importlib.import_module(name)).values()
        for pattern in patterns_of(value)
    }

    assert {pattern: parts for pattern, parts in found.items() if parts} == {}


@pytest.mark.parametrize("bracket", b"{[")
def test_nor_one_of_those_that_are_made_on_need(bracket: int) -> None:
    [pattern] = patterns_of(json_text._container_member(bracket))

    assert list(half_taken(sre.parse(pattern.pattern))) == []


@pytest.mark.parametrize("text", ["(?:ab|ac+d)*+", "(?:ab)++", "x(?:(?:ab)?+)"])
def test_trap_is_noticed(text: str) -> None:
    assert list(half_taken(sre.parse(text)))


@pytest.mark.parametrize("text", ["(?:(?>ab|ac+d))*+", "[a-z]++", ".*+", "(?>ab)*"])
def test_what_is_taken_whole_or_not_at_all_is_fine(text: str) -> None:
    assert list(half_taken(sre.parse(text))) == []
