"""The kind of file system a folder lies on, and whether machines share it."""

from __future__ import annotations

import os
import re

_NETWORK = (
    "nfs", "cifs", "smb", "9p", "virtiofs", "sshfs", "ceph", "gluster", "afs", "lustre",
)  # fmt: skip


def file_system(folder: str) -> str:
    """The kind of file system a folder lies on, such as "ext4"; "" where it is not known."""
    best, kind = "", ""
    folder = os.path.realpath(folder)
    try:
        with open("/proc/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                _device, escaped, found, *_ = line.split(" ")
                place = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), escaped)
                inside = folder == place or folder.startswith(place.rstrip("/") + "/")
                if inside and len(place) >= len(best):
                    best, kind = place, found
    except FileNotFoundError:
        return ""
    return kind


def is_network(kind: str) -> bool:
    """Whether a kind of file system is shared between machines: its locks and mappings lie.

    >>> is_network("nfs4"), is_network("fuse.glusterfs"), is_network("ext4")
    (True, True, False)
    """
    return kind.removeprefix("fuse.").startswith(_NETWORK)
