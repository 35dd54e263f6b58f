"""What the model says about one setting, taken apart for the reader, the editor's schema and people."""

import enum
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo

from agent.config.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

_UNITS: dict[str | None, tuple[Any, Any, str]] = {
    "duration": (parse_duration, format_duration, DURATION_PATTERN),
    "size": (parse_size, format_size, SIZE_PATTERN),
    None: (str, str, ""),
}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def fields_of(section: type[Struct]) -> dict[str, FieldInfo]:
    """Return the fields of a section by their key in the file."""
    return {info.encode_name: info for info in msgspec.structs.fields(section)}


class Kind(Struct, frozen=True):
    """The type of one setting: what may be written, and how it is read and shown."""

    type: Any  # without Annotated and None
    optional: bool
    metas: tuple[Meta, ...]

    @classmethod
    def of(cls, annotation: Any) -> "Kind":
        """Take an annotation of the model apart."""
        metas: list[Meta] = []
        optional = False
        while True:
            origin, args = get_origin(annotation), get_args(annotation)
            if origin is Annotated:
                metas.extend(annotation.__metadata__)
                annotation = annotation.__origin__
            elif origin in (Union, types.UnionType) and type(None) in args:
                optional = True
                annotation = Union[tuple(part for part in args if part is not type(None))]  # noqa: UP007  # of a tuple
            else:
                return cls(annotation, optional, tuple(metas))

    @property
    def section(self) -> type[Struct] | None:
        """The section, where one stands."""
        return self.type if isinstance(self.type, type) and issubclass(self.type, Struct) else None

    @property
    def item(self) -> Any:
        """The annotation of the items, where a list stands."""
        return get_args(self.type)[0] if get_origin(self.type) is tuple else None

    @property
    def takes_mapping(self) -> bool:
        """Whether any mapping may stand here as it is."""
        return any(get_origin(part) is dict for part in get_args(self.type))

    @property
    def may_be_empty(self) -> bool:
        return not any(meta.min_length for meta in self.metas)

    @property
    def unit(self) -> str | None:
        """`duration` or `size`, where the number is written with a unit."""
        return self._extra("unit")

    @property
    def unset_word(self) -> str | None:
        """The word that stands for None."""
        return self._extra("unset")

    @property
    def choices(self) -> tuple[str, ...]:
        """The words to choose from, where there are such."""
        if isinstance(self.type, type) and issubclass(self.type, enum.Enum):
            return tuple(member.value for member in self.type)
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def limited(self) -> Any:
        """The type with its limits, for `msgspec.convert`."""
        return Annotated[(self.type, *self.metas)] if self.metas else self.type

    @property
    def pattern(self) -> str:
        """The form of the text, where the number is written with a unit."""
        return _UNITS[self.unit][2]

    def parse(self, text: str) -> Any:
        """Return the number a text with a unit means; other text as it is.

        Raises:
            UnfitError: not a quantity of this unit.
        """
        return _UNITS[self.unit][0](text)

    def show(self, value: Any) -> str:
        """Return `value` as it is written in the file."""
        return str(self.unset_word) if value is None else str(_UNITS[self.unit][1](value))

    def expected(self) -> str:
        """Say in words what fits."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = [f"a {self.unit}" if self.unit else _NAMES.get(self.type, "text")]
        words += [f"at least {self.show(meta.ge)}" for meta in self.metas if meta.ge is not None]
        words += [f"at most {self.show(meta.le)}" for meta in self.metas if meta.le is not None]
        words += ["not empty" for meta in self.metas if meta.min_length]
        return ", ".join(words) + (f", or {self.unset_word}" if self.unset_word else "")

    def _extra(self, key: str) -> str | None:
        return next((meta.extra[key] for meta in self.metas if meta.extra and key in meta.extra), None)


def key_paths(section: type[Struct], prefix: str = "") -> list[str]:
    """Return the path of every key below a section: `watch.debounce`, `files[].path`."""
    paths = []
    for key, info in fields_of(section).items():
        kind = Kind.of(info.type)
        item = Kind.of(kind.item) if kind.item else kind
        paths.append(prefix + key)
        if item.section:
            paths += key_paths(item.section, f"{prefix}{key}{'[]' if kind.item else ''}.")
    return paths
