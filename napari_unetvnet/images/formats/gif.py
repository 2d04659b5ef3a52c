"""GIF images with one frame, as some sets keep their labels and masks; they are only read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.formats.png_jpeg import opened
from napari_unetvnet.images.image_file import ImageFile

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> ImageFile:
    """Read grey values, or the indices of a palette with colours."""
    with reading(path), opened(path, "GIF") as image:
        frames, mode, array = getattr(image, "n_frames", 1), image.mode, np.array(image)
        colours = np.array(image.getpalette() or (), np.uint8).reshape(-1, 3)
    if frames > 1:
        raise DataProblem(f"{path.name} holds {frames} frames; save each as a file.")
    if mode == "P" and (colours == colours[:, :1]).all() and array.max() < len(colours):
        return ImageFile(colours[array, 0][None, None])
    return ImageFile(array[None, None], palette=mode == "P")
