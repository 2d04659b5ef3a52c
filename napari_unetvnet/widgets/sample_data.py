"""Samples for File > Open Sample, painted to match the defaults of the Train form.

Label 1 is background, 2 and above are classes, 0 is unpainted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    LayerData = tuple[NDArray[Any], dict[str, Any], str]

__all__ = ["BACKGROUND", "OBJECT", "blobs", "nuclei", "nuclei_with_scribbles"]

BACKGROUND, OBJECT = 1, 2
SAMPLES = Path(__file__).parents[1] / "samples"
STROKES, STROKE_LENGTH, STROKE_WIDTH = 20, 21, 3
BLOB_SHAPE, BLOB_SPACING, BLOBS = (32, 96, 96), (2.0, 1.0, 1.0), 40


def nuclei() -> list[LayerData]:
    """Nuclei in a fluorescence microscope, every pixel painted.

    Returns
    -------
    list of layer data
        Image (Y, X) of uint16 and labels of the same shape.
    """
    image, objects = _read_nuclei()
    painted = np.where(objects > 0, OBJECT, BACKGROUND).astype(np.uint8)
    return [(image, {"name": "nuclei"}, "image"), (painted, {"name": "nuclei labels", "opacity": 0.4}, "labels")]


def nuclei_with_scribbles() -> list[LayerData]:
    """Nuclei with a few strokes in nuclei and between them, less than 1 % of the pixels.

    Returns
    -------
    list of layer data
        Image (Y, X) of uint16 and labels of the same shape.
    """
    image, objects = _read_nuclei()
    return [(image, {"name": "nuclei"}, "image"), (scribble(objects), {"name": "scribbles"}, "labels")]


def blobs() -> list[LayerData]:
    """Round blobs in a small noisy stack with anisotropic voxels, with ground truth.

    Returns
    -------
    list of layer data
        Image (Z, Y, X) of uint16 and labels of the same shape; voxel size 2 x 1 x 1 micrometres.
    """
    image, painted = make_blobs()
    space = {"scale": BLOB_SPACING, "units": ("micrometer",) * 3, "axis_labels": ("z", "y", "x")}
    return [
        (image, {"name": "blobs", **space}, "image"),
        (painted, {"name": "blobs labels", "opacity": 0.4, **space}, "labels"),
    ]


def _read_nuclei() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    from tifffile import imread

    image, objects = (np.asarray(imread(SAMPLES / name)) for name in ("nuclei.tif", "nuclei_objects.tif"))
    return image, objects


def scribble(objects: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Draw short strokes, spread over the image, as a user would.

    Parameters
    ----------
    objects : array of shape (Y, X)
        Ids of objects, 0 between them.

    Returns
    -------
    array of uint8 of the same shape
        0, and strokes of BACKGROUND and OBJECT.
    """
    painted = np.zeros(objects.shape, np.uint8)
    rng = np.random.default_rng(0)
    for value, region in ((BACKGROUND, objects == 0), (OBJECT, objects > 0)):
        for y, x in _stroke_centres(region, rng):
            _stroke(painted, region, (y, x), value, rng)
    return painted


def _stroke_centres(region: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose pixels well inside a region, one in each cell of a grid."""
    from scipy.ndimage import distance_transform_edt

    inside = np.argwhere(distance_transform_edt(region) > STROKE_WIDTH)
    rows, columns = 4, STROKES // 4
    cells = inside * (rows, columns) // region.shape
    centres = []
    for cell in np.ndindex(rows, columns):
        candidates = inside[(cells == cell).all(axis=1)]
        if len(candidates):
            centres.append(candidates[rng.integers(len(candidates))])
    return np.array(centres)


def _stroke(
    painted: NDArray[np.uint8],
    region: NDArray[np.bool_],
    centre: tuple[int, int],
    value: int,
    rng: np.random.Generator,
) -> None:
    """Draw a slanted line as far as it stays inside the region."""
    angle, half = rng.uniform(0, np.pi), STROKE_WIDTH // 2
    for sign in (1, -1):
        for t in range(STROKE_LENGTH // 2):
            y = round(centre[0] + sign * t * np.sin(angle))
            x = round(centre[1] + sign * t * np.cos(angle))
            brush = (slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1))
            if not region[brush].all() or not region[brush].size:
                break
            painted[brush] = value


def make_blobs(seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Generate a noisy stack of round blobs.

    Returns
    -------
    image : array of uint16, shape (Z, Y, X)
    labels : array of uint8, shape (Z, Y, X)
        BACKGROUND and OBJECT everywhere.
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    positions = np.stack(np.meshgrid(*map(np.arange, BLOB_SHAPE), indexing="ij"), axis=-1) * BLOB_SPACING
    inside = np.zeros(BLOB_SHAPE, bool)
    size = np.array(BLOB_SHAPE) * BLOB_SPACING
    for centre in rng.uniform(0, 1, (BLOBS, 3)) * size:
        inside |= ((positions - centre) ** 2).sum(axis=-1) < rng.uniform(5, 10) ** 2
    blurred = gaussian_filter(inside.astype(np.float32), 1 / np.array(BLOB_SPACING))
    bright = 300 + 900 * blurred * gaussian_filter(rng.uniform(0.5, 1.5, BLOB_SHAPE), 4)
    image = rng.poisson(bright) + rng.normal(0, 120, BLOB_SHAPE)
    return image.clip(0, 65535).astype(np.uint16), np.where(inside, OBJECT, BACKGROUND).astype(np.uint8)
