"""Nodes become settings: one walk, led by the types of the model, that goes on after every problem it finds."""

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import UNSET, Struct

from agent.config.kind import Kind, fields_of, key_paths
from agent.config.source import BOOL, FLOAT, INT, NULL, ConfigProblem, expand
from agent.config.units import UnfitError

_S = TypeVar("_S", bound=Struct)


def below(at: str, step: str | int) -> str:
    """Return the key path of an entry of the mapping, or an item of the list, at `at`."""
    return f"{at}[{step}]" if isinstance(step, int) else f"{at}.{step}".removeprefix(".")


class NodeReader:
    """Reads sections of the model out of nodes; keeps the problems, and the node of every key path it has seen."""

    def __init__(self, *, file: str | None, environ: Mapping[str, str]) -> None:
        self.problems: list[ConfigProblem] = []
        self.nodes: dict[str, yaml.Node] = {}
        self.kept: dict[str, list[int]] = {}  # by the key path of a list: which of its items could be read
        self._known: list[str] = []
        self._file = file
        self._environ = environ

    def complain(self, key_path: str, message: str, hint: str = "", *, node: yaml.Node | None = None) -> None:
        """Keep a problem, at `node` or else at what was read last on the way to `key_path`."""
        nearest = key_path
        while nearest and nearest not in self.nodes:
            nearest = nearest[: max(nearest.rfind("."), nearest.rfind("["), 0)]
        node = node or self.nodes.get(nearest)
        line, column = (node.start_mark.line + 1, node.start_mark.column + 1) if node else (None, None)
        self.problems.append(ConfigProblem(self._file, line, column, key_path, message, hint))

    def read(self, section: type[_S], node: yaml.Node, at: str = "") -> _S | None:
        """Return the settings of `node`, with the default where there was a problem; None if that leaves no whole."""
        self.nodes[at] = node
        if not isinstance(node, yaml.MappingNode):
            self.complain(at, f"expected keys with values, got {_what(node)}", "indent them below, or remove the key")
            return None
        fields = fields_of(section)
        self._known = self._known or key_paths(section)
        values: dict[str, Any] = {}
        seen: set[str] = set()
        for key, key_node, child in self._entries(node, at):
            seen.add(key)
            path = below(at, key)
            if key not in fields:
                self.complain(path, "unknown key", self._suggestion(key, section), node=key_node)
                continue
            value = self._value(Kind.of(fields[key].type), child, path)
            if value is not UNSET:
                values[fields[key].name] = value
        required = {key: info.name for key, info in fields.items() if info.required}
        for key in required.keys() - seen:
            self.complain(at, f"`{key}` is missing", f"{' and '.join(required)} must be there")
        return section(**values) if values.keys() >= set(required.values()) else None

    def _value(self, kind: Kind, node: yaml.Node, at: str) -> Any:
        """Return what `node` says; UNSET after a complaint."""
        self.nodes[at] = node
        try:
            if kind.optional and node.tag == NULL:
                return None
            if kind.section:
                section = self.read(kind.section, node, at)
                return UNSET if section is None else section
            if kind.item:
                return self._list(kind, node, at)
            if isinstance(node, yaml.MappingNode) and kind.takes_mapping:
                return self.plain(node, at)
            return self._scalar(kind, node)
        except UnfitError as error:
            self.complain(at, str(error), error.hint)
            return UNSET

    def _list(self, kind: Kind, node: yaml.Node, at: str) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            raise UnfitError(
                f"expected a list, got {_what(node)}", hint="write [one, two], or `- one` on a line of its own"
            )
        item = Kind.of(kind.item)
        values = [self._value(item, child, below(at, index)) for index, child in enumerate(node.value)]
        if not values and not kind.may_be_empty:
            raise UnfitError("is empty", hint="give it at least one value")
        self.kept[at] = [index for index, value in enumerate(values) if value is not UNSET]
        return tuple(values[index] for index in self.kept[at])

    def _scalar(self, kind: Kind, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.tag == NULL:
            raise UnfitError(
                f"expected {kind.expected()}, got {_what(node)}", hint="give it a value, or remove the key"
            )
        text = expand(node.value, self._environ)
        if "\0" in text:
            raise UnfitError("holds a NUL character", hint="remove it")
        if kind.unset_word and text == kind.unset_word:
            return None
        value: Any = math.nan  # which no setting may be
        try:
            value = msgspec.convert(kind.parse(text), kind.limited, strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError):  # the latter where no choice can hold a lone surrogate
            pass
        except UnfitError:
            if text == node.value:
                raise
        if isinstance(value, float) and not math.isfinite(value):
            # Shown as it stands in the file: what the environment filled in may be a secret.
            close = difflib.get_close_matches(text, kind.choices, 1)
            hint = f"did you mean {close[0]}?" if close else ""
            raise UnfitError(f"expected {kind.expected()}, got `{node.value}`", hint=hint)
        return value

    def plain(self, node: yaml.Node, at: str) -> Any:
        """Return the JSON value of a node: the content of a schema, in which nothing is filled in."""
        self.nodes[at] = node
        if isinstance(node, yaml.MappingNode):
            return {key: self.plain(child, below(at, key)) for key, _, child in self._entries(node, at)}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, below(at, index)) for index, child in enumerate(node.value)]
        try:
            return _JSON_VALUES.get(node.tag, str)(node.value)
        except ValueError:
            self.complain(at, f"`{node.value[:40]}` is not the number it should be")
            return None

    def _entries(self, node: yaml.MappingNode, at: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Yield each key once, with its own node and that of its value; complain about what cannot be a key."""
        first: dict[str, yaml.Node] = {}
        for key_node, child in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self.complain(at, f"{_what(key_node)} cannot be a key", "quote it, if it is text", node=key_node)
            elif key == "<<":
                self.complain(at, "merge keys (<<) are not supported", "write the keys out", node=key_node)
            elif key in first:
                line = first[key].start_mark.line + 1
                path = below(at, key)
                self.complain(path, f"is given twice, first on line {line}", "remove one of the two", node=key_node)
            else:
                first[key] = key_node
                yield key, key_node, child

    def _suggestion(self, key: str, section: type[Struct]) -> str:
        """Return where a key of this name belongs, or which key of `section` may have been meant."""
        elsewhere = [path for path in self._known if path.rpartition(".")[2] == key]
        if elsewhere:
            return f"it belongs at {elsewhere[0]}"
        close = difflib.get_close_matches(key, fields_of(section), 1)
        return f"did you mean {close[0]}?" if close else f"known here: {', '.join(fields_of(section))}"


_JSON_VALUES: dict[str, Any] = {NULL: lambda _: None, BOOL: lambda text: text.lower() == "true", INT: int, FLOAT: float}


def _what(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "keys with values"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if node.tag == NULL else f"`{node.value}`"
