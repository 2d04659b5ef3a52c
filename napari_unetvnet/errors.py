"""What can go wrong, in words a user can act on.

Everything a person can mend is a `UserError`: its lines say what was given, what was expected and what to do, one
mistake a line. The command line prints them and exits with 2; a widget shows them. Any other exception is a fault of
the program.
"""

from __future__ import annotations

import struct
import tokenize
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "DataProblem",
    "DeviceProblem",
    "FileProblem",
    "ModelProblem",
    "OutOfMemory",
    "RunProblem",
    "SettingsProblem",
    "UserError",
    "damaged",
    "told",
]

# What the libraries raise on a file that is cut off, damaged or of another kind.
BAD_FILE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
)
BAD_FILE += (AssertionError, SyntaxError, struct.error, zlib.error, tokenize.TokenError)


class UserError(Exception):
    """Something the user can mend.

    Parameters
    ----------
    *lines : str
        One sentence for each mistake.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class FileProblem(UserError):
    """A file that is missing, cut off, of another kind, or cannot be written."""


class DataProblem(UserError):
    """An image or labels that cannot be used as they are."""


class SettingsProblem(UserError):
    """A choice that does not exist, is out of range, or does not fit another choice."""


class ModelProblem(UserError):
    """A model file that is not ours, is cut off, or does not fit the image."""


class RunProblem(UserError):
    """A run folder that is incomplete or already used."""


class OutOfMemory(UserError):
    """One batch does not fit in the memory of the device."""


class DeviceProblem(UserError):
    """A GPU that failed in the middle of a run."""


@contextmanager
def told(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn what a library raises on a bad file into one sentence.

    Parameters
    ----------
    path : Path
        Of the file.
    *also : type of Exception
        The library's own.

    Raises
    ------
    FileProblem
        Instead of them.
    """
    try:
        yield
    except MemoryError as error:
        raise FileProblem(
            f"{path.name} does not fit into memory, or its header is damaged; an uncompressed .npy, .nii or .tif, "
            ".zarr and .h5 are read in parts."
        ) from error
    except (*BAD_FILE, *also) as error:
        if "imagecodecs" in str(error):
            raise FileProblem(
                f"{path.name} is compressed in a rare way; pip install imagecodecs to read it."
            ) from error
        raise FileProblem(*damaged(path, str(error) or type(error).__name__).lines) from error


def damaged(path: Path, detail: str) -> FileProblem:
    """Say that a file is bad.

    Parameters
    ----------
    path : Path
    detail : str
        What was found.

    Returns
    -------
    FileProblem
    """
    detail = detail.splitlines()[0][:120]
    return FileProblem(
        f"{path.name} cannot be read: it is cut off, damaged or not what its ending says ({detail}); "
        "copy it again, or open it in the program that made it and save it anew."
    )
