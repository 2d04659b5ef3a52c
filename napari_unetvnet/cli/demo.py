"""Demonstration on a real image: segment it with a shipped model, train on with one half painted, score the other."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.settings import SegmentJob, TrainJob, checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.ranking import Fit

__all__ = ["best_shipped", "demo"]

SAMPLES = Path(__file__).parents[1] / "samples"
BACKGROUND, NUCLEUS = 1, 2
SHIPPED, TRAINED = "Shipped", "Trained"
"""What results are called."""


def demo(folder: Path, minutes: float, *, viewer: bool = True) -> Iterator[str]:
    """Segment the nuclei image with a shipped model, improve it with labels of the left half, and show both results.

    Without a shipped model that fits, a model is trained on the left half from random weights.

    Parameters
    ----------
    folder : Path
        For labels, model, results and overlay; created if missing.
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
    from napari_unetvnet.runs import new_folder

    folder = new_folder("demo", folder.absolute())
    image, objects = read_volume(SAMPLES / "nuclei.tif"), read_labels(SAMPLES / "nuclei_objects.tif").data[0]
    results: dict[str, NDArray[Any]] = {}
    shipped = best_shipped(image)
    if shipped is None:
        yield "No model that comes with the program fits this image, so one is trained from the start."
    else:
        yield f"Segmenting with the model {shipped.name}, which comes with the program: {shipped.about} ..."
        results[SHIPPED] = _segment(shipped.path, folder, "shipped")
        yield f"Done without any training, {_seconds():.0f} s after the start. {_scored(results[SHIPPED], objects)}"
    ids = shipped is not None and shipped.card.objects is not None
    painted = half_of(objects) if ids else paint_half(objects)
    write_labels(folder / "painted.tif", painted, image)
    write_labels(folder / "mask.tif", half_of(np.ones_like(objects)), image)
    yield f"Image of {image.shape[1]} x {image.shape[2]} pixels, left half painted: {folder / 'painted.tif'}"
    yield f"Training {'on from that model' if shipped else 'a small U-Net on it'} for {minutes:g} minute(s) ..."
    model = _train(folder, minutes, None if shipped is None else shipped.path, ids=ids)
    results[TRAINED] = _segment(model, folder, "segmented")
    yield from (f"{name}: {_scored(labels, objects)}" for name, labels in results.items())
    _write_overlay(folder / "overlay.png", image.data[0, 0], [labels[0] for labels in results.values()])
    yield f"Labels: {folder / 'segmented.tif'}"
    yield f"Overlay{' (shipped left, trained right)' if shipped else ''}: {folder / 'overlay.png'}"
    yield from _shown(image.data[0, 0], painted[0], results, viewer=viewer)


def best_shipped(image: Volume) -> Fit | None:
    """Give the shipped model that fits an image best; None if no image of its training was like it.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)

    Returns
    -------
    Fit or None
    """
    from napari_unetvnet.model.card import shipped_models
    from napari_unetvnet.model.ranking import facts_of, rank

    return next((fit for fit in rank(shipped_models(), facts_of(image)) if fit.alike), None)


def _seconds() -> float:
    """Give the seconds since the command was started."""
    import psutil

    return time.time() - psutil.Process().create_time()


def _train(folder: Path, minutes: float, start: Path | None, *, ids: bool) -> Path:
    """Train on the painted half, ids of nuclei or classes, from a model or from random weights."""
    model = folder / "nuclei.safetensors"
    training: dict[str, Any] = {
        "image": str(SAMPLES / "nuclei.tif"),
        "label": str(folder / "painted.tif"),
        "minutes": minutes,
        "start_from": start,
        "output": model,
    }
    if ids:  # between the nuclei is background, and the mask hides the other half
        training |= {"label_values": "objects", "unlabelled": "background", "mask": str(folder / "mask.tif")}
    else:
        training |= {"unlabelled": "ignore", "background": BACKGROUND}
    training |= {"option": {"width": 16}} if start is None else {}
    _run(checked(TrainJob, training), folder / "train")
    return model


def _segment(model: Path, folder: Path, name: str) -> NDArray[Any]:
    """Segment the image, and read the labels (Z, Y, X)."""
    from napari_unetvnet.images.io import read_labels

    result = folder / f"{name}.tif"
    segmenting = {"image": str(SAMPLES / "nuclei.tif"), "model": str(model), "output": result}
    _run(checked(SegmentJob, segmenting), folder / f"{name}_run")
    return np.asarray(read_labels(result).data[0])


def _scored(labels: NDArray[Any], objects: NDArray[Any]) -> str:
    """Score the half that is not painted."""
    from napari_unetvnet.metrics import evaluate

    unpainted = slice(objects.shape[-1] // 2, None)
    scores = evaluate(labels[..., unpainted], objects[..., unpainted], truth_is="objects")
    return f"On the unpainted half: Dice {scores.foreground.dice:.3f}, object F1 {scores.objects.f1:.3f}"


def _shown(
    image: NDArray[Any], painted: NDArray[Any], results: dict[str, NDArray[Any]], *, viewer: bool
) -> Iterator[str]:
    """Open napari with the results, if there is a display."""
    if viewer and _has_display():
        from napari_unetvnet.widgets.show import show

        yield "Opening napari; close its window to continue."
        show(image, {"painted": painted} | {name.lower(): labels[0] for name, labels in results.items()})
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
    painted = np.where(objects > 0, NUCLEUS, BACKGROUND).astype(np.uint8)
    painted[..., objects.shape[-1] // 2 :] = 0
    return painted


def half_of(labels: NDArray[Any]) -> NDArray[Any]:
    """Keep the left half of labels (Z, Y, X); the right half becomes 0."""
    half = labels.copy()
    half[..., labels.shape[-1] // 2 :] = 0
    return half


def _run(job: TrainJob | SegmentJob, folder: Path) -> None:
    from napari_unetvnet.cli.progress import Progress
    from napari_unetvnet.runs import create, run

    folder.mkdir()
    create(folder, job)
    with Progress(sys.stderr) as progress:
        for event in run(folder):
            progress.show(event)


def _write_overlay(path: Path, image: NDArray[Any], results: Sequence[NDArray[Any]]) -> None:
    """Draw the outlines of results over the image (Y, X), side by side, and a line at the end of the painted half."""
    from PIL import Image
    from skimage.segmentation import find_boundaries

    low, high = np.percentile(image, [1, 99.8])
    gray = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255
    pictures = []
    for labels in results:
        picture = np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
        picture[:, image.shape[1] // 2] = (255, 255, 255)
        picture[find_boundaries(labels, mode="inner")] = (255, 170, 0)
        pictures.append(picture)
    Image.fromarray(np.concatenate(pictures, axis=1)).save(path)


def _has_display() -> bool:
    """Whether a window can be opened; macOS and Windows are assumed to have a display."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(screen) or not sys.platform.startswith("linux")
