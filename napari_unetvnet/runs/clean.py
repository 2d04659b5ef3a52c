"""Clean labels and write the result: for the clean command, and at the end of a segmentation.

A run keeps the labels of the network unchanged and writes the cleaned labels to a second file, so that an interrupted
run can be resumed with the same result.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.files import writing
from napari_unetvnet.images.arrays import FileArray, new_array
from napari_unetvnet.images.io import check_writable, labels_of, opened_labels, write_labels
from napari_unetvnet.images.outputs import check_fits, place_not_kept, refuse_replacing
from napari_unetvnet.images.written import claimed, delivering, refuse_foreign
from napari_unetvnet.postprocess import postprocess
from napari_unetvnet.runs.folder import CLEANED, OBJECTS
from napari_unetvnet.runs.inputs import spacing_notice
from napari_unetvnet.runs.lines import write_lines
from napari_unetvnet.runs.outputs import outputs_of, table_beside

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.postprocess import Table
    from napari_unetvnet.settings import CleanJob, SegmentJob

__all__ = ["CleanedFile", "clean_file", "finish", "write_table"]


class CleanedFile(NamedTuple):
    """What was written beside a cleaned label file, and what is to be said about it.

    ``tables`` holds the table of "Objects", if the labels were divided into objects, and "Lines", if some were thinned.
    """

    tables: dict[str, list[Path]]
    notices: tuple[str, ...] = ()


def clean_file(job: CleanJob) -> CleanedFile:
    """Clean a label file.

    Returns
    -------
    CleanedFile

    Raises
    ------
    FileProblem
        If a file is missing, cannot be read or cannot be written.
    DataProblem
        If the file holds no labels, or they do not suit the chosen method.
    """
    check_writable(job.output, "labels")
    refuse_replacing(outputs_of(job), [job.labels])
    refuse_foreign(outputs_of(job), overwrite=job.overwrite)
    with claimed([job.output]) as unrecorded:
        written = _cleaned(job)
    return written._replace(notices=(*written.notices, unrecorded) if unrecorded else written.notices)


def _cleaned(job: CleanJob) -> CleanedFile:
    """Clean a label file whose output was checked, of a time series each time point by itself."""
    labels = opened_labels(job.labels)
    points = [None] if labels.time is None else list(range(labels.time.points))
    volume = labels_of(labels, job.spacing, point=points[0])
    check_fits(job.output, "labels", volume.shape, points=len(points))  # the number of objects is not known yet
    geometry = volume.geometry.completed(unit=job.unit)
    name = volume.name if labels.time is None else labels.volume_name
    volume = replace(volume, geometry=geometry, time=labels.time, name=name)
    if labels.time is None:
        one = postprocess(np.asarray(volume.data[0]), job, volume.spacing, volume.unit)
        cleaned, table = one.labels, one.table
    else:
        cleaned = new_array((len(points), *volume.shape), np.result_type(np.uint32, volume.data.dtype))
        frames = (np.asarray(labels_of(labels, job.spacing, point=point).data[0]) for point in points)
        objects = _clean_frames(frames, job, volume, cleaned)
        table = objects if job.object_rule else None
    write_labels(job.output, cleaned, volume)
    tables = [] if table is None else [write_table(table_beside(job.output), table)]
    lines = write_lines(job.output, cleaned, job.thin, is_series=labels.time is not None)
    written = {"Objects": tables, "Lines": lines}
    notices = (spacing_notice([(volume.name, volume.geometry)], job), place_not_kept(job.output, volume))
    tables_written = {name: paths for name, paths in written.items() if paths}
    return CleanedFile(tables_written, tuple(text for text in notices if text))


def finish(folder: Path, job: SegmentJob, labels: NDArray[Any], volume: Volume) -> Any:
    """Clean the labels of a run if its job asks for it, and write the result and the table of objects.

    Parameters
    ----------
    folder : Path
        The run folder.
    labels : integer array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
        Complete and memory-mapped. Cleaning works on the whole image and takes about 10 bytes per voxel more: see
        `postprocess`. Of a time series with T before these axes; each time point is cleaned by itself.
    volume : Volume
        The image, or the first time point of a series with its time axis.

    Returns
    -------
    array of the same shape
        The labels themselves if no cleaning is set.

    Raises
    ------
    FileProblem
        If a table cannot be written.
    DataProblem
        If the labels do not suit the chosen method.
    """
    if not job.postprocessed:
        return labels
    if volume.time is not None:
        return _finish_series(folder, job, labels, volume)
    cleaned = postprocess(labels, job, volume.spacing, volume.unit)
    compact = cleaned.labels.astype(np.min_scalar_type(int(cleaned.labels.max())), copy=False)
    tables = [] if cleaned.table is None else [folder / OBJECTS]
    if cleaned.table is not None and job.output is not None:
        tables.append(table_beside(job.output))
    with writing(job.output or folder), delivering(folder / CLEANED, *tables) as temporary_paths:
        np.save(temporary_paths[0], compact)
        for temporary in temporary_paths[1:]:
            _write_rows(temporary, cleaned.table or {})
    write_lines(job.output or folder / CLEANED, compact, job.thin)
    return compact


def _finish_series(folder: Path, job: SegmentJob, labels: NDArray[Any], volume: Volume) -> FileArray:
    """Clean each time point by itself; tables have a column with the time point."""
    tables = [folder / OBJECTS] if job.object_rule else []
    tables += [table_beside(job.output)] if tables and job.output is not None else []
    with writing(job.output or folder), delivering(folder / CLEANED, *tables) as temporary_paths:
        cleaned = FileArray.create(temporary_paths[0], labels.shape, np.uint32)
        table = _clean_frames(labels, job, volume, cleaned)
        for temporary in temporary_paths[1:]:
            _write_rows(temporary, table)
    written = FileArray(folder / CLEANED)
    write_lines(job.output or folder / CLEANED, written, job.thin, is_series=True)
    return written


def _clean_frames(frames: Iterable[NDArray[Any]], job: SegmentJob | CleanJob, volume: Volume, cleaned: Any) -> Table:
    """Clean time points one by one into an array, and give the table of all objects."""
    columns: dict[str, list[Any]] = {}
    for number, frame in enumerate(frames):
        one = postprocess(frame, job, volume.spacing, volume.unit)
        cleaned[number] = one.labels
        rows = one.table or {}
        count = len(next(iter(rows.values()), ()))
        for name, values in {"time": np.full(count, number), **rows}.items():
            columns.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in columns.items()}


def write_table(path: Path, table: Table) -> Path:
    """Write a table as CSV, atomically.

    Parameters
    ----------
    table : dict of str to array
        Columns of equal length.

    Returns
    -------
    Path
        The given path.

    Raises
    ------
    FileProblem
        If it cannot be written.
    """
    with writing(path), delivering(path) as (temporary,):
        _write_rows(temporary, table)
    return path


def _write_rows(path: Path, table: Table) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(table)
        rows.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
