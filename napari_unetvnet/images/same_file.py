"""Whether two paths are one file or folder, however they are spelled: links, letter case, ``..`` and ``./``."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["one_name", "same_or_inside"]


def same_or_inside(path: Path, place: Path) -> bool:
    """Whether a path is the same file or folder as another, or lies inside it, however both are spelled.

    Links are followed, also hard links. What does not exist yet is compared by its name in the folder that does.

    Returns
    -------
    bool
    """
    real = Path(os.path.realpath(path))
    return _identity(Path(os.path.realpath(place))) in map(_identity, (real, *real.parents))


def _identity(real: Path) -> tuple[int, int, str]:
    """Give device and number of the nearest file or folder that exists, and the rest of the path."""
    for existing in (real, *real.parents):
        try:
            found = existing.stat()
        except OSError:  # not there, no permission to look, or a name that is too long
            continue
        return found.st_dev, found.st_ino, _in_one_case(real.relative_to(existing), existing)
    return 0, 0, os.path.normcase(real)


def one_name(path: Path) -> str:
    """Give one name for a path, however it is spelled: links are followed, and letter case counts where it does.

    Returns
    -------
    str
        Not a path to open.
    """
    real = Path(os.path.realpath(path))
    existing = next((folder for folder in real.parents if folder.is_dir()), real.parent)
    return _in_one_case(real, existing)


def _in_one_case(path: Path, folder: Path) -> str:
    """Fold the letter case of a path if the file system of a folder does."""
    name = os.path.normcase(path)
    return name.casefold() if _folds_case(folder) else name


def _folds_case(folder: Path) -> bool:
    """Whether a folder has the same content by its name in other letter case, as on macOS and Windows."""
    for each in (folder, *folder.parents):
        swapped = each.with_name(each.name.swapcase()) if each.name else each
        if swapped.name != each.name:
            try:
                return swapped.samefile(each)
            except OSError:  # there is none, or no permission to look
                return False
    return False
