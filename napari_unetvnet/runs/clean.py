"""Clean labels and write what comes of it: for the clean command, and at the end of a segmentation.

A run keeps the network's labels as they are, so that a run that was interrupted ends alike: what was made of them lies
beside them.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.files import replacing, replacing_all, writing
from napari_unetvnet.images.io import check_writable, read_labels, write_labels
from napari_unetvnet.images.sources import stem_of
from napari_unetvnet.postprocess import postprocess
from napari_unetvnet.runs.folder import CLEANED, OBJECTS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.postprocess import Table
    from napari_unetvnet.settings import CleanJob, SegmentJob

__all__ = ["clean_file", "finish", "table_beside", "write_table"]


def clean_file(job: CleanJob) -> Path | None:
    """Clean a label file.

    Parameters
    ----------
    job : CleanJob

    Returns
    -------
    Path or None
        The table of the objects, beside the result, if there are any to be told apart.

    Raises
    ------
    FileProblem
        If a file is missing, cannot be read or cannot be written.
    DataProblem
        If the file holds no labels, or they do not fit the chosen rule.
    """
    check_writable(job.output, "labels")
    found = read_labels(job.labels, job.spacing)
    volume = replace(found, unit=job.unit) if found.unit == "pixel" else found
    cleaned = postprocess(np.asarray(volume.data[0]), job, volume.spacing, volume.unit)
    write_labels(job.output, cleaned.labels, volume)
    if cleaned.table is None:
        return None
    return write_table(table_beside(job.output), cleaned.table)


def finish(folder: Path, job: SegmentJob, labels: NDArray[Any], volume: Volume) -> NDArray[Any]:
    """Clean the labels of a run, if that is wanted, and write the result and the table of objects.

    Parameters
    ----------
    folder : Path
        The run's.
    job : SegmentJob
    labels : integer array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
        All of them finished; memory-mapped. The whole image is needed, about 10 bytes a voxel beside it: see
        `postprocess`.
    volume : Volume
        The image that they belong to.

    Returns
    -------
    array of the same shape
        The labels themselves if nothing is wanted.

    Raises
    ------
    FileProblem
        If a table cannot be written.
    DataProblem
        If the labels do not fit the chosen rule.
    """
    if not job.postprocessed:
        return labels
    cleaned = postprocess(labels, job, volume.spacing, volume.unit)
    smallest = cleaned.labels.astype(np.min_scalar_type(int(cleaned.labels.max())), copy=False)
    tables = [] if cleaned.table is None else [folder / OBJECTS]
    if cleaned.table is not None and job.output is not None:
        tables.append(table_beside(job.output))
    with writing(job.output or folder), replacing_all([folder / CLEANED, *tables]) as parts:
        np.save(parts[0], smallest)
        for part in parts[1:]:
            _write_rows(part, cleaned.table or {})
    return smallest


def table_beside(output: Path) -> Path:
    """Give the place for the table of objects of a label file.

    Parameters
    ----------
    output : Path

    Returns
    -------
    Path
    """
    return output.with_name(f"{stem_of(output)}_{OBJECTS}")


def write_table(path: Path, table: Table) -> Path:
    """Write a table as CSV, complete or not at all.

    Parameters
    ----------
    path : Path
    table : dict of str to array
        Columns of equal length.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    FileProblem
        If it cannot be written.
    """
    with writing(path), replacing(path) as part:
        _write_rows(part, table)
    return path


def _write_rows(path: Path, table: Table) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(table)
        rows.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
