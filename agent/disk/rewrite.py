"""A snapshot's bytes replaced under its name: what a person has to have erased may stay in no copy."""

import hashlib
import os
import stat

from msgspec.structs import replace

from agent.core.errors import ReadBackError
from agent.core.model import Grade, Shape, Snapshot
from agent.core.naming import display, parse_name
from agent.disk.atomic import drop_cached_pages, rename_over
from agent.disk.beneath import parent_beneath
from agent.disk.codec import Compression, open_writer, plain_digest
from agent.disk.journal import Journal
from agent.disk.staging import StagedFile, open_root
from agent.disk.store import Store


def rewrite(
    store: Store, journal: Journal, snapshot: Snapshot, data: bytes, *, grade: Grade, shape: Shape | None
) -> Snapshot:
    """The name of `snapshot` shows `data`, durably and read back; return it as it is now.

    It shows the old bytes or the new ones at every instant.  The journal tells both digests (op `erase`) before the
    name changes hands: after a crash in between, the bytes can still be told from rotten ones.

    Raises:
        FileNotFoundError: the snapshot is gone.
        ReadBackError, OSError: it shows what it showed.
    """
    parsed = parse_name(snapshot.name)
    suffix = parsed.compression_suffix if parsed else ""
    compression = next(c for c in Compression if c.suffix == suffix)
    digest = hashlib.sha256(data).hexdigest()
    root_fd = open_root(store.path)
    try:
        with parent_beneath(root_fd, snapshot.name) as (folder_fd, base), store.staging() as staging:
            mode = stat.S_IMODE(os.stat(base, dir_fd=folder_fd, follow_symlinks=False).st_mode)
            staged = staging.create()
            try:
                with open_writer(staged.fd, compression) as out:
                    out.write(data)
                os.fchmod(staged.fd, mode)
                os.fsync(staged.fd)
                _read_back(staged, suffix, digest, snapshot.name)
                now = replace(
                    snapshot, digest=digest, size_bytes=len(data), stored_bytes=os.fstat(staged.fd).st_size,
                    grade=grade, shape=shape,
                )  # fmt: skip
                journal.append_durably(_record(now, was=snapshot.digest))
                rename_over(staging.fd, staged.name, folder_fd, base)
                os.fsync(folder_fd)
            finally:
                staged.discard()
    finally:
        os.close(root_fd)
    return now


def _read_back(staged: StagedFile, suffix: str, digest: str, name: str) -> None:
    drop_cached_pages(staged.fd)
    if plain_digest(staged.fd, suffix) != digest:
        raise ReadBackError(
            f"{display(name)}: what came back from the disk is not what was written",
            hint="check the disk (smartctl, dmesg); the snapshot is as it was",
        )


def _record(snapshot: Snapshot, *, was: str) -> dict[str, object]:
    shape = [snapshot.shape.root, snapshot.shape.records] if snapshot.shape else None
    return {
        "op": "erase", "name": snapshot.name, "was": was, "digest": snapshot.digest, "size": snapshot.size_bytes,
        "grade": snapshot.grade.value, "shape": shape,
    }  # fmt: skip
