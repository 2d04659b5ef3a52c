"""Names of temporary files and folders, and the removal of those that killed processes left.

A name says the computer and the process that wrote it. Whoever writes in a folder next removes what processes left
there that are gone; nothing else is touched.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
from pathlib import Path

__all__ = ["TEMPORARY", "beside", "remove", "remove_strays"]

TEMPORARY = ".napari-unetvnet-"
"""How the names begin."""
KEPT_CHARACTERS, MOST_BYTES = 24, 143
"""Of the end of a name, which says the format; with the rest below what any file system takes."""
REPLACED = "o"
"""Mark in the name of what is being replaced, which is not lost if the process is killed."""
STRAY = re.compile(
    rf"{re.escape(TEMPORARY)}(?P<computer>[0-9a-f]{{6}})\.(?P<process>\d+)-[0-9a-f]{{8}}(?P<mark>{REPLACED}?)-(?P<name>.+)",
    re.DOTALL,
)


def beside(path: Path, prefix: str = TEMPORARY, tag: str = "", *, replaced: bool = False) -> Path:
    """Give a new name in the same folder that clashes with no other file, is never too long, and keeps the ending.

    Parameters
    ----------
    prefix : str
        What it begins with.
    tag : str
        What makes it differ from other names; of a temporary name it says the process, and the rest is random.
    replaced : bool
        Whether the file itself gets that name while it is replaced. The whole name is in it then, if it is not too
        long, so that it can be put back.

    Returns
    -------
    Path
    """
    if prefix != TEMPORARY:
        return path.with_name(f"{prefix}{tag}-{path.name[-KEPT_CHARACTERS:]}")
    remove_strays(path.parent)
    start = f"{TEMPORARY}{_computer()}.{os.getpid()}-{secrets.token_hex(4)}"
    whole = f"{start}{REPLACED}-{path.name}"
    if replaced and len(os.fsencode(whole)) <= MOST_BYTES:
        return path.with_name(whole)
    return path.with_name(f"{start}-{path.name[-KEPT_CHARACTERS:]}")


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_strays(folder: Path) -> None:
    """Remove the temporary files and folders that processes of this computer left when they were killed.

    Those of a process that lives, of another computer, and whatever has another name, stay. What a killed process was
    just replacing is put back if nothing is in its place.
    """
    try:
        names = [name for name in os.listdir(folder) if name.startswith(TEMPORARY)]  # noqa: PTH208 (names only)
        for name in names:
            found = STRAY.fullmatch(name)
            if found is None or found["computer"] != _computer() or _lives(int(found["process"])):
                continue
            if found["mark"] and not os.path.lexists(folder / found["name"]):
                (folder / name).rename(folder / found["name"])
            else:
                remove(folder / name)
    except OSError:  # what cannot be removed here is in nobody's way; what cannot be written is told by who writes
        return


@functools.cache
def _computer() -> str:
    """Identify this computer, and on it the processes that see each other, in 6 letters."""
    facts = [platform.node()]
    for place in ("/etc/machine-id", "/proc/self/ns/pid"):
        try:
            facts.append(str(Path(place).readlink()) if "proc" in place else Path(place).read_text(encoding="utf-8"))
        except OSError:  # not on this platform
            continue
    return hashlib.sha256(" ".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:6]


def _lives(process: int) -> bool:
    """Whether there is a process of a number, also if it may be another one that got the number later."""
    from psutil import pid_exists

    return pid_exists(process)
