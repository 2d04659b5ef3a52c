"""The image layer of a run that another viewer or terminal started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import UserError
from napari_unetvnet.widgets.layers import shape_of
from napari_unetvnet.widgets.snapshot import IMAGES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["image_of_run"]


def image_of_run(folder: Path, viewer: Any, chosen: Any) -> Any:
    """Give the layer on whose grid the labels of a run lie.

    Parameters
    ----------
    folder : Path
        The run folder.
    chosen : napari Image layer or None
        Taken if it has the intensities of the run; else the copy in the run folder becomes a layer.

    Returns
    -------
    napari Image layer or None
        None of a run that has no copy, because it was started in a terminal on a file.
    """
    files = sorted((folder / IMAGES).glob("*.npy"))
    if not files:
        return None
    stored = np.load(files[0], mmap_mode="r")
    try:
        if chosen is not None and shape_of(chosen) == stored.shape[-len(shape_of(chosen)) :]:
            data = np.squeeze(np.asarray(chosen.data))
            if data.shape == np.squeeze(stored).shape and np.array_equal(data, np.squeeze(stored)):
                return chosen
    except UserError:  # a layer that cannot be an input
        pass
    return viewer.add_image(np.squeeze(stored), name=files[0].stem)
