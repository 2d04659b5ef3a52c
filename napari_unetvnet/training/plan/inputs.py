"""Rules for the input of the network: view, network, voxel size, patch and batch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.images.resample import LEAST_CHANGE, grid_at, spacing_in
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.training.plan.choice import Decision
from napari_unetvnet.training.plan.extent import object_widths
from napari_unetvnet.training.plan.learning import rarest_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["batch", "context", "network", "patch", "target_spacing", "view"]

COARSE = 3.0
"""Above this ratio of plane distance to pixel size, 3D convolutions are not used."""
FEW_PLANES = 8
STEP_VOXELS = {"cpu": 2**16, "cuda": 2**20}
"""Voxels per step: on a CPU, many small steps learn more in minutes than few large ones."""
PLANE_PATCH = 128
BLOCK_VOXELS = {"cpu": 2**16, "cuda": 2**19}
LEAST_EDGE = 8.0
"""Voxels that the smallest class keeps along each axis where images are made coarser for the largest one."""
MOST_COARSE, HELD = 3.0, 0.8
"""How many times coarser at most, and how much of a block's edge the largest object then takes."""
NEAR, PLANES_BESIDE = 1.5, 2
"""Up to this ratio of plane distance to pixel size, boundaries are learnt from so many planes on each side
(benchmarks/auto.md, planes beside)."""
RARE = 0.015
"""Share of a class below which volumes are learnt from planes (benchmarks/auto.md, views)."""
STEP = 16
"""Most networks halve their input four times."""


def view(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose 3D for volumes, unless planes are far apart, few, mostly unlabelled, or objects larger than a block."""
    if max(pair.image.shape[0] for pair in pairs) == 1:
        return [Decision("view", "2d", "the images are planes")]
    if not _has_form(settings, 3):
        return [Decision("view", "2d", f"{settings.network} has no 3D form")]
    if reason := _against_blocks(pairs) or _labels_against_blocks(settings, pairs, device):
        return [Decision("view", "2.5d", reason)]
    if settings.unlabelled == "ignore":
        painted, planes = _painted(pairs)
        return [Decision("view", "3d", f"the images are volumes, and {painted} of {planes} planes have labels")]
    return [Decision("view", "3d", "the images are volumes")]


def _against_blocks(pairs: Sequence[Pair]) -> str:
    """Say why the planes of the images are better seen with their neighbours than in blocks; empty if they are not."""
    depth = max(pair.image.shape[0] for pair in pairs)
    z, y, x = pairs[0].image.spacing
    if depth < FEW_PLANES:
        return f"there are only {depth} planes"
    return f"planes are {z / min(y, x):.1f} times as far apart as pixels" if z / min(y, x) >= COARSE else ""


def _labels_against_blocks(settings: TrainSettings, pairs: Sequence[Pair], device: str) -> str:
    """Say why labels are better learnt from planes than from blocks; empty if they are not."""
    if settings.label_values == "objects" and settings.objects_as == "boundaries":
        return "boundaries are thin, so what is far away along z tells little of them"
    if settings.unlabelled == "ignore":
        painted, planes = _painted(pairs)
        return f"only {painted} of {planes} planes have labels" if painted < max(3, planes // 10) else ""
    largest, block = max(object_widths(pairs, settings).values(), default=0.0), _block_edge(pairs, device)
    if largest > block:
        return f"objects are up to {largest:.0f} voxels wide, and a {device.upper()} learns from blocks of {block:.0f}"
    share = 1.0 if settings.label_values == "objects" or settings.multilabel else rarest_share(pairs, settings)
    return f"a class has {share:.1%} of the voxels, and planes show more different places" if share < RARE else ""


def _block_edge(pairs: Sequence[Pair], device: str) -> float:
    """Give the edge of a cube as large as a planned block, in voxels of the finest axis."""
    spacing = pairs[0].image.spacing
    shape = [int(np.median([pair.image.shape[axis] for pair in pairs])) for axis in range(3)]
    block = _block(shape, spacing, BLOCK_VOXELS[device])
    return float((prod(block) * prod(spacing)) ** (1 / 3) / min(spacing))


def context(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Show more planes on each side where they are as near as pixels and boundaries go on in them."""
    del device
    z, y, x = pairs[0].image.spacing
    if settings.view != "2.5d" or settings.objects_as != "boundaries" or z > NEAR * min(y, x):
        return []
    return [Decision("context", PLANES_BESIDE, "boundaries go on in the next planes, which are as near as pixels")]


def _painted(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Count the planes with labels, and all planes."""
    planes = [np.asarray(pair.labels.data[:, z]).any() for pair in pairs for z in range(pair.labels.shape[0])]
    return int(np.sum(planes)), len(planes)


def _has_form(settings: TrainSettings, dims: int) -> bool:
    if "network" not in settings.model_fields_set:
        return True
    return dims in NETWORKS.describe(settings.network).facts.get("supported_dims", (2, 3))


def network(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose a plain U-Net."""
    del pairs, device
    if "network" in settings.model_fields_set:
        return []
    return [Decision("network", settings.network, "a plain U-Net, which learns fast")]


def target_spacing(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Resample images with different voxel sizes to their median, and coarser where a block is smaller than objects."""
    unit = pairs[0].image.unit
    sizes = [spacing_in(pair.image.spacing, pair.image.unit, unit) for pair in pairs]
    comparable = np.array([size for size in sizes if size is not None])
    comparable = comparable[:, 1:] if settings.dims == 2 else comparable
    if len(comparable) < len(pairs):
        return []
    median = [float(np.median([size[axis] for size in sizes if size is not None])) for axis in range(3)]
    if (times := _coarser(settings, pairs, device)) > 1:
        coarse = [max(edge, round(times * min(median), 6)) for edge in median]
        return [Decision("target_spacing", coarse, f"{times:.2g} times coarser, a block holds a whole object")]
    if (comparable.max(axis=0) <= LEAST_CHANGE * comparable.min(axis=0)).all():
        return []
    return [Decision("target_spacing", median, f"the median of different voxel sizes, in {unit}")]


def _coarser(settings: TrainSettings, pairs: Sequence[Pair], device: str) -> float:
    """Give how many times coarser images have to be for a block to hold the largest object, and keep the smallest."""
    chosen = settings.view != "3d" or "patch" in settings.model_fields_set
    widths = {} if chosen else object_widths(pairs, settings)
    if not widths or max(widths.values()) <= _block_edge(pairs, device):
        return 1.0
    wanted = max(widths.values()) / (HELD * _block_edge(pairs, device))
    return float(min(MOST_COARSE, np.ceil(4 * wanted) / 4, max(1.0, min(widths.values()) / LEAST_EDGE)))


def patch(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose a part of a plane, or a block of equal physical edges."""
    planar, spacing = settings.dims == 2, settings.target_spacing
    shapes = [grid_at(pair.image, spacing, planar=planar) for pair in pairs]
    shape = [int(np.median([lengths[axis] for lengths in shapes])) for axis in range(3)]
    if planar:
        edges = (1, min(PLANE_PATCH, _divisible(shape[1])), min(PLANE_PATCH, _divisible(shape[2])))
        return [Decision("patch", list(settings.built_for(edges)), "a part of a plane that fits the images")]
    block = _block(shape, spacing or pairs[0].image.spacing, BLOCK_VOXELS[device])
    return [Decision("patch", list(settings.built_for(block)), "a block with equal edges, within the images")]


def _block(shape: Sequence[int], spacing: Sequence[float], voxels: int) -> Triple:
    """Give a block of about so many voxels, of equal physical edges, not larger than the images."""
    fine = [s / min(spacing) for s in spacing]
    for edge in range(256, STEP - 1, -8):
        block = [min(_divisible(n), max(STEP, STEP * round(edge / f / STEP))) for n, f in zip(shape, fine, strict=True)]
        if prod(block) <= voxels * 1.25:
            return block[0], block[1], block[2]
    return STEP, STEP, STEP


def _divisible(length: int) -> int:
    """Shorten an axis to a length that networks take without padding."""
    return max(length // STEP * STEP, min(length, STEP))


def batch(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose the batch for a fixed number of voxels per step."""
    del pairs
    count = min(32, max(2, round(STEP_VOXELS[device] / prod(settings.planned_patch))))
    return [
        Decision("batch", count, f"a step has {round(count * prod(settings.planned_patch) / 1000)} thousand voxels")
    ]
