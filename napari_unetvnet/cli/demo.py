"""Demonstration on a real image: paint one half, train, segment the whole image, evaluate on the unpainted half."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unetvnet.settings import SegmentJob, TrainJob, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["demo"]

SAMPLES = Path(__file__).parents[1] / "samples"
BACKGROUND, NUCLEUS = 1, 2


def demo(folder: Path, minutes: float, *, viewer: bool = True) -> Iterator[str]:
    """Train on the left half of the nuclei image, segment all of it, and show the result.

    Parameters
    ----------
    folder : Path
        For labels, model, result and overlay; created if missing.
    minutes : float
        Training time.
    viewer : bool
        Whether to open napari if there is a display.

    Yields
    ------
    str
        Progress messages.

    Raises
    ------
    FileProblem
        If the folder cannot be written.
    """
    from napari_unetvnet.images.io import read_labels, read_volume, write_labels
    from napari_unetvnet.metrics import evaluate
    from napari_unetvnet.runs import new_folder

    folder = new_folder("demo", folder.absolute())
    image, objects = read_volume(SAMPLES / "nuclei.tif"), read_labels(SAMPLES / "nuclei_objects.tif").data[0]
    painted = paint_half(objects)
    write_labels(folder / "painted.tif", painted, image)
    yield f"Image of {image.shape[1]} x {image.shape[2]} pixels, left half painted: {folder / 'painted.tif'}"
    yield f"Training a small U-Net on it for {minutes:g} minute(s) ..."
    training = {
        "image": str(SAMPLES / "nuclei.tif"),
        "label": str(folder / "painted.tif"),
        "option": {"width": 16},
        "minutes": minutes,
        "unlabelled": "ignore",
        "background": BACKGROUND,
        "output": folder / "nuclei.safetensors",
    }
    _run(checked(TrainJob, training), folder / "train")
    result = folder / "segmented.tif"
    segmenting = {"image": training["image"], "model": str(training["output"]), "output": result}
    _run(checked(SegmentJob, segmenting), folder / "segment")
    labels = read_labels(result).data[0]
    unpainted = slice(image.shape[2] // 2, None)
    scores = evaluate(labels[..., unpainted], objects[..., unpainted], truth_is="objects")
    yield f"On the unpainted half: Dice {scores.foreground.dice:.3f}, object F1 {scores.objects.f1:.3f}"
    overlay = folder / "overlay.png"
    _write_overlay(overlay, image.data[0, 0], labels[0])
    yield f"Labels: {result}"
    yield f"Overlay: {overlay}"
    if viewer and _has_display():
        from napari_unetvnet.widgets.show import show

        yield "Opening napari; close its window to continue."
        show(image.data[0, 0], {"painted": painted[0], "segmented": labels[0]})
    elif viewer:
        yield "There is no display, so napari was not opened; open the overlay instead."


def paint_half(objects: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Label every pixel of the left half, and none of the right half.

    Parameters
    ----------
    objects : array of shape (Z, Y, X)
        Ids of the nuclei, 0 between them.

    Returns
    -------
    array of uint8 of the same shape
        0 unpainted, 1 background, 2 nucleus.
    """
    import numpy as np

    painted = np.where(objects > 0, NUCLEUS, BACKGROUND).astype(np.uint8)
    painted[..., objects.shape[-1] // 2 :] = 0
    return painted


def _run(job: TrainJob | SegmentJob, folder: Path) -> None:
    from napari_unetvnet.cli.progress import Progress
    from napari_unetvnet.runs import create, run

    folder.mkdir()
    create(folder, job)
    with Progress(sys.stderr) as progress:
        for event in run(folder):
            progress.show(event)


def _write_overlay(path: Path, image: NDArray[Any], labels: NDArray[np.integer]) -> None:
    """Draw the outlines of the result over the image (Y, X), and a line at the end of the painted half."""
    import numpy as np
    from PIL import Image
    from skimage.segmentation import find_boundaries

    low, high = np.percentile(image, [1, 99.8])
    gray = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255
    picture = np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
    picture[:, image.shape[1] // 2] = (255, 255, 255)
    picture[find_boundaries(labels, mode="inner")] = (255, 170, 0)
    Image.fromarray(picture).save(path)


def _has_display() -> bool:
    """Whether a window can be opened; macOS and Windows are assumed to have a display."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(screen) or not sys.platform.startswith("linux")
