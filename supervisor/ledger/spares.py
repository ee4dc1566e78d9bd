"""The files of ledgers: wholly allocated, and kept once they are settled, for when the disk is full."""

from __future__ import annotations

import os

SPARES = 8


def allocate(folder: str, path: str, size: int) -> int:
    """A fully allocated file under this name: a spare by renaming, else a new one; its descriptor.

    OSError (no space, no rights) leaves nothing behind.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for spare in _spares(folder, size):
        try:
            os.rename(spare, path)
        except FileNotFoundError:
            continue  # a sibling was quicker
        return _filled(path, os.open(path, os.O_RDWR | os.O_CLOEXEC), size)
    return _filled(
        path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), size
    )


def retire(folder: str, path: str) -> None:
    """A settled ledger becomes a spare, so that a full disk still has room for the next life's.

    Only where nobody maps it any more: its life is dead, or has unmapped it.
    """
    spare = os.path.join(folder, f"spare-{os.path.basename(path)}")
    try:
        if len([name for name in os.listdir(folder) if name.startswith("spare-")]) >= SPARES:
            os.unlink(path)
        else:
            os.rename(path, spare)
    except OSError:
        return  # gone already, or cannot be moved: whoever settles a life twice changes nothing


def _spares(folder: str, size: int) -> list[str]:
    """Those of this size first, then larger ones, which are cut, then those that have to grow."""
    found = []
    for name in os.listdir(folder):
        if name.startswith("spare-"):
            path = os.path.join(folder, name)
            try:
                has = os.stat(path).st_size
            except FileNotFoundError:
                continue
            found.append((has != size, has < size, path))
    return [path for *_, path in sorted(found)]


def _filled(path: str, descriptor: int, size: int) -> int:
    """Every block allocated, of a spare too: a life may have died before it had filled its file."""
    try:
        if os.fstat(descriptor).st_size > size:
            os.ftruncate(descriptor, size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:  # macOS has none; zeros written are blocks allocated
            os.pwrite(descriptor, bytes(size), 0)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor
