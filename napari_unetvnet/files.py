"""Files that are replaced whole or not at all, and read back with a sentence for what is bad.

What is written goes to a temporary place beside its own, is flushed to the disk, and is then renamed: a reader finds
the old file or the new one, never a part, also after a power cut. A process that is killed before it renames leaves
the old file and a hidden temporary one, which the next one that writes there removes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.temporary import beside, remove, remove_strays

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "FULL", "FULL_BYTES", "amount", "cache_folder", "check_regular", "named", "put_if_free",
    "put_in_place", "replacing", "replacing_all", "user_folder", "write_problem", "write_text", "writing",
]  # fmt: skip

CANNOT_SYNC = {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP}
"""What file systems say that have no way to flush a folder."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What file systems say that have no room for a file."""
FULL_BYTES = 1 << 20
"""A disk with less room is full where a library does not say why it cannot write."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary place for a file or folder, which replaces the one at ``path`` when the block ends.

    An exception in the block, of whatever kind, leaves the old one as it was and nothing beside it. A link is
    replaced, and what it points to stays.

    Yields
    ------
    Path
        With the same ending; nothing is there yet.
    """
    with replacing_all([path]) as (part,):
        yield part


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Replace several files or folders that belong together: all of them, or none.

    Yields
    ------
    list of Path
        A place for each, as of `replacing`; all must be filled.
    """
    parts = [beside(path) for path in paths]
    try:
        with named(parts, paths):
            yield parts
        put_in_place(parts, paths)
    finally:
        for part in parts:
            remove(part)


@contextmanager
def named(parts: Sequence[Path], paths: Sequence[Path]) -> Iterator[None]:
    """Add to a failure to write that names no file the file whose part was written last, and that the disk is full.

    Parameters
    ----------
    parts : sequence of Path
        In the order in which they are written.
    paths : sequence of Path
        What they become.

    Yields
    ------
    None

    Raises
    ------
    OSError
        The one of the block.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            begun = [path for part, path in zip(parts, paths, strict=True) if part.exists()]
            file = (begun or paths)[-1]
            error.errno, error.strerror, error.filename = *_reason(error, file.parent), str(file)
        raise


def _reason(error: OSError, folder: Path) -> tuple[int, str]:
    """Give number and text of an error; libraries that write in their own way leave out both where a disk is full."""
    if error.errno is None and folder.is_dir() and shutil.disk_usage(folder).free < FULL_BYTES:
        return errno.ENOSPC, os.strerror(errno.ENOSPC)
    return error.errno or errno.EIO, str(error.strerror or error)


def put_in_place(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename files or folders that are complete to their places: all of them, or none.

    Parameters
    ----------
    parts : sequence of Path
        In the same folders as ``paths``.
    paths : sequence of Path
        What is there is gone then.
    """
    for part in parts:
        _flush(part)
    if len(parts) == 1 and not paths[0].is_dir():
        parts[0].replace(paths[0])  # in one step: there is nothing to undo
    else:
        _exchange(parts, paths)
    for folder in {path.parent for path in paths}:
        remove_strays(folder)
        _flush_folder(folder)


def put_if_free(part: Path, path: Path) -> bool:
    """Rename a file that is complete to a place where nothing is, also if another process wants the same place.

    Returns
    -------
    bool
        False if something is there; then the file stays where it is.
    """
    _flush(part)
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        if os.path.lexists(path):
            return False
        part.replace(path)
    remove(part)
    _flush_folder(path.parent)
    return True


def _exchange(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename all parts to their places; if one cannot be, rename all back."""
    old = [beside(path, replaced=True) for path in paths]
    with ExitStack() as undo:
        for part, path, kept in zip(parts, paths, old, strict=True):
            undo.callback(_put_back, part, path, kept)
            if path.is_dir() and not part.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if path.is_dir() or path.is_symlink():
                path.rename(kept)  # a folder with something in it is not replaced by renaming another
            elif path.exists():
                _keep(path, kept)
            part.replace(path)
        undo.pop_all()
    try:
        for kept in old:
            remove(kept)
    finally:  # also what an interruption has kept
        for kept in old:
            remove(kept)


def _keep(file: Path, kept: Path) -> None:
    """Give a file a second name, or make a copy where the file system has no hard links."""
    try:
        os.link(file, kept)
    except OSError:
        shutil.copy2(file, kept)


def _put_back(part: Path, path: Path, kept: Path) -> None:
    """Undo what was done so far for one place."""
    if not part.exists():
        path.replace(part)
    if os.path.lexists(kept) and not os.path.lexists(path):
        kept.replace(path)
    remove(kept)


def cache_folder() -> Path:
    """Return the folder of what can be found out again: ``$NAPARI_UNETVNET_CACHE``, by default the user's cache."""
    return user_folder("cache", "NAPARI_UNETVNET_CACHE")


def user_folder(kind: Literal["cache", "data"], variable: str) -> Path:
    """Return a folder of the user, or the one that a variable of the environment names.

    Returns
    -------
    Path

    Raises
    ------
    FileProblem
        If there is neither, as in a container whose user has no home.
    """
    import platformdirs

    if configured := os.environ.get(variable):
        return Path(configured)
    folder = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_data_path
    try:
        found: Path = folder("napari-unetvnet", appauthor=False)
    except RuntimeError as error:
        raise FileProblem(f"This user has no home folder; set HOME, or {variable}, to a folder.") from error
    if not found.is_absolute():  # what older versions of the library give
        raise FileProblem(f"This user has no home folder; set HOME, or {variable}, to a folder.")
    return found


def amount(count: int) -> str:
    """Write a number of bytes in the largest unit of which there is one.

    Returns
    -------
    str
    """
    power = min(3, max(1, int(count).bit_length() - 1) // 10)
    return f"{count / 1024**power:.{2 * (power == 3)}f} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def check_regular(path: Path) -> None:
    """Refuse a device, a pipe or a socket in place of a file, also behind a link: to read one may never end.

    Nothing happens where there is nothing.

    Raises
    ------
    FileProblem
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # whoever opens it says why it cannot be
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileProblem(f"{path} is a device, a pipe or a socket, or a link to one, and no file; name a file.")


def _flush(path: Path) -> None:
    """Have the disk hold a file, or all files of a folder."""
    if path.is_dir():
        for inner in path.rglob("*"):
            _flush(inner) if inner.is_file() else _flush_folder(inner)
        _flush_folder(path)
        return
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Have the disk hold the names in a folder, where the platform can be told to."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all; a line break is added at its end."""
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


@contextmanager
def writing(path: Path, advice: str = "choose another place", needed: int = 0) -> Iterator[None]:
    """Turn a failure to write into a sentence.

    Parameters
    ----------
    path : Path
        The one that the sentence names.
    advice : str
        What to do: its end.
    needed : int
        How many bytes are written, if that is known.

    Yields
    ------
    None

    Raises
    ------
    FileProblem
        Instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        problem = write_problem(error, path, advice, needed)
        raise problem from error


def write_problem(error: OSError, path: Path, advice: str, needed: int = 0) -> FileProblem:
    """Say why a file cannot be written; of a full disk how much room there is, and how much it takes if that is known.

    Parameters
    ----------
    path : Path
        The file, or the folder, that was to be written.
    advice : str
        What to do: the end of the sentence.
    needed : int
        How many bytes are written, if that is known.

    Returns
    -------
    FileProblem
    """
    folder = next((each for each in (path, *path.parents) if each.is_dir()), Path.cwd())
    number, reason = _reason(error, folder)
    if number not in FULL:
        return FileProblem(f"{path} cannot be written ({reason}); {advice}.")
    takes = f"it takes up to {amount(needed)}, and " if needed else ""
    room = f"{takes}{amount(shutil.disk_usage(folder).free)} are free in {folder}"
    return FileProblem(f"{path} cannot be written ({reason}): {room}; make room there, or {advice}.")
