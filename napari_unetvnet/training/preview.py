"""Preview during training: labels of a small part of the first image, with the running weights.

The first preview comes after 10 s, each further one after twice the time. Previews change nothing that the training
depends on, and one that fails ends the previews, never the training.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unetvnet.data.blocks import block_around, block_of_labels
from napari_unetvnet.data.boxes import intersection, shifted
from napari_unetvnet.errors import UserError
from napari_unetvnet.events import Notice, PreviewReady
from napari_unetvnet.files import replacing
from napari_unetvnet.images.resample import Resampled, place_back
from napari_unetvnet.images.volume import Box, Volume
from napari_unetvnet.inference import label_values, scores
from napari_unetvnet.inference.content import part_to_segment
from napari_unetvnet.model.normalisation import normalisation
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training.ema import ema_weights
from napari_unetvnet.training.frequencies import adapted_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.training.run import Run

__all__ = ["PreviewTimes", "TrainingPreview"]

FIRST_SECONDS = 10.0
WHOLE_PLANE = 768
"""In 2D, planes up to this edge length (voxels) are shown whole."""
PATCHES = 2
"""Edge of the block on each axis, in training patches."""
TIME_SHARE = 0.1
"""Maximum fraction of the training time that previews take."""


class PreviewTimes:
    """When previews are due: after 10 s, 20 s, 40 s and so on."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def due(self, seconds: float) -> bool:
        """Whether the next preview is due; true once for each preview.

        Parameters
        ----------
        seconds : float
            Time since the start.

        Returns
        -------
        bool
        """
        if seconds < self._next:
            return False
        doublings = int(np.log2(max(1.0, seconds / FIRST_SECONDS))) + 1
        self._next = FIRST_SECONDS * 2.0**doublings
        return True

    def took(self, seconds: float) -> None:
        """Delay the next preview if this one was slow.

        Parameters
        ----------
        seconds : float
            Duration of the preview.
        """
        self._next = max(self._next, seconds / TIME_SHARE)


class TrainingPreview:
    """Labels a part of an image with the running weights.

    Parameters
    ----------
    pair : Pair
        The first pair, at the voxel size of the training.
    shape : tuple of 3 int
        Voxels z, y, x of the original image.
    """

    def __init__(self, pair: Pair, run: Run, shape: Triple) -> None:
        self._pair, self._run, self._shape = pair, run, shape
        self._times, self._failed = PreviewTimes(), False

    def due(self, seconds: float) -> bool:
        """Whether the next preview is due.

        Parameters
        ----------
        seconds : float
            Time since the start of the training.

        Returns
        -------
        bool
        """
        return not self._failed and self._times.due(seconds)

    def show(self) -> Iterator[Notice | PreviewReady]:
        """Compute a preview and write it to its file.

        Yields
        ------
        Notice or PreviewReady
            A notice if memory or disk space was short.
        """
        began, path, schedule = time.monotonic(), self._run.files.preview, self._run.schedule
        try:
            _write(path, self._labels())
        except (UserError, MemoryError, torch.cuda.OutOfMemoryError) as error:
            self._failed = True
            torch.cuda.empty_cache()
            yield Notice(f"There are no more previews: {error or 'memory does not suffice'}")
            return
        except OSError as error:  # the disk is full, or a viewer is reading the file: the next one may succeed
            yield Notice(f"A preview could not be written ({error}).")
            return
        finally:
            self._times.took(time.monotonic() - began)
        yield PreviewReady(str(path), self._original_box.start, schedule.taken, schedule.seconds)

    @cached_property
    def _box(self) -> Box:
        """The part to label, at the voxel size of the training."""
        card, shape, centre = self._run.model.card, self._pair.image.shape, self._run.settings.preview
        z, y, x = card.patch
        size = (1, WHOLE_PLANE, WHOLE_PLANE) if card.dims == 2 else (PATCHES * z, PATCHES * y, PATCHES * x)
        if centre is None:
            return block_of_labels(self._pair.labels.data, size)
        return block_around(place_back(centre, self._shape, shape), shape, size)

    @cached_property
    def _content(self) -> Box:
        """The part of the image that a segmentation labels; around it is a frame, which is background."""
        return part_to_segment(self._run.model, self._pair.image, SegmentSettings())

    @cached_property
    def _original_box(self) -> Box:
        """The part to label, in voxels of the original image."""
        shape = self._pair.image.shape
        return Box(place_back(self._box.start, shape, self._shape), place_back(self._box.stop, shape, self._shape))

    @cached_property
    def _scale(self) -> Intensity:
        mask = None if self._pair.mask is None else self._pair.mask.data
        return normalisation(self._pair.image, self._run.model.card, mask)

    def _labels(self) -> NDArray[Any]:
        """Label the part, shape (Z, Y, X)."""
        model = self._run.model
        labels = np.zeros(self._box.shape, np.min_scalar_type(max(model.card.values)))
        if (part := intersection(self._box, self._content)) is not None:
            image, place = self._pair.image.crop(self._content), shifted(part, [-n for n in self._content.start])
            with ema_weights(model, self._run.ema), _evaluating(model.network), adapted_outputs(self._run):
                parts = _labelled(model, image, place, self._scale)
            labels[shifted(part, [-n for n in self._box.start]).slices] = parts
        return Resampled(labels[None], self._original_box.shape, "nearest")[0]


def _labelled(model: Model, image: Volume, box: Box, scale: Intensity) -> NDArray[Any]:
    """Label a box, with the neighbour planes that the network needs as context."""
    context, (z, y, x) = model.card.context, box.start
    depth, low = box.shape[0], max(0, z - context)
    cropped = image.crop(Box((low, y, x), (min(image.shape[0], box.stop[0] + context), *box.stop[1:])))
    # One tile at a time needs less memory than a step. Without overlap a block has 8 tiles instead of 27.
    settings = SegmentSettings(batch=1, overlap=0)
    parts: list[NDArray[Any]] = []
    for _, logits in scores(model, cropped, settings, scale, first_plane=z - low):
        parts.append(_painted(label_values(logits, model.card).cpu().numpy()))
        if sum(map(len, parts)) >= depth:
            break
    return np.concatenate(parts)[:depth]


def _painted(labels: NDArray[Any]) -> NDArray[Any]:
    """Paint overlapping classes into one label image, later ones over earlier ones."""
    if labels.ndim == 3:
        return labels
    painted: NDArray[Any] = labels[0]
    for layer in labels[1:]:
        painted = np.where(layer, layer, painted)
    return painted


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore the mode of each of its modules."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _write(path: Path, labels: NDArray[Any]) -> None:
    """Write a file whole or not at all: a viewer may be reading it."""
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, labels)
