"""Small work of each kind, whose results are the same bytes each time: what the tests of faults interrupt."""

from __future__ import annotations

import os
import pickle
import traceback

import numpy as np

from napari_unetvnet import runs
from napari_unetvnet.events import SlabDone
from napari_unetvnet.settings import SegmentJob, TrainJob, checked

TINY = {
    "network": "unet_padding", "option": {"width": 2, "depth": 2}, "patch": (1, 16, 16), "batch": 2, "view": "2d",
    "steps_per_epoch": 2, "steps": 4, "loss": "dice_ce", "precision": "fp32", "unlabelled": "background",
    "device": "cpu", "learning_rate": 0.01,
}  # fmt: skip
SHAPE = (6, 64, 64)


def write_inputs(folder, shape=SHAPE):
    """Write an image of squares and its labels."""
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    for z, y, x in rng.integers(0, (shape[0], shape[1] - 8, shape[2] - 8), (8 * shape[0], 3)):
        labels[z, y : y + 8, x : x + 8] = 1
    np.save(folder / "image.npy", (labels + rng.normal(0, 0.3, labels.shape)).astype(np.float32))
    np.save(folder / "labels.npy", labels)
    return folder


def training(files, folder, **changes):
    """Make a run folder of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"image": str(files / "image.npy"), "label": str(files / "labels.npy")}
    runs.create(folder, checked(TrainJob, TINY | sources | changes))
    return folder


def segmentation(files, folder, **changes):
    """Make a run folder of a segmentation of several slabs."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"image": str(files / "image.npy"), "model": str(files / "model.safetensors"), "device": "cpu"}
    values |= {"tile": (1, 32, 32), "batch": 2, "precision": "fp32"} | changes
    runs.create(folder, checked(SegmentJob, values))
    return folder


def follow(folder, *, resume=False, stop_at=None):
    """Run to the end, or until a number of planes is finished; give the last event."""
    for event in runs.run(folder, resume=resume):
        if stop_at and isinstance(event, SlabDone) and event.stop >= stop_at:
            runs.ask_to_stop(folder)
    return event


def content(path):
    """Give the bytes of a file, or of each file of a folder but those with times in them."""
    if not path.is_dir():
        return path.read_bytes() if path.exists() else None
    return {str(each.relative_to(path)): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


def in_child(work):
    """Do work in a forked process, which it may end; give what it returns, or how it ended.

    Returns
    -------
    status : int
        0, or the number of the signal that ended it, as a negative number, or its exit status.
    value
        What the work returned, or the lines of an exception.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:  # pragma: no cover
        try:
            os.close(reading)
            try:
                status, value = 0, work()
            except BaseException as error:  # noqa: BLE001 (reported by the parent)
                status, value = 1, (type(error).__name__, str(error), traceback.format_exc())
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(value, pipe)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, state = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(state), pickle.loads(text) if text else None  # noqa: S301 (of our own child)
