"""The jobs of a segmentation of many images: one for each, with results that are named after the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_unetvnet.errors import FileProblem, SettingsProblem
from napari_unetvnet.images.formats import ending_of, endings_for, format_of
from napari_unetvnet.images.layouts.cases import cases_of
from napari_unetvnet.images.outputs import check_folder, refuse_replacing, writing_format
from napari_unetvnet.images.pairs import find_pairs
from napari_unetvnet.images.same_file import same_or_inside
from napari_unetvnet.images.sources import is_folder, paths_of
from napari_unetvnet.images.subjects import placement_of, subjects_of
from napari_unetvnet.images.written import refuse_foreign
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.models import find_model
from napari_unetvnet.runs.outputs import outputs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.formats import Kind
    from napari_unetvnet.images.layouts.cases import Case
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.settings import SegmentJob

__all__ = ["CaseJobs", "case_jobs"]

OUTPUTS: tuple[tuple[str, Kind], ...] = (
    ("output", "labels"),
    ("probabilities", "probabilities"),
    ("uncertainty", "uncertainty"),
)
PICTURE, VOLUME = ".png", ".nii.gz"
"""Endings of results of images whose own format is only read, such as JPEG and HDF5, by the planes that they have."""


class CaseJobs(NamedTuple):
    """The job of each image by its name, and what is to be said of them."""

    jobs: dict[str, SegmentJob]
    notices: list[str]


def case_jobs(job: SegmentJob, ending: str | None = None) -> CaseJobs | None:
    """Make a job for each image of a folder or a set, and their folders of results.

    Parameters
    ----------
    job : SegmentJob
        Its image is the folder or set; its output, and those of probabilities and uncertainty, are folders. Its mask
        may be a folder of masks that are named like the images.
    ending : str, optional
        Of the results; by default that of each image, if its format can hold labels.

    Returns
    -------
    CaseJobs or None
        None if the source is a single image.

    Raises
    ------
    FileProblem
        If a folder cannot be used, or a result would replace a file that is read, or one of someone else.
    DataProblem
        If the images cannot be told apart, or masks cannot be paired with them.
    SettingsProblem
        If an output is named like a file.
    """
    if not (subjects_of(job.image) or is_folder(Path(job.image).expanduser())):
        return None
    card = read_card(find_model(job.model))
    found = cases_of(job.image, join_channels=card.channels > 1)
    places = {name: getattr(job, name) for name, _ in OUTPUTS if getattr(job, name) is not None}
    for place in places.values():
        _check_place(place, found.cases)
    masks, notices = _masks(job, found.cases), [found.sentence]
    if job.mask is None and masks:
        notices.append("Results are 0 where the masks of the images are 0.")
    jobs = {}
    for case in found.cases:
        values = {
            name: places[name] / f"{case.name}{_ending(case, kind, card, ending)}"
            for name, kind in OUTPUTS
            if name in places
        }
        jobs[case.name] = job.model_copy(update={"image": case.image, "mask": masks.get(case.image), **values})
    _keep_files(list(jobs.values()))
    for place in places.values():
        place.mkdir(exist_ok=True)
    return CaseJobs(jobs, notices)


def _check_place(place: Path, cases: Sequence[Case]) -> None:
    """Refuse a folder of results that cannot be made, or that holds images which are read."""
    if place.exists() and not place.is_dir():
        raise FileProblem(f"{place} is a file; name a folder for the results of {len(cases)} images.")
    if format_of(place.name) is not None:
        raise SettingsProblem(
            f"There are {len(cases)} images, so the output is a folder; {place.name} is named like a file. Name a "
            "folder, and choose the format by --ending."
        )
    check_folder(place)
    for folder in {path.parent for case in cases for path in paths_of(case.image)}:
        if same_or_inside(folder, place) and same_or_inside(place, folder):
            raise FileProblem(f"The results would lie among the images in {place}; give another folder.")


def _masks(job: SegmentJob, cases: Sequence[Case]) -> dict[str, str]:
    """Find the mask of each image."""
    if job.mask is None:
        return {case.image: case.mask for case in cases if case.mask}
    if not is_folder(Path(job.mask).expanduser()):
        return {case.image: job.mask for case in cases}
    return dict(find_pairs([case.image for case in cases], [job.mask], ("images", "masks")))


def _ending(case: Case, kind: Kind, card: ModelCard, chosen: str | None) -> str:
    """Choose the ending of a result of an image."""
    if chosen is not None:
        ending = f".{chosen.lstrip('.')}"
        if kind == "labels":
            writing_format(Path(f"result{ending}"), kind)
            return ending
    placement = placement_of(case.image)
    first = f"image{placement.ending}" if placement else paths_of(case.image)[0].name
    masks = kind == "probabilities" or (kind == "labels" and card.overlapping)
    shape = (len(card.values), 1, 1, 1) if masks else (1, 1, 1)
    own, fitting = format_of(first), endings_for(kind, shape, max(card.values))
    if own is not None and ending_of(first) in fitting:
        return ending_of(first)
    picture = own is not None and (own.planes == 1 or own.lossy) and PICTURE in fitting
    return PICTURE if picture else VOLUME


def _keep_files(jobs: Sequence[SegmentJob]) -> None:
    """Refuse all results at once before the first image is read."""
    outputs = [path for job in jobs for path in outputs_of(job)]
    sources = [source for job in jobs for source in (job.image, job.mask) if source]
    refuse_replacing(outputs, [*sources, find_model(jobs[0].model)])
    refuse_foreign(outputs, overwrite=jobs[0].overwrite)
