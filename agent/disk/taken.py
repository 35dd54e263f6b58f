"""What our own files take on the disk, beside the snapshots, which the catalog counts."""

import os
import stat
from contextlib import suppress


def own_bytes(folder: str) -> int:
    """Return the size of the files in `folder` and below it; one that has a second name is counted under that one.

    What vanishes meanwhile or cannot be looked at counts as nothing.
    """
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(path, name))
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    total += status.st_size
    return total
