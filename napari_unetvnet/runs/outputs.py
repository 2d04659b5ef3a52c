"""The files that a job writes: the results, and the tables beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.images.class_names import tables_beside
from napari_unetvnet.images.formats import format_of
from napari_unetvnet.images.sources import stem_of
from napari_unetvnet.runs.folder import OBJECTS
from napari_unetvnet.settings.postprocess import PostprocessSettings

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.settings import CleanJob, Job

__all__ = ["lines_beside", "outputs_of", "table_beside"]


def outputs_of(job: Job | CleanJob) -> list[Path]:
    """List the paths that a job may write to.

    Returns
    -------
    list of Path
        With the table of objects unless the job asks for classes.
    """
    arrays = [getattr(job, name, None) for name in ("output", "probabilities", "uncertainty")]
    paths = [path for path in arrays if path is not None]
    if job.output is None or not isinstance(job, PostprocessSettings):
        return paths
    file_format = format_of(job.output)
    paths += tables_beside(job.output) if file_format and file_format.tables else ()
    paths += [table_beside(job.output)] if job.objects != "none" else []
    return [*paths, *(lines_beside(job.output, value) for value in job.thin)]


def table_beside(output: Path) -> Path:
    """Return the path of the table of objects that belongs to a label file."""
    return output.with_name(f"{stem_of(output)}_{OBJECTS}")


def lines_beside(output: Path, value: int) -> Path:
    """Return the path of the lines of a label value that belong to a label file."""
    return output.with_name(f"{stem_of(output)}_lines_{value}.csv")
