"""A run is a folder with a job, its events and its results.

``job.json`` holds the settings, ``events.jsonl`` one event per line, ``log.txt`` the output of a child process,
``model.safetensors`` or ``labels.npy`` the result; a file called ``stop`` asks the run to end. The viewer writes
such a folder, starts ``napari-unetvnet run FOLDER`` as a child process and follows its events, so it never imports
torch, and every run of the viewer can be reproduced from the command line, byte for byte.
"""

from __future__ import annotations

from napari_unetvnet.runs.child import start
from napari_unetvnet.runs.folder import (
    EVENTS,
    JOB,
    LOCK,
    LOG,
    STOP,
    absolute_paths,
    ask_to_stop,
    create,
    discard_if_empty,
    follow,
    new_folder,
    read,
    read_settings,
)
from napari_unetvnet.runs.running import run

__all__ = [
    "EVENTS",
    "JOB",
    "LOCK",
    "LOG",
    "STOP",
    "absolute_paths",
    "ask_to_stop",
    "create",
    "discard_if_empty",
    "follow",
    "new_folder",
    "read",
    "read_settings",
    "run",
    "start",
]
