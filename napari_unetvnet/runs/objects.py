"""Settle whether a segmentation gives classes or single objects, by what its model learnt from."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from napari_unetvnet.images.resample import spacing_in

if TYPE_CHECKING:
    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.card import ModelCard, ObjectsLearnt
    from napari_unetvnet.settings import SegmentJob

__all__ = ["settle_objects"]

BYTES = 15
"""Bytes per voxel that dividing an image takes; large components take more."""


def settle_objects(job: SegmentJob, card: ModelCard, volume: Volume) -> tuple[SegmentJob, str]:
    """Replace objects=auto by what the model was made for.

    Parameters
    ----------
    volume : Volume
        The image.

    Returns
    -------
    job : SegmentJob
        With another value of objects than auto.
    notice : str
        What was chosen, and how to choose otherwise; empty if the model learnt classes.
    """
    if job.objects != "auto":
        return job, ""
    classes = job.model_copy(update={"objects": "none"})
    if card.objects is None or job.thin or job.nested != "none":
        return classes, ""
    rule, needed, memory = card.objects.rule, BYTES * prod(volume.shape), _memory_bytes()
    if needed > memory:
        return classes, (
            f"The model learnt single objects, but to find them in an image this large takes at least "
            f"{needed / 2**30:.1f} GiB, more than the {memory / 2**30:.1f} GiB of this machine, so the result holds "
            f"classes; with more memory, clean --objects {rule} divides them."
        )
    edges = _edges(card, volume)
    chosen: dict[str, object] = {"objects": rule, "split_depth": _split_depth(card.objects, edges, volume)}
    told = "The model learnt single objects, so the result holds an id for each"
    if not job.min_size:
        least = max(1, round(card.objects.least_voxels * prod(edges) / prod(volume.spacing)))
        chosen |= {"min_size": ((0, float(least)),), "min_size_in": "voxels"}
        told += f", without pieces below {least} voxels, half of the smallest one that it learnt from"
    return job.model_copy(update=chosen), f"{told}; choose objects=none for its classes."


def _edges(card: ModelCard, volume: Volume) -> Spacing:
    """Give the voxel edges that the network sees, in the unit of the image."""
    learnt = spacing_in(card.spacing, card.unit, volume.unit) if card.resampled else None
    return volume.spacing if learnt is None else learnt


def _split_depth(learnt: ObjectsLearnt, edges: Spacing, volume: Volume) -> float | None:
    """Give how deep a neck must be, in the unit of the image."""
    if learnt.split_edges is None:
        return None
    return learnt.split_edges * max((edge for edge, n in zip(edges, volume.shape, strict=True) if n > 1), default=1.0)


def _memory_bytes() -> int:
    """Give the memory of the machine: what is free may change until a run is resumed, and its result must not."""
    import psutil

    return int(psutil.virtual_memory().total)
