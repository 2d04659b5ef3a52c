"""Segment a volume slab by slab, on its original grid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.images.arrays import cut
from napari_unetvnet.images.resample import at_spacing, grid_at, spacing_in
from napari_unetvnet.inference.content import framed, part_to_segment, within
from napari_unetvnet.inference.labels import (
    activated,
    as_logits,
    background_logits,
    class_probabilities,
    label_values,
    leave_out,
)
from napari_unetvnet.inference.regrid import plane_before, regrid
from napari_unetvnet.inference.selection import select
from napari_unetvnet.inference.slab import Slab
from napari_unetvnet.inference.slabs import parts, scores
from napari_unetvnet.inference.sums import Part
from napari_unetvnet.inference.uncertainty import entropy
from napari_unetvnet.inference.views import multi_view_scores
from napari_unetvnet.model.card import check_channels
from napari_unetvnet.model.normalisation import normalisation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["check_fits", "resample_for", "steps"]

CHUNK_VOXELS = {"cpu": 2**18, "cuda": 2**24}
"""Voxels that are labelled at a time: on a CPU, their intermediate results fit into its cache."""


def steps(
    model: Model,
    volume: Volume,
    settings: SegmentSettings,
    *,
    first_plane: int = 0,
    probabilities: bool = False,
    mask: Any = None,
    scale: Intensity | None = None,
) -> Generator[Slab]:
    """Segment a volume slab by slab.

    Logits are kept for one tile depth only, so memory does not grow with Z. A frame of one value is background, and
    what it surrounds is segmented as if there were none. An image that is smaller than the smallest input of the
    network is mirrored at its borders, as tiles are that reach beyond an image.

    Parameters
    ----------
    model : Model
        Its card fixes the view, the patch size and the normalisation.
    volume : Volume, data of shape (C, Z, Y, X)
        C must equal the card's channel count. Read by slicing, once per slab.
    settings : SegmentSettings
        If they ask for uncertainty, slabs have it.
    first_plane : int
        Planes before it are left out; the others are the same as without it.
    probabilities : bool
        Whether slabs have class probabilities, too.
    mask : array of shape (1, Z, Y, X), optional
        Voxels where it is 0 are background, and tiles that are 0 everywhere are not computed. Read by slicing.
    scale : Intensity, optional
        How to normalise the volume (default: by the card, measured on the volume).

    Yields
    ------
    Slab
        Labels of shape (dz, Y, X), or (K, dz, Y, X) if the classes overlap, that are final.

    Raises
    ------
    DataProblem
        If the volume has another number of channels than the model, or holds NaN or infinity, or the mask has another
        size.
    SettingsProblem
        If the view is not the model's, tiles cannot be rotated or skipped as the settings ask, or the box lies outside
        the volume.
    OutOfMemory
        If one batch of tiles does not fit on the device.

    Notes
    -----
    The Gaussian by which tiles are blended has sigma = tile / 8 [1]_. With test-time augmentation, the probabilities of
    all orientations of a tile are averaged.

    References
    ----------
    .. [1] Isensee et al. 2021, nnU-Net, https://doi.org/10.1038/s41592-020-01008-z
    """
    card = model.card
    check_fits(model, volume, settings)
    model.network.eval()
    select(volume, volume.shape, settings, mask)  # raises at once if the box or the mask does not fit
    if settings.skip_constant:
        background_logits(card)  # raises at once if the model has no background class
    scale = scale or normalisation(volume, card, mask)
    box = part_to_segment(model, volume, settings)
    if box.shape == volume.shape:
        yield from _labelled(model, volume, settings, scale, first_plane, mask, probabilities=probabilities)
        return
    within_box, key, first = within(settings, box, volume.shape), (slice(None), *box.slices), first_plane - box.start[0]
    slabs: Generator[Slab] | None = None
    if within_box is not None and first < box.shape[0]:
        cut_mask = None if mask is None else cut(mask, key)
        slabs = _labelled(
            model, volume.crop(box), within_box, scale, max(0, first), cut_mask, probabilities=probabilities
        )
    background = partial(_background, card, settings, volume.shape, probabilities)
    yield from framed(slabs, box, volume.shape, first_plane, background)


def _labelled(
    model: Model,
    volume: Volume,
    settings: SegmentSettings,
    scale: Intensity,
    first_plane: int,
    mask: Any,
    *,
    probabilities: bool,
) -> Generator[Slab]:
    """Segment all of a volume slab by slab."""
    card, resampled = model.card, resample_for(model.card, volume, settings)
    selection = select(volume, resampled.shape, settings, mask)
    first_resampled = (
        first_plane if resampled is volume else plane_before(first_plane, resampled.shape[0], volume.shape[0])
    )
    if resampled is volume and settings.view != "multi-view":
        pieces = parts(model, resampled, settings, scale, first_resampled, selection)
    else:
        blended = multi_view_scores if settings.view == "multi-view" else scores
        slabs = blended(model, resampled, settings, scale, first_resampled, selection)
        if resampled is not volume:
            slabs = _on_original_grid(slabs, card, resampled.shape, volume.shape, first_plane)
        pieces = (Part(start, 0, logits) for start, logits in slabs)
    for slab in _slabs(pieces, card, volume.shape[1], settings, probabilities=probabilities):
        if selection is not None:
            selected = selection.planes(slab.start, slab.start + slab.labels.shape[-3])
            leave_out(selected, slab.labels, slab.probabilities, card, slab.uncertainty)
        yield slab


def _background(
    card: ModelCard, settings: SegmentSettings, shape: Triple, probabilities: bool, start: int, depth: int
) -> Slab:
    """Make a slab of background."""
    logits = torch.zeros(card.outputs + (settings.uncertainty_kind == "variance"), 1, 1, 1)
    voxels = {name: make(logits) for name, make in _makers(card, settings, probabilities=probabilities).items()}
    size = depth, *shape[1:]
    slab = Slab(start, **{name: np.zeros((*one.shape[:-3], *size), one.dtype) for name, one in voxels.items()})
    leave_out(np.zeros(size, bool), slab.labels, slab.probabilities, card, slab.uncertainty)
    return slab


def _slabs(
    pieces: Iterable[Part], card: ModelCard, height: int, settings: SegmentSettings, *, probabilities: bool
) -> Iterator[Slab]:
    """Compute the arrays of slabs from parts, a few planes at a time to keep intermediate results small."""
    makers = _makers(card, settings, probabilities=probabilities)
    arrays: dict[str, Any] = {}
    for plane, row, logits in pieces:
        depth, rows, width = logits.shape[1:]
        step = max(1, CHUNK_VOXELS[logits.device.type] // (rows * width))
        for z in range(0, depth, step):
            for name, make in makers.items():
                result = make(logits[:, z : z + step])
                if name not in arrays:
                    arrays[name] = np.empty((*result.shape[:-3], depth, height, width), result.dtype)
                arrays[name][..., z : z + step, row : row + rows, :] = result
        del logits, result  # they may be large, and the next ones are about to come
        if row + rows == height:
            yield Slab(plane, **arrays)
            arrays = {}


def _makers(
    card: ModelCard, settings: SegmentSettings, *, probabilities: bool
) -> dict[str, Callable[[Tensor], NDArray[Any]]]:
    """Give functions that compute the arrays of a slab from logits (K, dz, dy, X) and the variance after them."""
    dtype, k = np.min_scalar_type(max(card.values)), card.outputs
    makers: dict[str, Callable[[Tensor], NDArray[Any]]] = {
        "labels": lambda logits: label_values(logits[:k], card).cpu().numpy().astype(dtype, copy=False)
    }
    if probabilities:
        makers["probabilities"] = lambda logits: class_probabilities(logits[:k], card)
    if settings.uncertainty_kind == "variance":
        makers["uncertainty"] = lambda logits: logits[k].half().cpu().numpy()
    elif settings.uncertainty_kind == "entropy":
        makers["uncertainty"] = lambda logits: entropy(logits, card).half().cpu().numpy()
    return makers


def check_fits(model: Model, volume: Volume, settings: SegmentSettings) -> None:
    """Refuse a volume or view that the model was not trained for.

    Raises
    ------
    SettingsProblem
        If the view is not the model's, or is multi-view for a 3D model.
    """
    card = model.card
    if settings.view == "multi-view" and card.dims == 3:
        raise SettingsProblem(
            "Multi-view is for models of view 2d or 2.5d; this model has view 3d. Leave the view out."
        )
    if settings.view not in {None, "multi-view", card.view}:
        raise SettingsProblem(
            f"The model was trained for view {card.view} and cannot segment in {settings.view}; leave the view out."
        )
    check_channels(card, volume)


def _on_original_grid(
    pieces: Iterable[tuple[int, Tensor]], card: ModelCard, resampled: Triple, original: Triple, first_plane: int
) -> Iterator[tuple[int, Tensor]]:
    """Interpolate logits, and the variance after them if any, to the grid of the volume."""
    k = card.outputs
    probabilities = ((start, torch.cat([activated(values[:k], card.head), values[k:]])) for start, values in pieces)
    for start, values in regrid(probabilities, resampled, original, first_plane):
        yield start, torch.cat([as_logits(values[:k], card.head), values[k:]])


def resample_for(card: ModelCard, volume: Volume, settings: SegmentSettings) -> Volume:
    """Resample a volume to the voxel size of the training.

    Returns
    -------
    Volume
        The volume itself if the voxel sizes differ by less than a tenth, or one is unknown. For multi-view, the planes
        are as far apart as the voxels within them.
    """
    unknown = ("pixel", (1.0, 1.0, 1.0))
    comparable = unknown not in {(card.unit, card.spacing), (volume.unit, volume.spacing)}
    target_spacing = spacing_in(card.spacing, card.unit, volume.unit) if comparable and settings.resample else None
    if settings.view != "multi-view":
        return at_spacing(volume, grid_at(volume, target_spacing, planar=card.dims == 2))
    _, y, x = target_spacing or volume.spacing
    return at_spacing(volume, grid_at(volume, (y, y, x) if settings.resample else None, planar=False))
