"""The directions of docs/design.md, read from the source: who may import whom, rename, wait, log, catch everything."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

AGENT = Path(__file__).parent.parent / "agent"
MODULES = {path.relative_to(AGENT).as_posix(): path for path in sorted(AGENT.rglob("*.py"))}

# From the outside in.  A module imports what stands further down, its own room, and in SERVICE and PIPELINE its
# neighbours.
SERVICE = frozenset({"announce", "departed", "gate", "hold", "lanes", "migration", "packing", "patience", "patrol", "pause_watch", "rounds", "service", "space", "upkeep", "verifying", "waiting", "wake"})
PIPELINE = frozenset(
    {"absence", "adoption", "bot", "causes", "checking", "compaction", "cure", "displaced", "edit", "erase", "healing", "keeping", "look", "manual", "mending", "notices", "obstacles", "older_copies", "outcome", "pack", "pipeline", "portion", "putback", "record", "recover", "references", "rescan", "rotation", "scrape", "slices", "summary", "verify", "verify_report", "workspace"}
)  # fmt: skip
ROOMS = frozenset({"config", "disk", "checks", "logs", "metrics", "web", "notifications", "notify", "remote"})
LAYERS = (
    frozenset({"cli"}),
    frozenset({"commands"}),
    SERVICE,
    PIPELINE,
    ROOMS,
    frozenset({"core"}),
)
NEIGHBOURS_ALLOWED = {
    "web": {"metrics": "it serves the exposition and counts its own failures"},
}

PURE_MODULES = frozenset(
    {"bisect", "codecs", "collections", "dataclasses", "datetime", "enum", "functools", "hashlib", "heapq", "itertools",
     "json", "math", "msgspec", "re", "types", "typing"}
)  # fmt: skip
CLOCK_CALLS = frozenset({"now", "utcnow", "today", "time", "monotonic", "sleep", "perf_counter"})
EFFECTS = frozenset({"open", "print", "input", "exec", "eval", "__import__"})

MAY_RENAME = {"disk/atomic.py", "disk/swap.py"}
RENAMES = frozenset({"rename", "renames", "replace", "link", "renameat2"})

MAY_WAIT = {
    "service.py": "the loop",
    "patience.py": "for the loop's thread, until a signal ends it",
    "hold.py": "a command may hold the lock of the daemon for a moment",
    "putback.py": "the grace of a swap, a few milliseconds from the config",
    "disk/lease.py": "the bell that hears a writer while a slow write is on, a millisecond at a time",
    "disk/running_digest.py": "on its own thread: for the next chunk of a copy, until the copy ends",
    "disk/inotify.py": "the probe of the watcher, with a limit that is handed in; events gather for 0.1 s at most",
    "notifications.py": "on its own thread: for a process with a time limit, and before a receiver is tried again",
    "web/__init__.py": "a pause when the machine has no descriptor left for a client",
    "disk/packer.py": "for its own child, whose output has ended; the work itself has a limit",
    "commands/session.py": "for the recovery of the daemon, with a limit",
    "commands/demo.py": "it waits for its own children, with a limit",
}
WAITS = frozenset({"sleep", "wait"})

MAY_LOG_BELOW = {"disk/inotify.py": "watchdog tells of a queue overflow only by logging it"}

MAY_CATCH_ALL = {
    "service.py": "logs it, and captures what is pending before the end",
    "metrics/__init__.py": "a refresh that fails must cost neither the scrape nor the other refreshes; it is counted",
    "web/__init__.py": "a bug behind the probe must not look like a dead agent; it is counted",
    "disk/inotify.py": "what escapes would end the only reader of events; it becomes a doubt",
    "disk/hints.py": "what escapes would end the dispatching thread; it becomes a doubt",
    "adoption.py": "decoders raise errors of their own: `is_damage` sorts them, the rest is raised again",
    "pack.py": "as adoption.py",
    "disk/atomic.py": "as an executor does: it is raised again for whoever waits for the work",
    "commands/mentions.py": "as adoption.py",
    "disk/packed.py": "as adoption.py",
    "disk/packer.py": "as adoption.py, in the child: the exit code tells damage from a disk that refused",
    "disk/references.py": "as adoption.py",
    "disk/store.py": "decoders raise errors of their own: `is_damage` sorts them, the rest is raised again",
    "disk/codec.py": "decoders raise errors of their own: `is_damage` sorts them, the rest is raised again",
}


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_bytes())


def dotted(name: str) -> str:
    return ".".join(["agent", *name.removesuffix(".py").removesuffix("/__init__").split("/")])


def imported(name: str) -> Iterator[str]:
    """Every module that `name` imports, also inside functions; `from agent.disk import swap` is agent.disk.swap."""
    known = {dotted(other) for other in MODULES}
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import hides its direction"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in known else module


def called(name: str) -> Iterator[tuple[str, str]]:
    """(owner, function) of every call: ("os", "open") for os.open(...), ("", "open") for open(...)."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=function):
                    yield "", function
                case ast.Attribute(value=ast.Name(id=owner), attr=function):
                    yield owner, function
                case ast.Attribute(attr=function):
                    yield "?", function


def room_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def layer_of(room: str) -> int:
    return next((number for number, layer in enumerate(LAYERS) if room in layer), -1)


def wrong_directions(name: str) -> Iterator[str]:
    own = room_of(dotted(name))
    for module in imported(name):
        room = room_of(module) if module.startswith("agent.") else own
        neighbours = any({own, room} <= layer for layer in (SERVICE, PIPELINE))
        if room in ("", own) or neighbours or layer_of(room) > layer_of(own):
            continue
        if room in NEIGHBOURS_ALLOWED.get(own, {}):
            continue
        yield f"{name} imports {module}"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__.py"])
def test_every_module_imports_only_inwards(name: str) -> None:
    assert layer_of(room_of(dotted(name))) >= 0, f"{name} stands in no layer: give it one here and in docs/design.md"
    assert list(wrong_directions(name)) == []


def test_no_module_is_imported_in_a_circle() -> None:
    """The import that only a type checker sees counts too: a circle is a circle."""
    graph = {dotted(name): {m for m in imported(name) if m.startswith("agent.")} for name in MODULES}

    def walk(module: str, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if module in path:
            yield (*path[path.index(module) :], module)
            return
        if module not in done:
            for inner in sorted(graph.get(module, ())):
                yield from walk(inner, (*path, module))
            done.add(module)

    done: set[str] = set()
    # A package and its own modules are one room; circles inside it show as an ImportError at once.
    circles = {c for module in graph for c in walk(module, ()) if len({room_of(m) for m in c}) > 1}
    assert circles == set()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("core/")])
def test_core_has_no_effects_and_no_clock(name: str) -> None:
    outside = {m.split(".")[0] for m in imported(name) if not m.startswith("agent.core")} - PURE_MODULES
    effects = {f"{owner}.{call}" for owner, call in called(name) if (owner == "" and call in EFFECTS)}
    clocks = {
        f"{owner}.{call}"
        for owner, call in called(name)
        if call in CLOCK_CALLS and owner in ("", "datetime", "date", "time")
    }

    assert (outside, effects, clocks) == (set(), set(), set())


@pytest.mark.parametrize("name", sorted(set(MODULES) - MAY_RENAME))
def test_nothing_but_atomic_and_swap_renames(name: str) -> None:
    renames = {f"{o}.{c}" for o, c in called(name) if c in RENAMES and o in ("os", "shutil", "Path", "path", "_libc")}
    moves = {f"{o}.{c}" for o, c in called(name) if o == "shutil" and c == "move"}
    named = {
        node.value for node in ast.walk(tree_of(name)) if isinstance(node, ast.Constant) and node.value == "renameat2"
    }

    assert renames | moves | named == set()


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(MAY_WAIT)))
def test_nothing_but_the_service_waits(name: str) -> None:
    assert {call for _, call in called(name) if call in WAITS} == set()


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith(("core/", "disk/", "checks/"))])
def test_what_returns_or_raises_does_not_log(name: str) -> None:
    loggers = {m for m in imported(name) if m.split(".")[0] in ("logging", "structlog") or m == "agent.logs"}

    assert not loggers or name in MAY_LOG_BELOW


@pytest.mark.parametrize("name", list(MODULES))
def test_everything_is_caught_only_where_it_has_a_reason(name: str) -> None:
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.ExceptHandler):
            kinds = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"BaseException"}
            catches_all = kinds & {"Exception", "BaseException"}
            assert not catches_all or passes_on(node) or name in MAY_CATCH_ALL, f"{name}:{node.lineno}"
            assert "BaseException" not in kinds or passes_on(node), f"{name}:{node.lineno} swallows BaseException"


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether every way out of `handler` is a raise."""
    last = handler.body[-1]
    leaves = any(isinstance(n, ast.Return | ast.Continue | ast.Break) for part in handler.body for n in ast.walk(part))
    return isinstance(last, ast.Raise) and last.exc is None and not leaves


@pytest.mark.parametrize("name", list(MODULES))
def test_a_module_is_called_by_what_lives_there(name: str) -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "shared", "tools"}

    assert not vague & set(name.removesuffix(".py").split("/"))


@pytest.mark.parametrize("listed", [MAY_WAIT, MAY_LOG_BELOW, MAY_CATCH_ALL, dict.fromkeys(MAY_RENAME)])
def test_an_exception_names_a_module_that_is_there(listed: dict[str, str]) -> None:
    assert set(listed) <= set(MODULES)
