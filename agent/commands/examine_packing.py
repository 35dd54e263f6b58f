"""Whether what packed snapshots are packed against is there; nothing is unpacked, which is the work of `verify`."""

from collections.abc import Iterator
from contextlib import suppress

from agent.commands.finding import Case, Finding, fail, ok
from agent.commands.wording import counted
from agent.core.naming import display
from agent.disk.catalog import Catalog
from agent.disk.codec import DamagedError
from agent.disk.references import note_of, stored_bytes

_STEP = "backup-agent verify names the snapshots; the others stay whole"


def examine_packing(case: Case) -> Iterator[Finding]:
    """Yield what is found, or nothing where nothing is packed."""
    if case.catalog is None:
        return
    sizes = case.catalog.reference_sizes()
    leaning = _leaning(case.config.backup_dir, case.catalog, list(sizes))
    if not leaning and not sizes:
        return
    bad = [
        (name, size)
        for name in sorted({*sizes, *leaning})
        if (size := stored_bytes(case.config.backup_dir, name)) is None or size != sizes.get(name, size)
    ]
    if not bad:
        yield ok("packing", f"{counted(len({*sizes, *leaning}), 'reference')} of packed snapshots, all there")
        return
    name, size = bad[0]
    how = "is gone" if size is None else f"has {size:,} bytes and had {sizes[name]:,}"
    others = f", and {len(bad) - 1:,} more are gone or changed" if len(bad) > 1 else ""
    hurt = sum(leaning.get(name, 0) for name, _ in bad)
    yield fail("packing", f"{display(name)} {how}{others}: {hurt:,} packed against such cannot be opened", _STEP)


def _leaning(backup_dir: str, catalog: Catalog, references: list[str]) -> dict[str, int]:
    """Return how many snapshots and references name each reference as the one that they are packed against."""
    found: dict[str, int] = {}
    packed = (snapshot.name for snapshot in catalog.all_snapshots() if snapshot.name.endswith(".zst"))
    for name in (*packed, *references):
        with suppress(OSError, DamagedError):  # gone or damaged itself: told of elsewhere
            if note := note_of(backup_dir, name):
                found[note.reference] = found.get(note.reference, 0) + 1
    return found
