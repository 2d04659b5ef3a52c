"""What the commands print. Text may come from files, so characters that command a terminal are written as escapes."""

from __future__ import annotations

import re
import sys
from contextlib import suppress

__all__ = ["print_error", "print_line", "printable"]

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but line break and tab, those that turn the direction of text, and bytes that are no text."""


def printable(text: str) -> str:
    r"""Write characters that command a terminal as escapes, such as ``\x1b``."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_line(text: str = "") -> None:
    """Print a line, or several."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    """Print a line, or several, to the error stream; nothing happens where it cannot be written."""
    with suppress(OSError):  # the log of a run may lie on the full disk that is told of
        sys.stderr.write(printable(text) + "\n")
