"""Whether this user may write where a family will write: asked of the system, nothing is made."""

from __future__ import annotations

import os

__all__ = ["existing", "file_obstacle", "folder_obstacle"]


def existing(place: str) -> str:
    """The folder itself, or the nearest one above it that is there."""
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


def folder_obstacle(folder: str) -> str | None:
    """Why nothing can be written into a folder, or why it cannot be made; None where it can."""
    if os.path.lexists(folder) and not os.path.isdir(folder):
        return f"{folder} is not a folder"
    above = existing(folder)
    if above == folder:
        return None if _may_write(folder) else f"{folder} cannot be written by this user"
    first = os.path.join(above, os.path.relpath(folder, above).split(os.sep)[0])
    if os.path.lexists(first):
        return f"{folder} cannot be made: {first} is not a folder"
    return None if _may_write(above) else f"{folder} cannot be made: {above} cannot be written"


def file_obstacle(path: str) -> str | None:
    """Why a file cannot be written or made; None where it can. Its folder is not made for it."""
    if os.path.isdir(path):
        return f"{path} is a folder"
    if os.path.lexists(path):
        may = os.access(path, os.W_OK, effective_ids=_EFFECTIVE)
        return None if may else f"{path} cannot be written by this user"
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f"{path} cannot be made: there is no folder {folder}"
    return folder_obstacle(folder)


_EFFECTIVE = os.access in os.supports_effective_ids


def _may_write(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE)
