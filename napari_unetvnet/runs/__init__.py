"""A run is a folder: what is to be done, what was said while doing it, and the results.

``job.json`` holds the settings, ``events.jsonl`` an event a line, ``log.txt`` what a child process printed,
``model.safetensors`` or ``labels.npy`` the result, and a file called ``stop`` asks the run to end. The viewer writes
such a folder, starts ``napari-unetvnet run FOLDER`` as a child process and follows its events, so it never imports
torch, and whatever the viewer did can be repeated from the command line, to the byte.
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
