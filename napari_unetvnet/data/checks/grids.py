"""Images and labels that do not fit together: different sizes, swapped axes, different positions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.checks.findings import Finding
from napari_unetvnet.data.checks.thumbnail import TURNS
from napari_unetvnet.images.refusals import times
from napari_unetvnet.images.same_grid import difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_axes", "check_fit", "check_place", "check_spacing", "check_turned", "check_turned_all", "is_turned"]

COLOURS = 4
SHARP, SHARPER, GAIN = 3.5, 3.0, 0.15
"""Bounds of the fit of one image, its lead over the present orientation, and its gain. Of 225 correct real pairs and 56
generated ones, none exceeds all three in any of eight other orientations."""
MEAN_SHARP, MEAN_GAIN, SIGNIFICANT = 1.0, 0.8, 5.0
"""The same for the means over several images, the last in standard errors."""
LEAST_IMAGES = 4
COARSE = 3.0


def check_fit(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find labels with another size than the image, and guess the cause."""
    for line in pair.refused:
        mismatch = pair.image.grid.shape != pair.labels.grid.shape
        yield Finding("error", "other-size", pair.labels.name, line, remedy=_guess(pair) if mismatch else "")


def _guess(pair: PairFacts) -> str:
    """Guess why labels have another size."""
    image, labels = pair.image.grid.shape, pair.labels.grid.shape
    for order in itertools.permutations(range(3)):
        if tuple(labels[axis] for axis in order) == image:
            swapped = " ".join("zyx"[axis] for axis in order)
            return f"Their axes seem to be swapped: transposed to {swapped} they have the size of the image."
    if labels[0] == 1 and image == (*labels[1:], image[2]) and image[2] <= COLOURS:
        return f"The image seems to be stored y x channel: bring its {image[2]} channels to the front, (C, 1, Y, X)."
    if labels[0] == 1 and labels[1:] == image[1:] and image[0] <= COLOURS:
        return f"The {image[0]} planes of the image may be channels: save it as (C, Z, Y, X) with Z = 1."
    ratio = [a / b for a, b in zip(labels, image, strict=True)]
    if max(ratio[1:]) < 1.02 * min(ratio[1:]):
        return f"They are {ratio[1]:.3g} times as large: resample them to the image (nearest neighbour), or vice versa."
    return ""


def check_axes(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find images whose last axis is so short that it may be channels or planes."""
    z, y, x = pair.image.grid.shape
    if pair.refused or pair.image.grid.has_spacing or z < 16:
        return
    if x <= COLOURS:
        problem, remedy = f"its last axis has {x} voxels", "If these are colours, save it as (C, Z, Y, X)."
    elif 4 * x < min(z, y):
        problem = f"its last axis is the shortest, its first has {z} voxels"
        remedy = "If the last axis is z, move it to the front."
    else:
        return
    yield Finding(
        "warning", "axes", pair.image.name, f"The image has {times((z, y, x))} voxels (z y x): {problem}.",
        "The first axis is taken as z.", remedy,
    )  # fmt: skip


def check_place(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find labels or a mask whose file has another position or voxel size than the image."""
    image = pair.image.grid
    if pair.turned:
        yield Finding(
            "warning", "other-axes", pair.labels.name,
            "Labels or mask are stored along other axes than the image, and were turned to them.",
            "The positions in the files say that they have the same voxels.",
        )  # fmt: skip
    for kind, facts in (("label file", pair.labels), ("mask", pair.mask)):
        if facts is None or image.shape != facts.grid.shape:
            continue
        if found := difference(image, facts.grid, "the image"):
            yield Finding(
                "warning", "other-place", facts.name, f"The {kind} {found.text}.",
                "Training pairs their voxels as they are stored.",
                f"If that is wrong, resample the {kind} to the grid of the image (nearest neighbour).",
            )  # fmt: skip


def is_turned(pair: PairFacts) -> str:
    """Find the orientation of the labels that follows the edges of the image far better than the present one.

    Returns
    -------
    str
        One of `TURNS`; empty if there is none that is beyond chance.
    """
    fits = pair.labels.thumbnail.fits
    if not fits or "" not in fits:
        return ""
    best, now = max(fits, key=lambda turn: fits[turn].sharpness), fits[""]
    clear = fits[best].sharpness > SHARP and fits[best].sharpness - now.sharpness > SHARPER
    return best if clear and fits[best].gain > max(GAIN, 2 * now.gain) else ""


def check_turned(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find labels that would fit the edges of the image if they were mirrored or turned."""
    if turn := is_turned(pair):
        yield _turned(pair.labels.name, turn)


def check_turned_all(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find the same over all images, where no single one is clear: the gain must be beyond chance."""
    all_fits = [pair.labels.thumbnail.fits for pair in pairs if "" in pair.labels.thumbnail.fits]
    if len(all_fits) < LEAST_IMAGES or 2 * sum(is_turned(pair) != "" for pair in pairs) >= len(all_fits):
        return
    for turn in list(TURNS)[1:]:
        both = np.array([(fits[turn].sharpness, fits[""].sharpness) for fits in all_fits if turn in fits])
        if len(both) < LEAST_IMAGES:
            continue
        gains = both[:, 0] - both[:, 1]
        error = gains.std(ddof=1) / np.sqrt(len(gains)) + 1e-9
        if both[:, 0].mean() > MEAN_SHARP and gains.mean() > MEAN_GAIN and gains.mean() / error > SIGNIFICANT:
            yield _turned("", turn)
            return


def _turned(name: str, turn: str) -> Finding:
    return Finding(
        "warning", "turned", name, f"The labels follow the edges of the image far better when they are {turn}.",
        "Another program may have saved them that way; nothing can be learnt from such labels.",
        "Overlay both, and turn the labels if necessary.",
    )  # fmt: skip


def check_spacing(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find single planes, and stacks of planes far apart, for view 3d."""
    (z, _, _), (dz, dy, dx) = pair.image.grid.shape, pair.image.grid.spacing
    if settings.view == "3d" and z == 1:
        yield Finding(
            "warning", "one-plane", pair.image.name, "View 3d was chosen, but the image is one plane.",
            "A 3D network learns nothing more from it.", "Give --view 2d.",
        )  # fmt: skip
    elif settings.view == "3d" and dz >= COARSE * max(dy, dx):
        yield Finding(
            "advice", "anisotropic", pair.image.name,
            f"Planes are {dz / max(dy, dx):.2g} times as far apart as the voxels in them.",
            "A 3D kernel then mixes distant voxels along z with near ones in the plane.",
            "Try --view 2.5d, which sees neighbour planes as channels.",
        )  # fmt: skip
