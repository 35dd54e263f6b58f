"""YAML text becomes a tree of nodes with places, within limits; every finding about it is a `ConfigProblem`.

Scalars follow the core schema of YAML 1.2, as editors do: `off`, `no`, `012` and `5:30` are text, not surprises.
"""

import re
from collections.abc import Iterable, Mapping

import yaml
from msgspec import Struct
from yaml.composer import Composer, ComposerError
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from agent.config.units import UnfitError
from agent.core.errors import ConfigError

SIZE_MAX_BYTES = 1024 * 1024
DEPTH_MAX = 100
NODES_MAX = 100_000  # after aliases are followed
_PART_MAX = 400  # characters of one part of a problem's line

_TAG = "tag:yaml.org,2002:"
NULL, BOOL, INT, FLOAT, STR = (_TAG + kind for kind in ("null", "bool", "int", "float", "str"))
_TAGS = {NULL, BOOL, INT, FLOAT, STR, _TAG + "map", _TAG + "seq"}


class ConfigProblem(Struct, frozen=True):
    """One thing that keeps the config from being used; `line` and `column` count from 1."""

    file: str | None  # None: given on the command line
    line: int | None
    column: int | None
    key_path: str  # `files[2].path`; empty for the document
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """One line, whatever the file holds."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = ": ".join(_shortened(part) for part in (place, self.key_path, self.message) if part)
        line = f"{text} ({self.hint})" if self.hint else text
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def _shortened(text: str) -> str:
    return text if len(text) <= _PART_MAX else f"{text[:_PART_MAX]}..."


class InvalidConfigError(ConfigError):
    """The config has `problems`; nothing was changed."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(str(problem) for problem in self.problems),
            hint="correct every line above, then try it with `backup-agent config check`",
        )


def compose(content: bytes, *, file: str) -> yaml.Node | None:
    """Return the root of the one document in `content`; None when it holds nothing but comments.

    Raises:
        InvalidConfigError: not YAML, not UTF-8, or beyond the limits of size, depth and alias expansion.
    """

    def stop(message: str, hint: str = "", line: int | None = None, column: int | None = None) -> InvalidConfigError:
        return InvalidConfigError([ConfigProblem(file, line, column, "", message, hint)])

    if len(content) > SIZE_MAX_BYTES:
        raise stop(f"is {len(content)} bytes long", f"at most {SIZE_MAX_BYTES} bytes are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise stop("is not UTF-8 text", "save it as UTF-8", line, 1) from error
    try:
        node = _Loader(text).get_single_node()
        return None if node is None or node.tag == NULL else node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        message = " ".join(filter(None, (error.context, error.problem)))
        at = (mark.line + 1, mark.column + 1) if mark else ()
        raise stop(message, hint, *at) from error
    except ReaderError as error:
        before = text[: error.position]
        column = error.position - before.rfind("\n")
        raise stop("holds a control character", "remove it", before.count("\n") + 1, column) from error


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's composer with limits; it builds no objects."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._open = 0
        self._weights: dict[int, tuple[int, int]] = {}  # of each finished node: nodes below it, levels below it

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        mark = event.start_mark
        self._open += 1
        if self._open > DEPTH_MAX:
            raise ComposerError(None, None, f"is nested more than {DEPTH_MAX} levels deep", mark)
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]  # as the stub has it
        self._open -= 1
        assert node is not None
        if node.tag not in _TAGS:
            raise ComposerError(None, None, f"the tag {node.tag} means nothing here", mark)
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._weights:
                raise ComposerError(None, None, f"the alias *{event.anchor} lies within itself", mark)
        else:
            self._weights[id(node)] = self._weigh(node, mark)
        return node

    def _weigh(self, node: yaml.Node, mark: yaml.Mark) -> tuple[int, int]:
        weights = [self._weights[id(child)] for child in _children(node)]
        nodes = 1 + sum(nodes for nodes, _ in weights)
        levels = 1 + max((levels for _, levels in weights), default=0)
        if nodes > NODES_MAX or levels > DEPTH_MAX:
            raise ComposerError(None, None, f"holds more than {NODES_MAX} values or {DEPTH_MAX} levels", mark)
        return nodes, levels


for _tag, _form, _first in (
    (NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_form})$"), _first)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [side for pair in node.value for side in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` with `${VAR}` and `${VAR:-default}` filled in, and `$${` as a plain `${`.

    Raises:
        UnfitError: a variable is not set and has no default, or `${` is followed by something else.
    """
    unset: list[str] = []

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if not match["name"]:
            raise UnfitError(
                "`${` begins no variable", hint="write ${NAME}, ${NAME:-default}, or $${ for the characters themselves"
            )
        value = environ.get(match["name"])
        if value is None and match["default"] is None:
            unset.append(match["name"])
        return value or match["default"] or ""

    filled = re.sub(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?", fill, text)
    if unset:
        raise UnfitError(
            f"the environment has no {', '.join(unset)}", hint=f"set it, or write ${{{unset[0]}:-default}}"
        )
    return filled
