"""Choose whole images to hold out, such that every class is on both sides wherever that is possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.hold_out import LEAST_VOXELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["choose_images"]

ORDERS = 64
"""Most orders of the images to try, drawn by the seed."""
NEAR = 2
"""A choice is good enough if the fraction held out of each class is so near to the one wanted, see `_rating`."""


def choose_images(counts: NDArray[np.int64], share: float, seed: int, groups: Sequence[int]) -> list[int]:
    """Choose images to hold out; what is left always contains every class.

    Images are taken one after the other in an order drawn by the seed: first one for each class that is not held out
    yet, the rarest class first, then others up to the number wanted. Of several such choices the one is taken that
    holds out the most classes, and of those one whose fractions of the classes are near the fraction wanted.

    Parameters
    ----------
    counts : array of int, shape (images, classes)
        Voxels of each class in each image.
    share : float
        Fraction of the images to hold out; more, at most half, where the classes need it.
    groups : sequence of int
        Images of equal content have the same number and stay together.

    Returns
    -------
    list of int
        Indices in increasing order; empty if no image can be held out.
    """
    totals = np.stack([counts[np.equal(groups, group)].sum(axis=0) for group in sorted(set(groups))])
    totals = totals[:, totals.any(axis=0)]
    most = int(((totals > 0).sum(axis=0) > 1).sum())
    rng = np.random.default_rng([seed, 0x5B117])
    best: list[int] = []
    best_rating = (0, -1)
    for _ in range(ORDERS):
        chosen = _chosen(totals, share, rng.permutation(len(totals)).tolist())
        if (rating := _rating(totals, chosen, share)) > best_rating:
            best, best_rating = chosen, rating
        if best_rating >= (most, NEAR):
            break
    held_out = {sorted(set(groups))[i] for i in best}
    return [i for i, group in enumerate(groups) if group in held_out]


def _chosen(totals: NDArray[np.int64], share: float, order: list[int]) -> list[int]:
    """Choose images in an order, those first that hold out the rarest class."""
    chosen: list[int] = []
    total = totals.sum(axis=0)
    count, most = max(1, round(share * len(totals))), max(1, len(totals) // 2)
    least = np.minimum(LEAST_VOXELS, np.maximum(1, total // 2))

    def possible() -> list[int]:
        left = total - totals[chosen].sum(axis=0)
        return [i for i in order if i not in chosen and (left - totals[i] >= least).all()]

    for k in np.argsort((totals > 0).sum(axis=0), kind="stable"):
        if len(chosen) < most and not totals[chosen, k].any():
            missing = ~(totals[chosen] > 0).any(axis=0)
            able = [i for i in possible() if totals[i, k]]
            chosen += [max(able, key=lambda i: int((totals[i, missing] > 0).sum()))] if able else []
    while len(chosen) < count and (able := possible()):
        chosen.append(able[0])
    return chosen


def _rating(totals: NDArray[np.int64], chosen: Sequence[int], share: float) -> tuple[int, int]:
    """Give the number of classes held out, and how near their fractions are to the one wanted, from 0 to 4."""
    held_out = totals[list(chosen)].sum(axis=0)
    there = held_out > 0
    if not there.any():
        return 0, -1
    fraction = (held_out / totals.sum(axis=0))[there]
    near = np.minimum(fraction / share, (1 - fraction) / (1 - share)).clip(0, 1)
    return int(there.sum()), int(4 * near.min())
