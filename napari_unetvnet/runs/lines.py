"""Write the lines in labels as paths, in CSV files that napari opens as shapes."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.files import writing
from napari_unetvnet.images.written import delivering
from napari_unetvnet.postprocess import paths_of
from napari_unetvnet.runs.outputs import lines_beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["write_lines"]


def write_lines(output: Path, labels: Any, values: Sequence[int], *, is_series: bool = False) -> list[Path]:
    """Write the lines of some classes beside labels, a file for each class.

    Parameters
    ----------
    output : Path
        The label file; the lines of value 2 go to ``NAME_lines_2.csv``.
    labels : integer array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
    values : sequence of int
        Label values of the lines.
    is_series : bool
        Whether the labels have time points before these axes.

    Returns
    -------
    list of Path

    Raises
    ------
    FileProblem
        If a file cannot be written.
    """
    points = range(labels.shape[0]) if is_series else [None]
    kept = [axis for axis in range(-4 if is_series else -3, 0) if axis != -3 or labels.shape[-3] > 1]
    written = []
    for value in values:
        path = lines_beside(output, value)
        paths = [vertices for point in points for vertices in _paths(labels, point, value)]
        with writing(path), delivering(path) as (temporary,):
            _write(temporary, paths, kept)
        written.append(path)
    return written


def _paths(labels: Any, point: int | None, value: int) -> Iterator[NDArray[np.float64]]:
    """Find the lines of a value in an image, or in a time point, which is then the first coordinate."""
    frame = labels if point is None else labels[point]
    for mask in frame if frame.ndim == 4 else frame[None]:
        for each in paths_of(mask, (value,)):
            yield each.vertices if point is None else np.insert(each.vertices, 0, point, axis=1)


def _write(path: Path, paths: Sequence[NDArray[np.float64]], kept: Sequence[int]) -> None:
    """Write some coordinates of the vertices t, z, y, x, counted from the last, in napari's form."""
    axes = [f"axis-{number}" for number in range(len(kept))]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["index", "shape-type", "vertex-index", *axes])
        for index, vertices in enumerate(paths):
            rows.writerows([index, "path", i, *vertex[list(kept)].tolist()] for i, vertex in enumerate(vertices))
