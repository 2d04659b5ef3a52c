"""Choose the voxels to draw patches around: balanced over classes, any labelled voxel, or foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.counts import class_counts, class_mask
from napari_unetvnet.images.arrays import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.targets import Classes
    from napari_unetvnet.settings import Sampling

__all__ = ["Sampler", "places"]

STORED_VOXELS, STORED_IN_ALL, FEWEST = 200_000, 2**24, 2000
"""Labelled voxels that are stored as candidates, at most: per region and class, and in all; but so many of each."""


class Sampler:
    """Chooses the voxels that patches are drawn around; never an ignored voxel.

    Takes at most 1.6 MB per region and class, and 128 MiB in all; of thousands of regions 16 kB per region and class.
    Targets are read box by box.

    Parameters
    ----------
    targets : sequence of array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class where they may overlap; and IGNORE.
    sampling : {"balanced", "random", "one_positive", "all_positive"}
        Without foreground, patches that should contain it are drawn as with "balanced".
    """

    def __init__(self, targets: Sequence[NDArray[np.uint8]], classes: Classes, sampling: Sampling) -> None:
        # With overlapping classes, voxels in no class are drawn as one more class.
        count = len(classes) + classes.multilabel
        self._sampling, self._any_labelled = sampling, count
        self._shapes = [target.shape[-3:] for target in targets]
        most = max(FEWEST, min(STORED_VOXELS, STORED_IN_ALL // (len(targets) * (count + 1))))
        results = [places(target, count, most) for target in targets]
        self._places = [row for row, _ in results]
        # All labelled voxels are equally likely if regions are drawn in proportion to their labelled voxels.
        counts = np.array([counted[count] for _, counted in results], np.float64)
        self._shares = counts / max(1.0, counts.sum())
        present = [k for k in range(count) if any(len(row[k]) for row in self._places)]
        foreground = [k for k in present if k in classes.foreground]
        self._present = (foreground or present) if sampling.endswith("positive") else present

    def kind(self, rng: np.random.Generator, index: int, batch: int) -> int:
        """Choose the kind of voxel that a patch is drawn around.

        Parameters
        ----------
        index, batch : int
            Index of the patch in the batch, and batch size.

        Returns
        -------
        int
            A class, or the number of classes for any labelled voxel.
        """
        # With "one_positive" the last third of a batch, rounded up, is foreground, as in nnU-Net.
        anywhere = self._sampling == "random" or (self._sampling == "one_positive" and index < batch - -(-batch // 3))
        return self._any_labelled if anywhere else self._present[rng.integers(len(self._present))]

    def voxel(self, rng: np.random.Generator, kind: int) -> tuple[int, Triple]:
        """Choose a voxel.

        Parameters
        ----------
        kind : int
            From `kind`.

        Returns
        -------
        region : int
        voxel : tuple of 3 int
            z, y, x in the region. Regions that contain the class are equally likely, and so are its voxels in each.
        """
        if kind == self._any_labelled:
            region = int(rng.choice(len(self._shares), p=self._shares))
        else:
            holders = [i for i, row in enumerate(self._places) if len(row[kind])]
            region = holders[rng.integers(len(holders))]
        candidates = self._places[region][kind]
        z, y, x = np.unravel_index(candidates[rng.integers(len(candidates))], self._shapes[region])
        return region, (int(z), int(y), int(x))


def places(
    target: NDArray[np.uint8], count: int, most: int = STORED_VOXELS
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Find the voxels of each class, evenly thinned.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Read twice, box by box: to count, then to choose.
    count : int
        Number of classes; with overlapping classes, one more for voxels in none.
    most : int
        Voxels of each class that are stored, at most.

    Returns
    -------
    places : list of array of int, shape (n,)
        Flat indices of the voxels of each class, then of all labelled voxels.
    counts : array of int, shape (count + 1,)
        Numbers of voxels before thinning.
    """
    boxes = list(parts(target))
    counts = np.array([_counts(target[(..., *box)], count) for box in boxes])
    preceding = counts.cumsum(axis=0) - counts
    # The ranks, among all voxels of a class in reading order, of those to store.
    ranks = [_thinned(int(total), most) for total in counts.sum(axis=0)]
    indices: list[list[NDArray[np.int64]]] = [[np.empty(0, np.int64)] for _ in ranks]
    offset = 0
    for box, box_counts, first in zip(boxes, counts, preceding, strict=True):
        part = target[(..., *box)]
        for k in np.flatnonzero(box_counts):
            low, high = np.searchsorted(ranks[k], (first[k], first[k] + box_counts[k]))
            if low < high:
                in_box = np.flatnonzero(_where(part, int(k), count))
                indices[k].append(in_box[ranks[k][low:high] - first[k]] + offset)
        offset += int(np.prod(part.shape[-3:]))
    return [np.concatenate(rows) for rows in indices], counts.sum(axis=0)


def _counts(part: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    return np.append(class_counts(part)[:count], _where(part, count, count).sum())


def _thinned(total: int, most: int) -> NDArray[np.int64]:
    """Choose evenly spaced ranks out of ``total`` voxels."""
    return np.arange(total) if total <= most else np.linspace(0, total - 1, most).astype(np.int64)


def _where(part: NDArray[np.uint8], k: int, count: int) -> NDArray[np.bool_]:
    """Give the mask of class ``k``, (Z, Y, X); for ``k`` equal to ``count``, that of all labelled voxels."""
    if k < count:
        return class_mask(part, k)
    return np.asarray(((part if part.ndim == 4 else part[None]) != IGNORE).any(axis=0))
