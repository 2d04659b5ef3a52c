"""Write the lines in labels as paths, in CSV files that napari opens as shapes."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from napari_unetvnet.files import writing
from napari_unetvnet.images.written import delivering
from napari_unetvnet.postprocess import paths_of
from napari_unetvnet.runs.outputs import lines_beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["write_lines"]


def write_lines(output: Path, labels: NDArray[Any], values: Sequence[int]) -> list[Path]:
    """Write the lines of some classes beside labels, a file for each class.

    Parameters
    ----------
    output : Path
        The label file; the lines of value 2 go to ``NAME_lines_2.csv``.
    labels : integer array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
    values : sequence of int
        Label values of the lines.

    Returns
    -------
    list of Path

    Raises
    ------
    FileProblem
        If a file cannot be written.
    """
    masks = labels if labels.ndim == 4 else labels[None]
    written = []
    for value in values:
        path = lines_beside(output, value)
        paths = [each.vertices for mask in masks for each in paths_of(mask, (value,))]
        with writing(path), delivering(path) as (temporary,):
            _write(temporary, paths, first_axis=1 if masks.shape[1] == 1 else 0)
        written.append(path)
    return written


def _write(path: Path, paths: Sequence[NDArray[np.float64]], first_axis: int) -> None:
    """Write vertices z, y, x, or y, x of a 2D image, in napari's form."""
    axes = [f"axis-{number}" for number in range(3 - first_axis)]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["index", "shape-type", "vertex-index", *axes])
        for index, vertices in enumerate(paths):
            rows.writerows([index, "path", i, *vertex[first_axis:].tolist()] for i, vertex in enumerate(vertices))
