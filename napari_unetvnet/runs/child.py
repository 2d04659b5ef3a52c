"""Start a run in a child process that outlives this one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from napari_unetvnet.runs.folder import LOG, check_own_files

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["start"]


def start(folder: Path, *, resume: bool = False) -> subprocess.Popen[bytes]:
    """Run the job of a run folder in a child process that outlives this one.

    Parameters
    ----------
    resume : bool
        Whether to continue an interrupted run of the folder.

    Returns
    -------
    subprocess.Popen
        Follow its events with `follow`; stop it with `ask_to_stop`.
    """
    check_own_files(folder)
    command = [sys.executable, "-m", "napari_unetvnet", "run", str(folder), *(["--resume"] if resume else [])]
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (a list, no shell; the folder is the only variable argument)
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
