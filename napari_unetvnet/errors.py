"""User-correctable errors.

Each is a `UserError`: its lines say what was given, what was expected and what to do, one line per mistake. The command
line prints them and exits with 2; a widget shows them. Any other exception is a bug.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DataProblem",
    "DeviceProblem",
    "FileProblem",
    "ModelProblem",
    "OutOfMemory",
    "RunProblem",
    "SettingsProblem",
    "UserError",
    "near_names",
    "printable",
]


UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the line break, other separators of lines, what turns the direction of text, and no text."""


class UserError(Exception):
    """A user-correctable error.

    Parameters
    ----------
    *lines : str
        One message per mistake.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class FileProblem(UserError):
    """A file that is missing, truncated, of the wrong format, or not writable."""


class DataProblem(UserError):
    """An image or labels that cannot be used."""


class SettingsProblem(UserError):
    """A setting that is unknown, out of range, or in conflict with another setting."""


class ModelProblem(UserError):
    """A model file of another program, a truncated one, or one that does not fit the image."""


class RunProblem(UserError):
    """A run folder that is incomplete or already used."""


class OutOfMemory(UserError):
    """One batch does not fit in the memory of the device."""


class DeviceProblem(UserError):
    """A GPU that failed during a run."""


def near_names(name: str, known: Iterable[str]) -> str:
    """Write the end of a message about a mistyped name.

    Parameters
    ----------
    known : iterable of str
        The right names.

    Returns
    -------
    str
        The near names if there are any, else all of them.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(names)}."


def printable(text: str) -> str:
    r"""Write characters that command a terminal as escapes, such as ``\x1b``."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
