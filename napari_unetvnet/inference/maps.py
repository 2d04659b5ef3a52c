"""The outputs of a model besides its logits, slab by slab on the grid of the image."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.inference.content import framed, part_to_segment
from napari_unetvnet.inference.labels import of_classes
from napari_unetvnet.inference.regrid import plane_before, regrid
from napari_unetvnet.inference.segment import check_fits, resample_for
from napari_unetvnet.inference.slab import MapSlab
from napari_unetvnet.inference.slabs import scores
from napari_unetvnet.model.normalisation import normalisation

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.outputs import OutputModel
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["map_steps"]


def map_steps(
    model: OutputModel,
    volume: Volume,
    settings: SegmentSettings,
    *,
    first_plane: int = 0,
    scale: Intensity | None = None,
) -> Generator[MapSlab]:
    """Compute an output of a model slab by slab, of the part of the volume that would be segmented.

    In a frame of one value around it, attention maps and reconstructions are 0, levels say background with certainty,
    and heat maps are NaN.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    settings : SegmentSettings
        How tiles lie and are blended; without test-time augmentation.
    first_plane : int
        Planes before it are left out.
    scale : Intensity, optional
        How to normalise the volume (default: by the card, measured on the volume).

    Yields
    ------
    MapSlab
        Levels are probabilities of the classes, a reconstruction has the intensities of the image, heat maps are not
        scaled yet.

    Raises
    ------
    DataProblem
        If the volume does not fit the model.
    OutOfMemory
        If one batch of tiles does not fit on the device.
    """
    card = model.card
    check_fits(model, volume, settings)
    model.network.eval()
    scale = scale or normalisation(volume, card)
    box = part_to_segment(model, volume, settings)
    first = max(0, first_plane - box.start[0])
    part = volume if box.shape == volume.shape else volume.crop(box)
    slabs = _computed(model, part, settings, first, scale) if first < box.shape[0] else None
    yield from framed(slabs, box, volume.shape, first_plane, partial(_frame, model, volume.shape))


def _frame(model: OutputModel, shape: Triple, start: int, depth: int) -> MapSlab:
    """Make planes of a frame."""
    background = [float(value == 0) for value in model.card.values]
    maps: dict[str, NDArray[np.float32]] = {}
    for name, channels in model.parts.items():
        values = background if model.what == "levels" else [np.nan if model.what == "heatmaps" else 0.0] * channels
        maps[name] = np.empty((len(values), depth, *shape[1:]), np.float32)
        maps[name][:] = np.array(values, np.float32)[:, None, None, None]
    return MapSlab(start, maps)


def _computed(
    model: OutputModel, volume: Volume, settings: SegmentSettings, first_plane: int, scale: Intensity
) -> Generator[MapSlab]:
    """Compute an output of all of a volume."""
    resampled = resample_for(model.card, volume, settings)
    same = resampled is volume
    first = first_plane if same else plane_before(first_plane, resampled.shape[0], volume.shape[0])
    slabs = scores(model, resampled, settings, scale, first)
    channels = list(model.parts.values())
    finished = (
        (start, torch.cat([_finished(part, model, scale) for part in torch.split(values, channels)]))
        for start, values in slabs
    )
    for start, values in finished if same else regrid(finished, resampled.shape, volume.shape, first_plane):
        equal = len(values) // len(channels)  # the parts of an output have equally many channels
        arrays = (part.cpu().numpy() for part in torch.split(values, equal))
        yield MapSlab(start, dict(zip(model.parts, arrays, strict=True)))


def _finished(part: Tensor, model: OutputModel, scale: Intensity) -> Tensor:
    """Bring a part of an output, (N, dz, Y, X), to its final values."""
    if model.what == "levels":
        return of_classes(part, model.card)
    if model.what == "attention":
        return part.clamp(0, 1)  # blending may round beyond
    if model.what == "reconstruction":
        shift, factor = (torch.from_numpy(v).to(part)[:, None, None, None] for v in (scale.shift, scale.scale))
        return part * factor + shift
    return part
