"""Room on the disk: compared with what is to be written, and set aside for what is written through a memory map."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, BinaryIO

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import amount

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_room", "reserve"]

CANNOT_RESERVE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems say that have no way to set room aside."""
ZEROS = bytes(1 << 20)


def check_room(needs: Mapping[Path, int], advice: str = "choose another folder for the run") -> None:
    """Refuse work whose results the disks cannot hold.

    Parameters
    ----------
    needs : mapping of Path to int
        Folders, and the bytes that are written to each; those on one disk are added.
    advice : str
        What to do other than making room.

    Raises
    ------
    FileProblem
    """
    disks: dict[int, list[Path]] = {}
    for folder in needs:
        disks.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in disks.values():
        needed, free = sum(needs[folder] for folder in folders), shutil.disk_usage(folders[0]).free
        if needed > free:
            raise FileProblem(
                f"The results take {amount(needed)} in {' and '.join(map(str, folders))}, but only "
                f"{amount(free)} are free there; make room, or {advice}."
            )


def reserve(file: BinaryIO, size: int) -> None:
    """Have the disk set room aside for a file, which is as long as that afterwards; what it holds stays.

    A file that is written through a memory map needs this: where the disk has no room for a page of the map, the
    process is ended by a signal (SIGBUS), and with it whatever a person has not saved in a viewer.

    Parameters
    ----------
    file : binary file, open for writing
    size : int
        Bytes.

    Raises
    ------
    OSError
        If the disk has no room for it.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                raise
        else:
            return
    file.seek(0, os.SEEK_END)
    while (left := size - file.tell()) > 0:
        file.write(ZEROS[:left])
    file.flush()
