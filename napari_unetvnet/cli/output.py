"""What the commands print. Text may come from files, so characters that command a terminal are written as escapes."""

from __future__ import annotations

import sys
from contextlib import suppress

from napari_unetvnet.errors import printable

__all__ = ["print_error", "print_line"]


def print_line(text: str = "") -> None:
    """Print a line, or several."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    """Print a line, or several, to the error stream; nothing happens where it cannot be written."""
    with suppress(OSError):  # the log of a run may lie on the full disk that is told of
        sys.stderr.write(printable(text) + "\n")
