"""What the network sees: view, network, voxel size, patch and batch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.images.resample import LEAST_CHANGE, grid_at, spacing_in
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.training.plan.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["batch", "network", "patch", "target_spacing", "view"]

COARSE = 3.0
"""Planes so many times as far apart as voxels within them are not for 3D convolutions."""
FEW_PLANES = 8
STEP_VOXELS = {"cpu": 2**16, "cuda": 2**20}
"""What a step looks at: on a CPU many small steps reach more in minutes than few large ones."""
PLANE_PATCH, BLOCK_VOXELS = 128, 2**16
STEP = 16
"""Most networks halve their input four times."""
WIDTH = {"cpu": 16, "cuda": 32}


def view(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """See volumes as blocks, unless planes lie far apart, are few, or few of them carry labels."""
    del device
    depth = max(pair.image.shape[0] for pair in pairs)
    z, y, x = pairs[0].image.spacing
    coarse = z / min(y, x)
    if depth == 1:
        return [Choice("view", "2d", "the images are planes")]
    if not _has_form(settings, 3):
        return [Choice("view", "2d", f"{settings.network} has no 3D form")]
    if depth < FEW_PLANES:
        return [Choice("view", "2.5d", f"there are only {depth} planes")]
    if coarse >= COARSE:
        return [Choice("view", "2.5d", f"planes are {coarse:.1f} times as far apart as pixels")]
    if settings.unlabelled == "ignore":
        painted, planes = _painted(pairs)
        if painted < max(3, planes // 10):
            return [Choice("view", "2.5d", f"only {painted} of {planes} planes carry labels")]
    return [Choice("view", "3d", "the images are volumes with labels in most planes")]


def _painted(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Count planes with labels, and planes."""
    planes = [np.asarray(pair.labels.data[:, z]).any() for pair in pairs for z in range(pair.labels.shape[0])]
    return int(np.sum(planes)), len(planes)


def _has_form(settings: TrainSettings, dims: int) -> bool:
    if "network" not in settings.model_fields_set:
        return True
    return dims in NETWORKS.describe(settings.network).facts.get("supported_dims", (2, 3))


def network(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Take a plain U-Net, as wide as the device trains in minutes."""
    del pairs
    if "network" in settings.model_fields_set:
        return []
    chosen = [Choice("network", settings.network, "a plain U-Net that learns fast")]
    if "option" not in settings.model_fields_set:
        chosen.append(Choice("option", {"width": WIDTH[device]}, f"what a {device.upper()} trains in minutes"))
    return chosen


def target_spacing(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Bring images of different voxel sizes to their median."""
    del device
    unit = pairs[0].image.unit
    sizes = [spacing_in(pair.image.spacing, pair.image.unit, unit) for pair in pairs]
    known = np.array([size for size in sizes if size is not None])
    known = known[:, 1:] if settings.dims == 2 else known
    if len(known) < len(pairs) or (known.max(axis=0) <= LEAST_CHANGE * known.min(axis=0)).all():
        return []
    median = [float(np.median([size[axis] for size in sizes if size is not None])) for axis in range(3)]
    return [Choice("target_spacing", median, f"the median of voxel sizes that differ, in {unit}")]


def patch(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Take a part of a plane, or a block that is as wide on each side."""
    del device
    planar, spacing = settings.dims == 2, settings.target_spacing
    shapes = [grid_at(pair.image, spacing, planar=planar) for pair in pairs]
    shape = [int(np.median([one[axis] for one in shapes])) for axis in range(3)]
    if planar:
        edges = [1, min(PLANE_PATCH, _whole(shape[1])), min(PLANE_PATCH, _whole(shape[2]))]
        return [Choice("patch", edges, "a part of a plane that fits the images")]
    block = _block(shape, spacing or pairs[0].image.spacing)
    return [Choice("patch", list(block), "a block as wide on each side, within the images")]


def _block(shape: Sequence[int], spacing: Sequence[float]) -> Triple:
    """Give a block of about BLOCK_VOXELS voxels, equally long on each axis, no longer than the images."""
    fine = [s / min(spacing) for s in spacing]
    for edge in range(256, STEP - 1, -8):
        found = [min(_whole(n), max(STEP, STEP * round(edge / f / STEP))) for n, f in zip(shape, fine, strict=True)]
        if prod(found) <= BLOCK_VOXELS * 1.25:
            return found[0], found[1], found[2]
    return STEP, STEP, STEP


def _whole(length: int) -> int:
    """Shorten an axis to what networks take without padding."""
    return max(length // STEP * STEP, min(length, STEP))


def batch(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Fill a step."""
    del pairs
    count = min(32, max(2, round(STEP_VOXELS[device] / prod(settings.planned_patch))))
    return [
        Choice("batch", count, f"a step looks at {round(count * prod(settings.planned_patch) / 1000)} thousand voxels")
    ]
