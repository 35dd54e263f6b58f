"""A document against its JSON Schema (Draft 2020-12).  The validator is imported when the first schema is used."""

import json
import math
import sys
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from agent.checks.json_warnings import json_pointer, lone_surrogate_offsets
from agent.core.model import Grade, Problem
from agent.core.problem import ProblemKind

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, ValidationError

DEPTH_MAX = 512
PROBLEMS_MAX = 20
_VALIDATORS_MAX = 64
_MESSAGE_MAX = 200
_DIGITS_MAX = 4300  # int() and the validator refuse, or ignore, longer ones
_HUGE: int = 10 ** (_DIGITS_MAX - 1)
# Their messages name keys of the data, which no mask covers.
_KEYWORDS_QUOTING_KEYS = {"additionalProperties", "unevaluatedProperties", "propertyNames"}


def schema_grade(text: bytes | memoryview, schema: Mapping[str, object]) -> tuple[Grade, tuple[Problem, ...]]:
    """Return how the readable JSON document `text` (UTF-8) fits `schema`: good, or invalid with up to 20 problems.

    Unreadable, which is never damage, stands for what cannot be decided: a schema that cannot be used, or data nested
    deeper than 512 levels, where a recursive schema would exhaust the stack.  Integers are compared exactly.
    What a validator cannot hold is replaced for the comparison: half a surrogate pair by U+FFFD, an infinite number
    by the largest finite one, NaN by 0, an integer of more than 4,300 digits by one of that length.
    """
    try:
        validator = validator_for(json.dumps(schema))
    except (ValueError, TypeError):
        return Grade.UNREADABLE, (Problem(ProblemKind.SCHEMA_UNUSABLE, "the schema cannot be used"),)
    try:
        if _plainly_valid(text, validator):
            return Grade.GOOD, ()
        data = load_replacing(text)
    except RecursionError:
        return Grade.UNREADABLE, (_too_deep(),)
    problems = tuple(_problem(error) for error in islice(validator.iter_errors(data), PROBLEMS_MAX))
    return (Grade.INVALID if problems else Grade.GOOD), problems


def _plainly_valid(text: bytes | memoryview, validator: "Draft202012Validator") -> bool:
    """Return whether the data is valid as it stands; False also where the validator cannot hold it as it stands."""
    try:
        return validator.is_valid(load_plain(text))
    except ValueError:
        return False


def load_plain(text: bytes | memoryview) -> object:
    """Return the document with infinite numbers and NaN replaced, fast.

    Raises:
        ValueError: here, or in the validator, if more must be replaced.
        RecursionError: nested deeper than 512 levels.
    """
    data = json.loads(str(text, "utf-8"), parse_float=_finite, parse_constant=_finite)
    if _is_deeper(data, DEPTH_MAX):
        raise RecursionError
    return data


@lru_cache(maxsize=_VALIDATORS_MAX)
def validator_for(schema_text: str) -> "Draft202012Validator":
    """Return the validator of a schema given as JSON text; its messages quote no values.

    Raises:
        ValueError: the schema cannot be used.
    """
    from jsonschema_rs import Draft202012Validator

    return Draft202012Validator(json.loads(schema_text), offline=True, mask="the value")


def load_replacing(text: bytes | memoryview) -> object:
    """Return the document with what a validator cannot hold replaced, as `schema_grade` tells.

    Raises:
        RecursionError: nested deeper than 512 levels.
    """
    plain = bytearray(text)
    for offset in lone_surrogate_offsets(text):
        plain[offset : offset + 6] = b"\\ufffd"
    data = json.loads(
        plain.decode("utf-8", "replace"),  # only raw halves of surrogate pairs, which Python reads, are replaced here
        parse_int=_integer,
        parse_float=_finite,
        parse_constant=_finite,
    )
    if _is_deeper(data, DEPTH_MAX):
        raise RecursionError
    return data


def _integer(digits: str) -> int:
    if len(digits) <= _DIGITS_MAX:
        return int(digits)
    return -_HUGE if digits.startswith("-") else _HUGE


def _finite(number: str) -> float:
    value = float(number)
    if math.isnan(value):
        return 0.0
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value


def _is_deeper(data: object, levels: int) -> bool:
    layer = [data]
    for _ in range(levels + 1):
        layer = [
            member
            for holder in layer
            for member in (holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ())
            if isinstance(member, dict | list)
        ]
        if not layer:
            return False
    return True


def _too_deep() -> Problem:
    return Problem(ProblemKind.NESTING, f"nested deeper than the {DEPTH_MAX} levels that a schema is applied to")


def _problem(error: "ValidationError") -> Problem:
    keyword = next((str(step) for step in reversed(error.schema_path) if isinstance(step, str)), "schema")
    quoting = _KEYWORDS_QUOTING_KEYS.intersection(map(str, error.schema_path))
    message = f"not allowed by `{keyword}`" if quoting else error.message
    if len(message) > _MESSAGE_MAX:
        message = f"not allowed by `{keyword}`"
    return Problem(ProblemKind.SCHEMA, message, pointer=json_pointer(error.instance_path))
