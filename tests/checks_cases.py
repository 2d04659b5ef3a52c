"""Generated images and labels for the checks."""

from __future__ import annotations

import numpy as np

from napari_unetvnet.data.checks import examine
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings


def discs(seed=0, size=96, count=6, radius=(6, 12)):
    """A plane of discs with ids from 1."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((size, size), np.uint16)
    rows, columns = np.mgrid[:size, :size]
    for i in range(count):
        (y, x), r = rng.integers(0, size, 2), rng.integers(*radius)
        ids[(rows - y) ** 2 + (columns - x) ** 2 < r * r] = i + 1
    return ids


def mask(seed=0, **more):
    return (discs(seed, **more) > 0).astype(np.uint8)


def image_of(labels, seed=0):
    """An image that shows labels, with noise; values 20 to 220."""
    rng = np.random.default_rng(seed + 1000)
    return (60 + 100 * (labels > 0) + rng.normal(0, 10, labels.shape)).clip(20, 220).astype(np.uint8)


def volume(array, name, **space):
    """A plane or stack as a Volume."""
    return Volume(array.reshape((1,) * (4 - array.ndim) + array.shape), Geometry(**space), name)


def pair(labels=None, image=None, seed=0, split="", hidden=None, space=None, label_space=None):
    labels = mask(seed) if labels is None else labels
    image = image_of(labels if labels.ndim < 4 else labels.max(axis=0), seed) if image is None else image
    return Pair(
        volume(image, f"image{seed}", **(space or {})),
        volume(labels, f"labels{seed}", **(label_space or {})),
        split,
        None if hidden is None else volume(hidden, f"mask{seed}"),
    )


def report(*pairs, **settings):
    return examine(pairs, TrainSettings(**{"patch": (1, 32, 32)} | settings))


def kinds(*pairs, **settings):
    return {finding.kind for finding in report(*pairs, **settings).findings}


def the(kind, *pairs, **settings):
    """The only finding of a kind."""
    (found,) = [finding for finding in report(*pairs, **settings).findings if finding.kind == kind]
    return found
