"""Which paths are data files: globs over `rel` paths, the files named outright, and the folders that are our own.

Everything here works on text alone.  A `rel` may hold any character a Linux path can, newlines and surrogate escapes
included, so every wildcard matches those too.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

from agent.core.copies import COPY_MARK, is_dated_copy
from agent.core.naming import TEMP_SUFFIX, is_temp_name

_WILDCARD = re.compile(r"[*?\[]")
_ENDING = re.compile(r"\*\*/\*[^*?\[/]+")
_TOKEN = re.compile(r"(?P<stars>\*+)|\[(?P<other>!?)(?P<set>\][^\]]*|[^\]]+)\]|.", re.DOTALL)


def is_glob(path: str) -> bool:
    """Say whether `path` has wildcards; `[*]`, `[?]` and `[[]` stand for the characters themselves."""
    return _WILDCARD.search(path) is not None


def normal(path: str) -> str:
    """Return `path` as a `rel` is spelled: without `./`, doubled slashes and a final slash."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def compile_globs(patterns: Iterable[str], *, whole_folders: bool = False) -> re.Pattern[str]:
    """Return one expression for `fullmatch` that any of `patterns` satisfies; none of them: it never matches.

    `*` and `?` stay within one part of a path, `[a-z]` and `[!a-z]` are one character, `**` as a whole part is any
    number of folders, and at the end everything below.  With `whole_folders` a pattern that matches a folder
    matches everything in it as well.
    """
    tail = "(?:/.*)?" if whole_folders else ""
    ways = [_translate(normal(pattern)) + tail for pattern in patterns]
    return re.compile("|".join(ways) if ways else r"(?!)", re.DOTALL)


def _translate(pattern: str) -> str:
    parts = pattern.split("/")
    regex = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            if last:
                regex += ".+"
            elif index == 0 or parts[index - 1] != "**":  # a second one in a row adds nothing but backtracking
                regex += "(?:[^/]+/)*"
        else:
            regex += _translate_part(part) + ("" if last else "/")
    return regex


def _translate_part(part: str) -> str:
    if not part.strip("*"):
        return "[^/]+"
    runs = [""]  # what stands between the stars
    for token in _TOKEN.finditer(part):
        if token["stars"]:
            runs.append("")
        elif token["set"]:
            inside = re.sub(r"([\\\[\]&~|^])", r"\\\1", token["set"])
            runs[-1] += f"(?!/)[{'^' if token['other'] else ''}{inside}]"
        else:
            runs[-1] += "[^/]" if token[0] == "?" else re.escape(token[0])
    if len(runs) == 1:
        return runs[0]
    first, *middle, last = runs
    # Each run may settle for its first match, only the last is bound to the end: atomic, so never exponential.
    return first + "".join(f"(?>[^/]*?{run})" for run in middle) + f"[^/]*{last}"


def is_reserved(rel: str, folders: tuple[str, ...]) -> bool:
    """Say whether `rel` is one of our own temporary files, or lies in one of our own `folders` (a slash ends each)."""
    return rel.startswith(folders) or is_temp_name(rel)


class Selection:
    """The answer to "is this a data file?" for every path below one `data_dir`.

    `named` files are data files whatever the globs say; `required` globs count beside `include`, and `exclude` beats
    both.  Nothing in a `reserved` folder is ever one, nor a temporary file of ours, nor a copy that bears its date.
    """

    def __init__(
        self,
        *,
        include: Sequence[str],
        exclude: Sequence[str],
        required: Sequence[str],
        named: Sequence[str],
        reserved: Sequence[str],
    ) -> None:
        self.named = frozenset(named)
        wishes = [sorted(wish) for wish in (include, exclude, required, named, reserved)]
        self.fingerprint = hashlib.blake2b(repr(wishes).encode(errors="surrogatepass"), digest_size=16).digest()
        self._parents_of_named = {parent for name in named for parent in _parents(name)}
        included, excluded = compile_globs([*include, *required]), compile_globs(exclude, whole_folders=True)
        self._chosen = re.compile(rf"(?!(?:{excluded.pattern})\Z)(?:{included.pattern})", re.DOTALL).fullmatch
        # `logs/**` does not match the folder `logs`, and yet there is nothing to be found in it.
        self._emptied = compile_globs([e.removesuffix("/**") for e in exclude], whole_folders=True).fullmatch
        self._reserved = tuple(f"{folder}/" for folder in reserved)
        # `**/*.json` asks for the end of a name alone, which is told in half the time.  Not of our own temporary files.
        endings = [] if exclude else [p.removeprefix("**/*") for p in include if _ENDING.fullmatch(p)]
        self._endings = tuple(e for e in endings if not (e.endswith(TEMP_SUFFIX) or TEMP_SUFFIX.endswith(e)))

    def is_data_file(self, rel: str) -> bool:
        """Say whether the file at `rel` is looked after.  A walk asks this of every file there is."""
        if rel.endswith(self._endings) and COPY_MARK not in rel and not rel.startswith(self._reserved):
            return True
        if self._chosen(rel) is None or (COPY_MARK in rel and is_dated_copy(rel)):
            return rel in self.named and not is_reserved(rel, self._reserved)
        return not rel.startswith(self._reserved) and not (rel.endswith(TEMP_SUFFIX) and is_temp_name(rel))

    def may_hold_data_files(self, rel_dir: str) -> bool:
        """Say whether a walk has to enter the folder at `rel_dir`; False spares it all that lies below."""
        if is_reserved(f"{rel_dir}/", self._reserved):
            return False
        return rel_dir in self._parents_of_named or self._emptied(rel_dir) is None


def _parents(rel: str) -> list[str]:
    parts = rel.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
