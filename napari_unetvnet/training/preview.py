"""What the weights say while they are still learning, of a part of the first image that is small enough to be quick.

The first look comes after ten seconds, each further one after twice the time. Nothing that the training depends on is
changed by it, and a preview that cannot be made ends the previews, never the training.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unetvnet.errors import UserError
from napari_unetvnet.events import Notice, PreviewReady
from napari_unetvnet.files import replacing
from napari_unetvnet.images.arrays import parts
from napari_unetvnet.images.resample import Resampled, place_back
from napari_unetvnet.images.volume import Box, Intensity, Volume, intensity
from napari_unetvnet.inference import label_values, scores
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training.ema import ema_shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.training.run import Run

__all__ = ["Preview", "Times", "block_around", "block_of_labels"]

FIRST_SECONDS = 10.0
WHOLE_PLANE = 768
"""In 2D, planes up to this edge length (voxels) are shown whole."""
PATCHES = 2
"""A block has so many patches on each axis."""
SHARE = 0.1
"""Of the time since the start, previews that turn out to be slow take no more."""


class Times:
    """When previews are due: after 10 s, 20 s, 40 s and so on."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def due(self, seconds: float) -> bool:
        """Tell whether it is time; each preview is asked for once.

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
        """Put the next one off if this one was slow.

        Parameters
        ----------
        seconds : float
            That the preview took.
        """
        self._next = max(self._next, seconds / SHARE)


class Preview:
    """Labels a part of an image with the running weights.

    Parameters
    ----------
    pair : Pair
        Of the image to show, as the network sees it.
    run : Run
    shape : tuple of 3 int
        Voxels z, y, x of the image itself.
    """

    def __init__(self, pair: Pair, run: Run, shape: Triple) -> None:
        self._pair, self._run, self._shape = pair, run, shape
        self._times, self._failed = Times(), False

    def due(self, seconds: float) -> bool:
        """Tell whether it is time for a preview.

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
        begun, path, schedule = time.monotonic(), self._run.files.preview, self._run.schedule
        try:
            _write(path, self._labels())
        except (UserError, MemoryError, torch.cuda.OutOfMemoryError) as error:
            self._failed = True
            torch.cuda.empty_cache()
            yield Notice(f"There are no more previews: {error or 'memory does not suffice'}")
            return
        except OSError as error:  # the disk is full, or somebody is just reading the file: perhaps the next time
            yield Notice(f"A preview could not be written ({error}).")
            return
        finally:
            self._times.took(time.monotonic() - begun)
        yield PreviewReady(str(path), self._own_box.start, schedule.step, schedule.seconds)

    @cached_property
    def _box(self) -> Box:
        """The part that is shown, the same each time."""
        card, shape, at = self._run.model.card, self._pair.image.shape, self._run.settings.preview
        z, y, x = card.patch
        size = (1, WHOLE_PLANE, WHOLE_PLANE) if card.dims == 2 else (PATCHES * z, PATCHES * y, PATCHES * x)
        if at is None:
            return block_of_labels(self._pair.labels.data, size)
        return block_around(place_back(at, self._shape, shape), shape, size)

    @cached_property
    def _own_box(self) -> Box:
        """The same part of the image itself."""
        seen = self._pair.image.shape
        return Box(place_back(self._box.start, seen, self._shape), place_back(self._box.stop, seen, self._shape))

    @cached_property
    def _scale(self) -> Intensity:
        return intensity(self._pair.image, self._run.settings.normalise)

    def _labels(self) -> NDArray[Any]:
        """Label the part, shape (Z, Y, X)."""
        model = self._run.model
        with ema_shown(model, self._run.ema), _evaluating(model.network):
            labels = _labelled(model, self._pair.image, self._box, self._scale)
        return Resampled(labels[None], self._own_box.shape, "nearest")[0]


def _labelled(model: Model, image: Volume, box: Box, scale: Intensity) -> NDArray[Any]:
    """Label a box; planes beside it are seen where the network wants them."""
    context, (z, y, x) = model.card.context, box.start
    depth, low = box.shape[0], max(0, z - context)
    seen = image.crop(Box((low, y, x), (min(image.shape[0], box.stop[0] + context), *box.stop[1:])))
    # One tile at a time needs less memory than a step. Without overlap a block takes 8 of them instead of 27.
    settings = SegmentSettings(batch=1, overlap=0)
    parts: list[NDArray[Any]] = []
    for _, logits in scores(model, seen, settings, scale, first_plane=z - low):
        parts.append(_painted(label_values(logits, model.card).cpu().numpy()))
        if sum(map(len, parts)) >= depth:
            break
    labels: NDArray[Any] = np.concatenate(parts)[:depth].astype(np.min_scalar_type(max(model.card.values)))
    return labels


def _painted(labels: NDArray[Any]) -> NDArray[Any]:
    """Paint classes that overlap into one image, later ones over earlier ones."""
    if labels.ndim == 3:
        return labels
    painted: NDArray[Any] = labels[0]
    for layer in labels[1:]:
        painted = np.where(layer, layer, painted)
    return painted


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while, and each of its parts back into its own."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _write(path: Path, labels: NDArray[Any]) -> None:
    """Write a file whole or not at all: a viewer may be reading it."""
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, labels)


def block_around(at: Sequence[int], shape: Triple, size: Triple) -> Box:
    """Give a block around a voxel.

    Parameters
    ----------
    at : 3 int
        The voxel z, y, x; one beyond the image counts as the nearest inside.
    shape : tuple of 3 int
        Of the image.
    size : tuple of 3 int
        Of the block; shortened to the image.

    Returns
    -------
    Box
        Inside the image.
    """
    lengths = [min(a, n) for a, n in zip(size, shape, strict=True)]
    z, y, x = (min(max(0, place - a // 2), n - a) for place, a, n in zip(at, lengths, shape, strict=True))
    return Box((z, y, x), (z + lengths[0], y + lengths[1], x + lengths[2]))


def block_of_labels(labels: Any, size: Triple) -> Box:
    """Give a block that holds many labels: the best planes, in them the best rows, in these the best columns.

    Parameters
    ----------
    labels : array of shape (K, Z, Y, X)
        0 where nothing is painted.
    size : tuple of 3 int
        Of the block; shortened to the image.

    Returns
    -------
    Box
    """
    lengths = [min(a, n) for a, n in zip(size, labels.shape[-3:], strict=True)]
    along = np.zeros(labels.shape[-3], np.int64)
    for box in parts(labels):  # which may be larger than the memory; its best planes are not
        along[box[0]] += (np.asarray(labels[(..., *box)]) != 0).any(axis=0).sum(axis=(1, 2))
    z = _fullest(along, lengths[0])
    there = (np.asarray(labels[:, z : z + lengths[0]]) != 0).any(axis=0)
    y = _fullest(there.sum(axis=(0, 2)), lengths[1])
    x = _fullest(there[:, y : y + lengths[1]].sum(axis=(0, 1)), lengths[2])
    return Box((z, y, x), (z + lengths[0], y + lengths[1], x + lengths[2]))


def _fullest(counts: NDArray[np.int64], length: int) -> int:
    """Give the start of the part of a row with the highest sum; of equal ones, the middle one."""
    sums = np.convolve(counts, np.ones(length, np.int64), "valid")
    best = np.flatnonzero(sums == sums.max())
    return int(best[len(best) // 2])  # labels that all of them hold are in the middle of this one
