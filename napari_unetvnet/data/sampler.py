"""Around which voxels patches lie: each class as often as the others, any labelled voxel, or the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.counts import class_counts
from napari_unetvnet.images.arrays import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.targets import Classes
    from napari_unetvnet.settings import Sampling

__all__ = ["Sampler", "places"]

VOXELS_REMEMBERED = 200_000
"""Per region and class, so many labelled voxels at most are kept as places to draw patches at."""


class Sampler:
    """Chooses the voxels that patches are drawn around; never an ignored voxel.

    What it holds is at most 1.6 MB for each region and class. It reads the targets part by part.

    Parameters
    ----------
    targets : sequence of array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class where they may overlap; and IGNORE.
    classes : Classes
    sampling : {"balanced", "random", "one_positive", "all_positive"}
        Where there is no foreground, all of "all_positive" and a third of "one_positive" are as "balanced".
    """

    def __init__(self, targets: Sequence[NDArray[np.uint8]], classes: Classes, sampling: Sampling) -> None:
        # Where classes overlap, the voxels that have none are drawn as if they were one class more.
        count = len(classes) + classes.multilabel
        self._sampling, self._known = sampling, count
        self._shapes = [target.shape[-3:] for target in targets]
        found = [places(target, count) for target in targets]
        self._places = [row for row, _ in found]
        # All labelled voxels are alike if a region is as likely as it has many.
        counts = np.array([counted[count] for _, counted in found], np.float64)
        self._shares = counts / max(1.0, counts.sum())
        present = [k for k in range(count) if any(len(row[k]) for row in self._places)]
        foreground = [k for k in present if k in classes.foreground]
        self._present = (foreground or present) if sampling.endswith("positive") else present

    def kind(self, rng: np.random.Generator, index: int, batch: int) -> int:
        """Choose what a patch is to be drawn around.

        Parameters
        ----------
        rng : numpy Generator
        index, batch : int
            Which of how many patches it is.

        Returns
        -------
        int
            A class; or that the voxel may be any that is labelled.
        """
        # With "one_positive" the last third of a batch, rounded up, is foreground, as in nnU-Net.
        anywhere = self._sampling == "random" or (self._sampling == "one_positive" and index < batch - -(-batch // 3))
        return self._known if anywhere else self._present[rng.integers(len(self._present))]

    def voxel(self, rng: np.random.Generator, kind: int) -> tuple[int, Triple]:
        """Choose a voxel.

        Parameters
        ----------
        rng : numpy Generator
        kind : int
            From `kind`.

        Returns
        -------
        region : int
        voxel : tuple of 3 int
            z, y, x in the region. Regions that have the class are equally likely, so are its voxels in one.
        """
        if kind == self._known:
            region = int(rng.choice(len(self._shares), p=self._shares))
        else:
            holders = [i for i, row in enumerate(self._places) if len(row[kind])]
            region = holders[rng.integers(len(holders))]
        chosen = self._places[region][kind]
        z, y, x = np.unravel_index(chosen[rng.integers(len(chosen))], self._shapes[region])
        return region, (int(z), int(y), int(x))


def places(target: NDArray[np.uint8], count: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Find the voxels of each class, evenly thinned to a number that is cheap to keep.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Read twice, part by part: to count, then to choose.
    count : int
        Classes; where they may overlap, one more for the voxels that have none.

    Returns
    -------
    places : list of array of int, shape (n,)
        Flat indices of the voxels of each class, and last those of all labelled voxels.
    counts : array of int, shape (count + 1,)
        How many there are.
    """
    boxes = list(parts(target))
    counts = np.array([_counts(target[(..., *box)], count) for box in boxes])
    before = counts.cumsum(axis=0) - counts
    wanted = [_thinned(int(total)) for total in counts.sum(axis=0)]
    found: list[list[NDArray[np.int64]]] = [[np.empty(0, np.int64)] for _ in wanted]
    offset = 0
    for box, here, first in zip(boxes, counts, before, strict=True):
        part = target[(..., *box)]
        for k in np.flatnonzero(here):
            low, high = np.searchsorted(wanted[k], (first[k], first[k] + here[k]))
            if low < high:
                found[k].append(np.flatnonzero(_where(part, int(k), count))[wanted[k][low:high] - first[k]] + offset)
        offset += int(np.prod(part.shape[-3:]))
    return [np.concatenate(each) for each in found], counts.sum(axis=0)


def _counts(part: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    return np.append(class_counts(part)[:count], _where(part, count, count).sum())


def _thinned(total: int) -> NDArray[np.int64]:
    """Choose which of so many voxels are kept."""
    if total <= VOXELS_REMEMBERED:
        return np.arange(total)
    return np.linspace(0, total - 1, VOXELS_REMEMBERED).astype(np.int64)


def _where(part: NDArray[np.uint8], k: int, count: int) -> NDArray[np.bool_]:
    """Say which voxels are of a class, (Z, Y, X); after the classes, which are labelled at all."""
    channels = part if part.ndim == 4 else part[None]
    if k == count:
        return np.asarray((channels != IGNORE).any(axis=0))
    if part.ndim == 3:
        return np.asarray(part == k)
    return np.asarray(part[k] == 1 if k < len(part) else (part == 0).all(axis=0))
