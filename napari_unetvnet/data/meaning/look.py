"""How the voxels of some planes look: compared by nearest neighbours of a few smoothed intensities."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["HIDDEN", "Look"]

HIDDEN = -1
"""Value of voxels that are ignored or hidden by a mask."""
CHANNELS = 4
SAMPLES, LEAST = 600, 15
NEIGHBOURS = 21
NEAR, FAR = 2.0, 8.0
"""Unpainted voxels are compared at this distance from the painted ones."""
CONTACT = 0.2
BLOCK = 24
"""Voxels are compared with those of other blocks of a plane, since neighbours look alike."""
MAP_PIXELS = 1 << 13
"""A map of what each voxel looks like has about so many pixels per plane."""
USUAL, FOREIGN = 95, 3.0
"""A pixel looks like nothing painted if it is so many times as far from it as this percentile of the painted voxels."""
DISTINCT = 0.74
"""Contrast from which on painted values can be told apart."""


class Look:
    """Planes of an image and of labels.

    Parameters
    ----------
    image : array of shape (C, n, Y, X)
    labels : array of int, shape (n, Y, X)
        0 is unpainted.
    """

    def __init__(self, image: NDArray[Any], labels: NDArray[np.int64]) -> None:
        self._labels, self._rng = labels, np.random.default_rng(0)
        self._block = max(6, min(BLOCK, min(labels.shape[1:]) // 6))
        self._fine, self._features = _features(image[:CHANNELS])

    @cached_property
    def _nearest(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distance of each voxel in its plane to the next painted voxel, and the value of that."""
        from scipy import ndimage

        distance, value = np.full(self._labels.shape, np.inf), np.zeros(self._labels.shape, np.int64)
        for z, plane in enumerate(self._labels):
            if (plane > 0).any():
                distance[z], index = ndimage.distance_transform_edt(plane <= 0, return_indices=True)
                value[z] = plane[tuple(index)]
        return distance, value

    def contrast(self, value: int) -> float | None:
        """Say how well voxels of a value can be told from the unpainted ones beside them: 0.5 not at all, 1 always.

        Returns
        -------
        float or None
            None if there are too few of either, or most of the border is to other painted values.
        """
        if self._contact(value) < CONTACT:
            return None
        distance, nearest = self._nearest
        beside = (self._labels == 0) & (nearest == value) & (distance > NEAR) & (distance <= FAR)
        return self._told_apart(self._places(beside), self._places(self._labels == value))

    def step(self, value: int) -> float | None:
        """Give the mean change of intensity across the border to unpainted voxels, in its standard deviations."""
        if self._contact(value) < CONTACT:
            return None
        changes = []
        for axis in (1, 2):
            for sign in (1, -1):
                inside = np.argwhere((self._labels == value) & (np.roll(self._labels, -sign, axis) == 0))
                outside = inside.copy()
                outside[:, axis] += 2 * sign
                kept = (outside[:, axis] >= 0) & (outside[:, axis] < self._labels.shape[axis])
                inside, outside = inside[kept], outside[kept]
                unpainted = self._labels[tuple(outside.T)] == 0
                changes.append(self._at(self._fine, inside[unpainted]) - self._at(self._fine, outside[unpainted]))
        change = np.concatenate(changes)
        if len(change) < 2 * LEAST:
            return None
        return float((np.abs(change.mean(axis=0)) / (change.std(axis=0) + 1e-9)).max())

    def purity(self, value: int) -> float | None:
        """Give the fraction of the voxels that look most like a value, half of its own among them, that have it."""
        every, own = self._places(self._labels >= 0, 4 * SAMPLES), self._places(self._labels == value)
        shares = []
        for first in (False, True):
            a, b = self._in(every, first), self._in(own, first)
            scores = self._scores(a, b, (self._in(every, not first), self._in(own, not first)))
            if scores is not None:
                shares.append(float((scores[0] >= np.median(scores[1])).mean()))
        if not shares:
            return None
        half = 0.5 * float((self._labels == value).sum()) / max(1, int((self._labels >= 0).sum()))
        return min(1.0, half / max(1e-6, float(np.mean(shares))))

    def likeness(self, values: Sequence[int]) -> tuple[dict[int, float], dict[int, float]]:
        """Say which fraction of the image looks like each painted value, and which part of the rest that encloses.

        Returns
        -------
        likeness, enclosure : dict of int to float
            Empty for fewer than two values.
        """
        places = {value: self._places(self._labels == value) for value in values}
        places = {value: each for value, each in places.items() if len(each) >= LEAST}
        if len(places) < 2:
            return {}, {}
        alike = self._alike(list(places.values()))
        shares = {value: float((alike == i).mean()) for i, value in enumerate(places)}
        first = max(shares, key=shares.__getitem__)
        others = np.concatenate([each for value, each in places.items() if value != first])
        if (self._told_apart(others, places[first]) or 0) < DISTINCT:
            return {}, {}
        return shares, {value: _enclosed(alike == i) for i, value in enumerate(places)}

    def _alike(self, places: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Say which of several kinds of voxels each pixel of a coarse map looks like; -1 for none.

        Returns
        -------
        array of int, shape (n, y, x)
        """
        from scipy.spatial import cKDTree

        owner = np.repeat(np.arange(len(places)), [len(each) for each in places])
        samples, count = self._at(self._features, np.concatenate(places)), min(NEIGHBOURS, len(owner))
        tree = cKDTree(samples)
        step = max(1, int(np.sqrt(self._labels[0].size / MAP_PIXELS)))
        pixels = self._features[:, :, ::step, ::step]
        distance, index = tree.query(pixels.reshape(len(pixels), -1).T, count)
        usual = np.percentile(tree.query(samples[:: max(1, len(samples) // SAMPLES)], count)[0][:, -1], USUAL)
        votes = np.stack([(owner[index] == i).sum(axis=1) / len(each) for i, each in enumerate(places)], axis=1)
        alike = np.where(distance[:, -1] <= FOREIGN * usual, votes.argmax(axis=1), -1)
        found: NDArray[np.int64] = alike.reshape(pixels.shape[1:])
        return found

    def _contact(self, value: int) -> float:
        """Give the fraction of the border of a value that is to unpainted voxels."""
        own = self._labels == value
        border = unpainted = 0
        for axis in (1, 2):
            for sign in (1, -1):
                other = np.roll(self._labels, sign, axis)[own]
                border, unpainted = border + int((other != value).sum()), unpainted + int((other == 0).sum())
        return unpainted / max(1, border)

    def _told_apart(self, outside: NDArray[np.int64], inside: NDArray[np.int64]) -> float | None:
        """Give the probability that a classifier scores a voxel inside higher than one outside."""
        from scipy.stats import rankdata

        found = []
        for first in (False, True):
            test = self._in(outside, not first), self._in(inside, not first)
            scores = self._scores(self._in(outside, first), self._in(inside, first), test)
            if scores is not None:
                n, m = map(len, scores)
                ranks = rankdata(np.concatenate(scores))
                found.append(float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m)))
        return float(np.mean(found)) if found else None

    def _scores(
        self, one: NDArray[np.int64], two: NDArray[np.int64], test: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Give the share of the nearest neighbours of test voxels that are of the second kind."""
        from scipy.spatial import cKDTree

        count = min(len(one), len(two))
        if min(count, *map(len, test)) < LEAST:
            return None
        tree = cKDTree(self._at(self._features, np.concatenate([one[:count], two[:count]])))
        neighbours = min(NEIGHBOURS, count)
        found = [(tree.query(self._at(self._features, part), neighbours)[1] >= count).mean(axis=1) for part in test]
        return found[0] + 1e-3 * self._rng.random(len(test[0])), found[1] + 1e-3 * self._rng.random(len(test[1]))

    def _places(self, mask: NDArray[np.bool_], count: int = 2 * SAMPLES) -> NDArray[np.int64]:
        """Draw voxels of a mask."""
        places = np.flatnonzero(mask)
        if len(places) > count:
            places = places[np.unique(self._rng.integers(0, len(places), count))]
        drawn: NDArray[np.int64] = np.stack(np.unravel_index(self._rng.permutation(places), mask.shape), axis=1)
        return drawn

    def _in(self, places: NDArray[np.int64], first: bool) -> NDArray[np.int64]:
        """Keep the places in one half of the blocks, as of a chessboard."""
        board = (places // [1, self._block, self._block]).sum(axis=1) % 2 == 0
        kept: NDArray[np.int64] = places[board == first]
        return kept

    def _at(self, features: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = features[(slice(None), *places.T)].T
        return found


def _enclosed(mask: NDArray[np.bool_]) -> float:
    """Give the fraction of the other pixels that a mask encloses in their planes."""
    from scipy import ndimage

    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    return float((filled & ~mask).sum() / max(1, int((~mask).sum())))


def _features(image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smooth each channel, and measure its texture.

    Returns
    -------
    fine : array of shape (C, n, Y, X)
    features : array of shape (2 * C, n, Y, X)
        In units of their standard deviations.
    """
    from scipy import ndimage

    grey = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
    low, high = np.percentile(grey.reshape(len(grey), -1), [1, 99], axis=1).reshape(2, len(grey), 1, 1, 1)
    grey = np.clip((grey - low) / np.maximum(high - low, 1e-9), -1, 2).astype(np.float32)
    fine = ndimage.gaussian_filter(grey, (0, 0, 1, 1))
    mean, square = (ndimage.gaussian_filter(part, (0, 0, 2, 2)) for part in (grey, grey**2))
    both = np.concatenate([fine, np.sqrt(np.maximum(square - mean**2, 0))])
    deviation = both.reshape(len(both), -1).std(axis=1).reshape(-1, 1, 1, 1)
    return fine, both / np.maximum(deviation, 1e-9)
