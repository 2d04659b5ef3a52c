"""Turn what libraries raise and log about damaged files into one sentence."""

from __future__ import annotations

import logging
import struct
import tokenize
import warnings
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.formats import FORMATS, format_of, listed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["damaged_file", "ending_by_content", "log_of", "reading", "slicing"]

# Exceptions of libraries on a bad file.
BAD_FILE: tuple[type[Exception], ...] = (
    OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError,
    AssertionError, SyntaxError, SystemError, struct.error, zlib.error, tokenize.TokenError,
)  # fmt: skip

CONTENTS = {
    b"\x89PNG": ".png", b"II*\0": ".tif", b"MM\0*": ".tif", b"II+\0": ".tif", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif",
    b"\x93NUMPY": ".npy", b"NRRD": ".nrrd", b"ObjectTy": ".mha", b"\x89HDF": ".h5",
}  # fmt: skip
"""What files of formats begin with, and an ending of each."""


@contextmanager
def reading(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn the exceptions of a library on a bad file into one sentence, and suppress its warnings.

    Parameters
    ----------
    path : Path
        Of the file.
    *also : type of Exception
        Further exceptions of the library.

    Raises
    ------
    FileProblem
        Instead of these exceptions.
    """
    with slicing(path, *also), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def slicing(path: Path, *also: type[Exception]) -> Iterator[None]:
    """As `reading`, but without suppressing warnings: for arrays that are read later, in any thread.

    Parameters
    ----------
    path : Path
        Of the file.
    *also : type of Exception
        Further exceptions of the library.

    Raises
    ------
    FileProblem
        Instead of these exceptions.
    """
    try:
        yield
    except MemoryError as error:
        endings = listed(ending for row in FORMATS for ending in row.in_parts)
        raise FileProblem(
            f"{path.name} does not fit into memory, or its header is damaged; uncompressed files with one of these "
            f"endings are read in parts: {endings}."
        ) from error
    except (*BAD_FILE, *also) as error:
        if "imagecodecs" in str(error):
            raise FileProblem(
                f"{path.name} is compressed in a rare way; pip install imagecodecs to read it."
            ) from error
        problem = damaged_file(path, str(error) or type(error).__name__)
        raise FileProblem(*problem.lines) from error


def damaged_file(path: Path, detail: str) -> FileProblem:
    """Describe a damaged file.

    Parameters
    ----------
    detail : str
        The message of the library.

    Returns
    -------
    FileProblem
    """
    if ending := ending_by_content(path):
        kind = ending.removeprefix(".").upper()
        return FileProblem(f"{path.name} is {kind} by its content; give it the ending {ending}, and try again.")
    return FileProblem(
        f"{path.name} cannot be read: it is cut off, damaged or not what its ending says "
        f"({detail.splitlines()[0][:120]}); copy it again, or save it again in the program that created it."
    )


def ending_by_content(path: Path) -> str:
    """Give an ending of the format that the first bytes of a file say.

    Returns
    -------
    str
        Empty if they say none, or that of the file is one of this format.
    """
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        first = file.read(8)
    found = next((ending for begin, ending in CONTENTS.items() if first.startswith(begin)), "")
    own, other = format_of(path), format_of(f"x{found}")
    is_same = own is None or other is None or (own.module, own.lossy) == (other.module, other.lossy)
    return "" if is_same else found


@contextmanager
def log_of(logger_name: str) -> Iterator[list[str]]:
    """Collect the log messages of a library instead of printing them."""
    lines: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return False

    logger = logging.getLogger(logger_name)
    logger.addFilter(collect)
    try:
        yield lines
    finally:
        logger.removeFilter(collect)
