"""Read the input images of a job, with their labels for a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import DataProblem, UserError
from napari_unetvnet.images.axes import UnclearAxes
from napari_unetvnet.images.channels import arranged, match_channels
from napari_unetvnet.images.geometry import UNKNOWN_UNIT
from napari_unetvnet.images.io import PairFiles, find_pairs, read_labels, read_pairs_csv, read_volume
from napari_unetvnet.images.layouts import recognise
from napari_unetvnet.images.outputs import refuse_replacing
from napari_unetvnet.images.pairs import Pair, describe_pairs, names_of, same_name
from napari_unetvnet.images.resample import spacing_in
from napari_unetvnet.images.same_grid import brought_onto
from napari_unetvnet.images.series import SWAPPED, opened
from napari_unetvnet.images.sources import is_folder
from napari_unetvnet.images.subjects import modalities_of, settings_of, subjects_of
from napari_unetvnet.images.units import unit_name
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.channels import NamedFiles, as_in_model, given_names, in_one_order
from napari_unetvnet.runs.time_points import time_points_of
from napari_unetvnet.settings import TrainJob, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.geometry import Geometry
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import CleanJob, InspectJob, Job, SegmentJob

__all__ = ["Inputs", "find_inputs", "keep_inputs", "read_image", "read_pair", "spacing_notice"]


class Inputs(NamedTuple):
    """The files of each pair, the job with what their folder says of them, and the sentences about both."""

    files: list[PairFiles]
    job: TrainJob
    notices: list[str]


def find_inputs(job: TrainJob) -> Inputs:
    """Find the files of each pair, and tell them.

    Returns
    -------
    Inputs

    Raises
    ------
    FileProblem
        If a file or the table is missing.
    DataProblem
        If files cannot be paired, or a set has no labels.
    """
    if job.pairs is not None:
        files = read_pairs_csv(job.pairs)
        return _named(files, job, [])
    if not job.label:
        return _with_own_labels(job)
    images = [source for entry in job.image for source, _ in subjects_of(entry) or [(entry, "")]]
    files = [PairFiles(*pair) for pair in find_pairs(images, job.label, in_order=job.in_order)]
    how = "\nThey were paired in order, not by name." if job.in_order else ""
    if len(files) == 1 and not same_name(files[0].image, files[0].label):
        how = "; the names differ, but there is one of each."
    return _named(_with_masks(files, job), job, [], how)


def keep_inputs(outputs: Sequence[Path], inputs: Inputs) -> None:
    """Refuse outputs of a training that would replace a file which is read, also one in a folder or a table.

    Raises
    ------
    FileProblem
    """
    listed = (source for files in inputs.files for source in (files.image, files.label, files.mask) if source)
    refuse_replacing(outputs, (*listed, *([inputs.job.pairs] if inputs.job.pairs else [])))


def _with_own_labels(job: TrainJob) -> Inputs:
    """List the images of sets, files or folders, with their labels, and take over what the folders say of these."""
    files, notices, settings = list[PairFiles](), list[str](), dict[str, Any]()
    for source in job.image:
        if is_folder(Path(source).expanduser()):
            layout = recognise(Path(source).expanduser(), job.label_kind)
            files += layout.pairs
            notices.append(layout.sentence)
            settings = {**layout.settings, "channel_names": layout.channel_names, **settings}
            continue
        subjects = subjects_of(source)
        if not subjects or not all(labels for _, labels in subjects):
            raise DataProblem(f"{source} is no set of images with labels (data and truth); give --label.")
        files += [PairFiles(*subject) for subject in subjects]
        settings = {**settings_of(source), "channel_names": modalities_of(source), **settings}
    return _named(_with_masks(files, job), _completed(job, settings), notices)


def _named(files: list[PairFiles], job: TrainJob, notices: list[str], how: str = "") -> Inputs:
    """Bring the channels into one order, and name them; ``how`` tells how images and labels were paired."""
    files = time_points_of(files, job.time, job.axes or "")
    named = NamedFiles(files, job.channel_names, []) if job.channel_names else in_one_order(files)
    if not named.names and files and (stored := _stored_names(files[0], job)):
        notices = [*notices, f"The channels are named as in the first image: {', '.join(stored)}."]
        named = named._replace(names=stored)
    if job.start_from is not None and job.start_from.is_file():
        named = as_in_model(named, read_card(job.start_from).channel_names)
    if named.names != job.channel_names:
        job = _completed(job, {}, channel_names=named.names)
    return Inputs(named.files, job, [*notices, describe_pairs(named.files) + how, *named.notices])


def _with_masks(files: list[PairFiles], job: TrainJob) -> list[PairFiles]:
    """Give each image the mask that is named like it."""
    if not job.mask:
        return files
    images = [pair.image for pair in files]
    masks = dict(find_pairs(images, job.mask, ("images", "masks"), in_order=job.in_order))
    return [replace(pair, mask=masks[pair.image]) for pair in files]


def _completed(job: TrainJob, settings: dict[str, Any], **fixed: Any) -> TrainJob:
    """Set what a folder says of its labels, where the job leaves it open; names and regions exclude each other."""
    chosen = {name: getattr(job, name) for name in job.model_fields_set}
    if {"regions", "class_names"} & chosen.keys() or job.label_values != "classes":
        settings = {name: value for name, value in settings.items() if name not in ("regions", "class_names")}
    return checked(TrainJob, settings | chosen | fixed)


def read_image(source: str, job: Job, notices: list[str] | None = None) -> Volume:
    """Read an image; spacing and unit come from the job if the file has none.

    Parameters
    ----------
    source : str
        One file, or the channel files of one image separated by ``|``.
    notices : list of str, optional
        As for `read_volume`.

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
    image = read_volume(source, job.spacing, job.axes or "", notices=notices)
    return replace(image, geometry=image.geometry.completed(unit=job.unit))


def spacing_notice(images: Sequence[tuple[str, Geometry]], job: TrainJob | SegmentJob | CleanJob | InspectJob) -> str:
    """Say that the voxel size of a job is not used, because a file states another one.

    Parameters
    ----------
    images : sequence of (str, Geometry)
        Names, and where the images lie, as `read_image` gives them.

    Returns
    -------
    str
        Empty if it is used, or is the same, or none is set.
    """
    others = [(name, geometry) for name, geometry in images if _states_another(geometry, job)]
    if not others:
        return ""
    name, geometry = others[0]
    size = f"{' x '.join(f'{edge:.4g}' for edge in geometry.spacing)} {geometry.unit}"
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return (
        f"{name}{more} states voxels of {size}, which are used; --spacing and --unit are for files that state "
        "none. To change them, save the file with another voxel size."
    )


def _states_another(geometry: Geometry, job: TrainJob | SegmentJob | CleanJob | InspectJob) -> bool:
    """Whether voxel size or unit differ from those of a job."""
    unit = geometry.unit if unit_name(job.unit) == UNKNOWN_UNIT else unit_name(job.unit)
    if job.spacing is None:
        return unit != unit_name(geometry.unit)
    own = spacing_in(job.spacing, unit, unit_name(geometry.unit))
    return own is None or not np.allclose(own, geometry.spacing, rtol=1e-4, atol=0)


def read_pair(files: PairFiles, job: TrainJob, notices: list[str] | None = None) -> Pair:
    """Read an image and its labels; spacing and unit come from the job if the files have none.

    Labels and mask that are stored mirrored, or along other axes, are brought to those of the image, if the positions
    of both say that they then have the same grid.

    Parameters
    ----------
    notices : list of str, optional
        As for `read_volume`.

    Returns
    -------
    Pair

    Raises
    ------
    FileProblem
        If a file is missing or cannot be read.
    DataProblem
        If a file holds no image, no labels, other channels than are named, or a time series of which no time point is
        named.
    """
    image = _in_order(_image_of(files, job, notices), job, notices)
    given_names(files.image, job.channel_names, image.channels)
    overlapping = job.label_values == "overlapping"
    labels = read_labels(files.label, job.spacing, job.axes or "", overlapping=overlapping)
    mask = read_labels(files.mask, job.spacing, job.axes or "") if files.mask else None
    _check_turned(files, image, labels)
    placed = brought_onto(labels, image.grid), mask and brought_onto(mask, image.grid)
    return Pair(image, placed[0], files.split, placed[1], turned=placed[0] is not labels or placed[1] is not mask)


def _image_of(files: PairFiles, job: TrainJob, notices: list[str] | None) -> Volume:
    """Read the image of a pair; its labels say whether a first axis without a name is planes or channels."""
    try:
        return read_image(files.image, job, notices)
    except UnclearAxes as unclear:
        if job.label_values == "overlapping":
            raise  # the first axis of the labels may be masks
        planes = read_labels(files.label).shape[0]
        if not (axes := unclear.axes_beside(planes)):
            raise
        if notices is not None:
            notices.append(unclear.reading_as(axes, f"its labels have {planes} plane{'s' if planes > 1 else ''}"))
        return read_image(files.image, job.model_copy(update={"axes": axes}), notices)


def _stored_names(files: PairFiles, job: TrainJob) -> tuple[str, ...]:
    """Give the names of the channels that the file of an image holds; empty if there are none, or a single channel."""
    try:
        image = opened(files.image, job.axes or "")
    except UserError:
        return ()  # told when it is read
    volume = image.volume(0 if image.time else None)
    return volume.channel_names if volume.channels > 1 else ()


def _in_order(image: Volume, job: TrainJob, notices: list[str] | None) -> Volume:
    """Bring the channels that a file names into the order of the job, where it has the same names."""
    stored = image.channel_names
    if not stored or len(stored) != len(job.channel_names) or stored == job.channel_names:
        return image
    places = match_channels(stored, job.channel_names)
    if None in places or places == list(range(len(places))):
        return image
    if notices is not None:
        notices.append(f"The channels of {image.name} were put in the order {', '.join(job.channel_names)}.")
    return arranged(image, places, [0.0] * len(places))


def _check_turned(files: PairFiles, image: Volume, labels: Volume) -> None:
    """Refuse labels that were made on a picture as viewers show it, turned by its orientation tag."""
    is_turned = image.orientation in SWAPPED and labels.orientation == 1
    if is_turned and image.shape != labels.shape == (image.shape[0], *image.shape[:0:-1]):
        raise DataProblem(
            f"{names_of(files.image)} has the orientation tag {image.orientation}, so viewers show it turned, and "
            f"{names_of(files.label)} has the size of the turned picture; save the picture as it is shown, without the "
            "tag, and try again."
        )
