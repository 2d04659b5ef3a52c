"""Check that reduced precision reproduces the fp32 labels of the image to segment.

A block is labelled in both number formats. It is the block of the middle planes with the highest variance, and small,
so that the check is cheap. Images that are hardly larger than it are segmented in fp32 without a check.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.errors import OutOfMemory
from napari_unetvnet.inference.labels import label_values
from napari_unetvnet.inference.segment import check_fits, resample_for
from napari_unetvnet.inference.slabs import read_block
from napari_unetvnet.model.device import faster_formats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["choose_precision"]

BLOCK = {2: (1, 128, 128), 3: (32, 64, 64)}
"""Voxels z y x of the block, by the dimensions of the network."""
LEAST_TIMES = 6
"""Images with fewer times the voxels of the block are segmented in fp32 without a check."""
AGREEMENT = 0.999
"""Fraction of the labels that must agree."""


def choose_precision(model: Model, volume: Volume, settings: SegmentSettings, scale: Intensity) -> str:
    """Let a model compute in the fastest number format whose labels agree with those of fp32.

    Parameters
    ----------
    model : Model
        Moved to that format.
    volume : Volume
        The image to segment.
    scale : Intensity
        How to normalise the volume.

    Returns
    -------
    str
        Notice for the user; empty unless the fastest format does not agree, or the block does not fit into memory.
    """
    check_fits(model, volume, settings)
    resampled, formats = resample_for(model.card, volume, settings), faster_formats(model.device)
    size = _block_size(model, resampled.shape)
    if not formats or prod(resampled.shape) < LEAST_TIMES * prod(size):
        model.move_to(model.device, "fp32")
        return ""
    start = _most_varied(resampled, size)
    stop = [a + n for a, n in zip(start, size, strict=True)]
    raw = read_block(model, resampled, start, stop, model.margin, settings.mirror_edge)
    block = torch.from_numpy(scale.apply(raw)).to(model.device)
    try:
        return _fastest(partial(_labels, model, block, cascade=settings.cascade), formats)
    except OutOfMemory:
        model.move_to(model.device, "fp32")
        return "A part of the image did not fit into the memory of the device to compare number formats; fp32 is used."


def _fastest(labels: Callable[[str], Tensor], formats: Sequence[str]) -> str:
    """Choose the first format, from the fastest on, whose labels agree; fp32 agrees with itself."""
    exact, disagreeing = labels("fp32"), []
    for name in (*formats, "fp32"):
        share = float((labels(name) == exact).float().mean())
        if name == "fp32" or share >= AGREEMENT:
            break
        disagreeing.append(f"{100 * share:.5g} % of the labels in {name}")
    if not disagreeing:
        return ""
    shares = " and ".join(disagreeing)
    return f"On a part of the image only {shares} agree with fp32, so {name} is used, which is slower."


def _block_size(model: Model, shape: Triple) -> Triple:
    """Give the size z, y, x of the block."""
    return model.fit([min(a, b) for a, b in zip(BLOCK[model.card.dims], shape, strict=True)])


def _most_varied(resampled: Volume, size: Triple) -> Triple:
    """Give the first voxel of the block of the middle planes with the highest variance."""
    depth, height, width = resampled.shape
    z = max(0, (depth - size[0]) // 2)
    planes = np.asarray(resampled.data[:, z : z + size[0]])
    corners = [(y, x) for y in _starts(height, size[1]) for x in _starts(width, size[2])]
    spread = [float(planes[:, :, y : y + size[1], x : x + size[2]].std()) for y, x in corners]
    y, x = corners[int(np.argmax(spread))]
    return z, y, x


def _starts(length: int, size: int) -> list[int]:
    """Give the starts of adjacent blocks along an axis; the last block ends with the axis."""
    return [*range(0, length - size, size), max(0, length - size)]


@torch.inference_mode()
def _labels(model: Model, block: Tensor, precision: str, *, cascade: bool) -> Tensor:
    """Label a block (C, Z, Y, X) with its margin in a number format; the model stays in it."""
    model.move_to(model.device, precision)
    return label_values(model.logits(block[None], cascade=cascade)[0], model.card)
