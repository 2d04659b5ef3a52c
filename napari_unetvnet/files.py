"""Files that are replaced whole or not at all, told apart by identity, and read back with a sentence for what is bad.

What is written goes to a temporary place beside its own, is flushed to the disk, and is then renamed: a reader finds
the old file or the new one, never a part, also after a power cut. A process that is killed before it renames leaves
the old file and a hidden temporary one, whose name begins with `TEMPORARY`.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.errors import FileProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "TEMPORARY", "beside", "cache_folder", "check_regular", "check_room", "one_name", "put_if_free", "put_in_place",
    "remove", "replacing", "replacing_all", "same_or_inside", "write_text", "writing",
]  # fmt: skip

TEMPORARY = ".napari-unetvnet-"
"""How the names of temporary files and folders begin."""
KEPT_CHARACTERS = 24
"""Of the end of a name, which says the format; with the rest below what any file system takes (143 bytes)."""
CANNOT_SYNC = {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP}
"""What file systems say that have no way to flush a folder."""


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
        yield parts
        put_in_place(parts, paths)
    finally:
        for part in parts:
            remove(part)


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
    old = [beside(path) for path in paths]
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


def beside(path: Path, prefix: str = TEMPORARY, tag: str = "") -> Path:
    """Give a new name in the same folder that clashes with no other file, is never too long, and keeps the ending.

    Parameters
    ----------
    prefix : str
        What it begins with.
    tag : str
        What makes it differ from other names; random if empty.

    Returns
    -------
    Path
    """
    return path.with_name(f"{prefix}{tag or secrets.token_hex(4)}-{path.name[-KEPT_CHARACTERS:]}")


def cache_folder() -> Path:
    """Return the folder of what can be found out again: ``$NAPARI_UNETVNET_CACHE``, by default the user's cache."""
    from platformdirs import user_cache_path

    folder = os.environ.get("NAPARI_UNETVNET_CACHE")
    return Path(folder) if folder else user_cache_path("napari-unetvnet", appauthor=False)


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
                f"The results take {needed / 2**30:.2f} GiB in {' and '.join(map(str, folders))}, but only "
                f"{free / 2**30:.2f} GiB are free there; make room, or {advice}."
            )


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


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
def writing(path: Path, advice: str = "choose another place") -> Iterator[None]:
    """Turn a failure to write into a sentence.

    Parameters
    ----------
    path : Path
        The one that the sentence names.
    advice : str
        What to do: its end.

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
        raise FileProblem(f"{path} cannot be written ({error.strerror or error}); {advice}.") from error


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
