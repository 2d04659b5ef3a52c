"""Read the input images of a job, with their labels for a training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.io import PairFiles, find_pairs, read_labels, read_pairs_csv, read_volume
from napari_unetvnet.images.pairs import Pair, describe_pairs, same_name
from napari_unetvnet.images.subjects import subjects_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import Job, TrainJob

__all__ = ["pair_files", "pairs_text", "read_image", "read_pair"]


def pair_files(job: TrainJob) -> list[PairFiles]:
    """List the files of each pair.

    Returns
    -------
    list of PairFiles

    Raises
    ------
    FileProblem
        If a file or the table is missing.
    DataProblem
        If files cannot be paired, or a set has no labels.
    """
    if job.pairs is not None:
        return read_pairs_csv(job.pairs)
    images = [source for entry in job.image for source, _ in subjects_of(entry) or [(entry, "")]]
    pairs = find_pairs(images, job.label, in_order=job.in_order) if job.label else _with_own_labels(job.image)
    masks = dict(_with_masks([image for image, _ in pairs], job)) if job.mask else {}
    return [PairFiles(image, label, "", masks.get(image, "")) for image, label in pairs]


def _with_masks(images: Sequence[str], job: TrainJob) -> list[tuple[str, str]]:
    return find_pairs(images, job.mask, ("images", "masks"), in_order=job.in_order)


def _with_own_labels(sources: Sequence[str]) -> list[tuple[str, str]]:
    """List the subjects of sets with their labels."""
    pairs = []
    for source in sources:
        subjects = subjects_of(source)
        if not subjects or not all(labels for _, labels in subjects):
            raise DataProblem(f"{source} is no set of images with labels (data and truth); give --label.")
        pairs += subjects
    return pairs


def pairs_text(files: Sequence[PairFiles], job: TrainJob) -> str:
    """Tell which labels each image has, and where they were paired by something else than their names.

    Returns
    -------
    str
        Of many pairs, those in the middle are left out.
    """
    how = "\nThey were paired in order, not by name." if job.in_order else ""
    if len(files) == 1 and job.pairs is None and job.label and not same_name(files[0].image, files[0].label):
        how = "; the names differ, but there is one of each."
    return describe_pairs(files) + how


def read_image(source: str, job: Job) -> Volume:
    """Read an image; spacing and unit come from the job if the file has none.

    Parameters
    ----------
    source : str
        One file, or the channel files of one image separated by ``|``.

    Returns
    -------
    Volume

    Raises
    ------
    FileProblem
        If a file is missing or cannot be read.
    DataProblem
        If a file holds no image.
    """
    image = read_volume(source, job.spacing, job.axes or "")
    return replace(image, unit=job.unit) if image.unit == "pixel" else image


def read_pair(files: PairFiles, job: TrainJob) -> Pair:
    """Read an image and its labels; spacing and unit come from the job if the files have none.

    Returns
    -------
    Pair

    Raises
    ------
    FileProblem
        If a file is missing or cannot be read.
    DataProblem
        If a file holds no image, or no labels.
    """
    image = read_image(files.image, job)
    overlapping = job.label_values == "overlapping"
    labels = read_labels(files.label, job.spacing, job.axes or "", overlapping=overlapping)
    mask = read_labels(files.mask, job.spacing, job.axes or "") if files.mask else None
    return Pair(image, labels, files.split, mask)
