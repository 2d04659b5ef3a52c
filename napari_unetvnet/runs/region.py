"""The first model of a segmentation in two: it finds the region in which the second one is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import UserError
from napari_unetvnet.events import Event, Notice
from napari_unetvnet.files import replacing
from napari_unetvnet.images.arrays import FileArray
from napari_unetvnet.runs.channels import given_names, image_for
from napari_unetvnet.runs.folder import FOUND_REGION, REGION
from napari_unetvnet.runs.models import find_model
from napari_unetvnet.settings import ComputeSettings, SegmentSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import SegmentJob

__all__ = ["find_region"]

SHARED = (*ComputeSettings.model_fields, "tile_memory", "mirror_edge", "box_start", "box_stop")
"""Settings that both models use."""


def find_region(
    folder: Path, job: SegmentJob, volume: Volume, mask: Any, *, again: bool
) -> Generator[Event, None, Any]:
    """Apply the first model of a job, and write its region into the run folder.

    Parameters
    ----------
    mask : array of shape (1, Z, Y, X), or None
        The region lies within it.
    again : bool
        Whether a run is resumed, which uses the region that it found before.

    Yields
    ------
    Event
        A notice of what was found, and events without data.

    Returns
    -------
    array of shape (1, Z, Y, X), or None
        0 outside the region; the mask itself if there is no such model.

    Raises
    ------
    UserError
        If the model does not fit the image.
    """
    if job.region_model is None:
        return mask
    path, shape = folder / REGION, (1, *volume.shape)
    if again and path.exists() and (stored := FileArray(path)).shape == shape:
        return stored
    with replacing(path) as part, replacing(folder / FOUND_REGION) as found_part:
        found = FileArray.create(found_part, volume.shape, np.bool_)
        yield from _find(job, volume, mask, found)
        region = FileArray.create(part, shape, np.bool_)
        yield from _enlarge(job, volume, mask, found, region)
    (folder / FOUND_REGION).unlink()
    return FileArray(path)


def _find(job: SegmentJob, volume: Volume, mask: Any, found: FileArray) -> Iterator[Event]:
    """Write the voxels of the region's classes."""
    from napari_unetvnet import inference
    from napari_unetvnet.inference.region import cut_of, region_classes, voxels_of
    from napari_unetvnet.model.normalisation import normalisation
    from napari_unetvnet.runs.loaded import loaded_model

    settings = SegmentSettings(**{name: getattr(job, name) for name in SHARED})
    model = loaded_model(find_model(str(job.region_model)), settings)
    classes, cut = region_classes(model.card, job.region_class), cut_of(model.card, job.region_threshold)
    yield Notice(f"Finding the region with {job.region_model}.")
    try:
        volume, _, texts = image_for(
            model.card, volume, given_names(job.image, job.channel_names, volume.channels, volume.channel_names)
        )
        yield from map(Notice, texts)
        scale = normalisation(volume, model.card, mask)
        if job.precision == "auto" and (text := inference.choose_precision(model, volume, settings, scale)):
            yield Notice(text)
        options = {"probabilities": cut is not None, "mask": mask, "scale": scale}
        for slab in inference.FallbackSteps(model, volume, settings).steps(**options):
            if isinstance(slab, Notice):
                yield slab
                continue
            stop = slab.start + slab.labels.shape[-3]
            found[slab.start : stop] = voxels_of(slab, model.card, classes, cut)
            yield Event()  # the run may be stopped here
    except UserError as problem:
        raise type(problem)(*(f"The region model {job.region_model}: {line}" for line in problem.lines)) from None


def _enlarge(job: SegmentJob, volume: Volume, mask: Any, found: FileArray, region: FileArray) -> Iterator[Event]:
    """Write the region around what was found, and say how large it is."""
    from napari_unetvnet.inference.region import margin_along_axes, object_boxes, region_planes

    boxes, count = object_boxes(found, job.region_largest)
    if not count:
        classes = ", ".join(job.region_class) or "object"
        yield Notice(
            f"{job.region_model} finds no {classes} in {volume.name}, so nothing is labelled; choose a lower "
            "region_threshold, another region_class or another model."
        )
        return
    voxels = 0
    for start, planes in region_planes(
        found, boxes, job.region_shape, margin_along_axes(job.region_margin, volume.spacing)
    ):
        stop = start + len(planes)
        inside = planes if mask is None else planes & (np.asarray(mask[0, start:stop]) != 0)
        region[0, start:stop] = inside
        voxels += int(np.count_nonzero(inside))
        yield Event()
    objects = f"{len(boxes)} of {count} objects" if len(boxes) < count else f"{count} object{'s' if count > 1 else ''}"
    yield Notice(f"Region: {objects}, {100 * voxels / np.prod(volume.shape):.3g} % of {volume.name}.")
