"""On what kind of file system a folder lies: one whose changes are all made here, or one that others change too."""

import os

_NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3"}
_GUEST = {"prl_fs", "vboxsf", "virtiofs", "vmhgfs"}  # the other end of a virtual machine's shared folder


def is_remote(device: int, *, mount_table: str = "/proc/self/mountinfo") -> bool:
    """Say whether changes made elsewhere can reach this `st_dev` without an event: a network or FUSE file system.

    A device that `mount_table` does not name is taken for a local one.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(mount_table, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:  # proc_pid_mountinfo(5): the type follows the first lone hyphen
                fields = line.split(" ")
                if fields[2] == wanted:
                    kind = fields[fields.index("-") + 1]
                    return kind in _NETWORK | _GUEST or kind == "fuse" or kind.startswith("fuse.")
    except OSError:
        return False
    return False
