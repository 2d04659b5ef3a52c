"""Which classes labels hold, and the target of an image: one place where all kinds of labels become one form.

A target is class indices (Z, Y, X) where each voxel has one class, or a channel for each class (K, Z, Y, X) where
classes may overlap; IGNORE marks what is not known. It is what a person drew: `loss_target` makes the softened form
that a loss may want from a patch of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets.balance import class_weights, count_values
from napari_unetvnet.data.targets.channels import one_hot, region_channels, soft
from napari_unetvnet.data.targets.lines import with_line_channels
from napari_unetvnet.data.targets.objects import borders, boundaries, components_of
from napari_unetvnet.data.targets.values import encode, find_values, output_values
from napari_unetvnet.data.targets.weight_map import separation_weights
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import cut
from napari_unetvnet.settings import TrainSettings, regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume

__all__ = [
    "Classes",
    "find_classes",
    "label_margin",
    "loss_target",
    "loss_weights",
    "make_target",
    "separation",
    "target_margin",
]

LINE_MARGIN = 7
"""The widest blur of a line reaches so many voxels."""


@dataclass(frozen=True)
class Classes:
    """What is learnt.

    Parameters
    ----------
    values : tuple of int
        Label value of each class, as painted.
    output_values : tuple of int
        The value that results carry.
    names : tuple of str
        Empty where the classes have none.
    multilabel : bool
        Whether a voxel may have several, so that a target has a channel for each.
    lines : tuple of int
        Indices of classes that are thin lines.
    """

    values: tuple[int, ...]
    output_values: tuple[int, ...]
    names: tuple[str, ...] = ()
    multilabel: bool = False
    lines: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def foreground(self) -> list[int]:
        """Indices of the classes that are not written as 0; all if none is."""
        return [i for i, value in enumerate(self.output_values) if value != 0]


def find_classes(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    """Find the classes of labels.

    Parameters
    ----------
    labels : sequence of Volume, data of shape (1, Z, Y, X), or (K, Z, Y, X) with label_values=overlapping
    settings : TrainSettings

    Returns
    -------
    Classes

    Raises
    ------
    DataProblem
        If a class is not painted anywhere, there are too few or too many, or a value is none of them.
    """
    if settings.label_values == "overlapping":
        return _overlapping(labels, settings)
    if settings.regions:
        return _regions(labels, settings)
    if settings.label_values == "objects":
        return _OF_OBJECTS[settings.objects_as]
    values = find_values(labels, settings)
    if missing := [value for value in settings.lines if value not in values]:
        raise DataProblem(f"Line(s) {missing} are no classes; the labels hold {list(values)}.")
    lines = tuple(i for i, value in enumerate(values) if value in settings.lines)
    several = bool(lines) or settings.head == "multilabel"
    return Classes(values, output_values(values, settings), multilabel=several, lines=lines)


_OF_OBJECTS = {
    "foreground": Classes((0, 1), (0, 1), ("background", "object")),
    "separated": Classes((0, 1), (0, 1), ("background", "object")),
    "boundaries": Classes((0, 1), (0, 1), ("inside", "boundary")),
    "borders": Classes((0, 1, 2), (0, 1, 2), ("background", "inside", "border")),
}


def _overlapping(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    counts = {volume.channels for volume in labels}
    if len(counts) > 1:
        told = ", ".join(f"{volume.name}: {volume.channels}" for volume in labels)
        raise DataProblem(f"Overlapping labels need the same masks in the same order everywhere, not {told}.")
    count = counts.pop()
    nothing = {0, settings.background or 0, settings.ignore_value}
    empty = [k + 1 for k in range(count) if all(not set(count_values(_channel(v, k))) - nothing for v in labels)]
    if empty:
        raise DataProblem(f"Mask(s) {', '.join(map(str, empty))} hold no voxel of their class; paint them first.")
    numbers = tuple(range(1, count + 1))
    return Classes(numbers, numbers, multilabel=True)


def _channel(volume: Volume, k: int) -> Any:
    return cut(volume.data, (slice(k, k + 1), slice(None), slice(None), slice(None)))


def _regions(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    found = set().union(*(count_values(_channel(volume, 0)) for volume in labels))
    empty = [region for region in settings.regions if found.isdisjoint(region.values)]
    if empty:
        raise DataProblem(f"Region(s) {', '.join(map(str, empty))} are painted nowhere; correct labels or regions.")
    names = tuple(region.name for region in settings.regions)
    return Classes(tuple(range(1, len(names) + 1)), regions.region_values(settings.regions), names, multilabel=True)


def make_target(
    labels: NDArray[Any], classes: Classes, settings: TrainSettings, name: str, mask: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """Make the target of one image.

    Parameters
    ----------
    labels : integer array of shape (C, Z, Y, X)
        C is 1, or the number of classes with label_values=overlapping.
    classes : Classes
    settings : TrainSettings
    name : str
        Of the labels, for messages.
    mask : array of shape (Z, Y, X), optional
        Voxels are ignored where it is 0.

    Returns
    -------
    array of uint8, shape (Z, Y, X) or, for several classes a voxel, (K, Z, Y, X)
        Class indices or 0 and 1; IGNORE where voxels are ignored.
    """
    if settings.label_values == "overlapping":
        target = _masks(labels, settings)
    elif settings.regions:
        target = region_channels(labels[0], settings.regions, _known(labels[0], settings))
    elif settings.label_values == "objects":
        target = _of_objects(labels[0], settings)
    else:
        target = encode(labels[0], classes.values, settings, name)
        target = one_hot(target, len(classes)) if classes.multilabel else target
    if mask is not None:
        target[..., mask == 0] = IGNORE
    return target


def label_margin(settings: TrainSettings) -> int:
    """Say how far around a voxel `make_target` looks at the labels.

    Parameters
    ----------
    settings : TrainSettings

    Returns
    -------
    int
        Voxels along each axis.
    """
    plain = settings.label_values != "objects" or settings.objects_as == "foreground"
    return 0 if plain else 1 + settings.boundary_width


def _known(labels: NDArray[Any], settings: TrainSettings) -> NDArray[np.bool_]:
    """Where a label image says something."""
    known: NDArray[np.bool_] = np.ones(labels.shape, bool) if settings.unlabelled == "background" else labels != 0
    if settings.ignore_value is not None:
        known &= labels != settings.ignore_value
    return known


def _masks(labels: NDArray[Any], settings: TrainSettings) -> NDArray[np.uint8]:
    """Give each mask as 0 and 1; where one class is painted, the others are known not to be, unless painted too."""
    target: NDArray[np.uint8] = ((labels != 0) & (labels != (settings.background or 0))).astype(np.uint8)
    if settings.unlabelled == "ignore":
        target[:, ~labels.any(axis=0)] = IGNORE
    if settings.ignore_value is not None:
        target[labels == settings.ignore_value] = IGNORE
    return target


def _of_objects(objects: NDArray[Any], settings: TrainSettings) -> NDArray[np.uint8]:
    known = _known(objects, settings)
    shown = np.where(known, objects, 0)
    planar = settings.view != "3d"
    if settings.objects_as == "boundaries":
        target = boundaries(shown, width=settings.boundary_width, planar=planar).astype(np.uint8)
    elif settings.objects_as == "borders":
        target = borders(shown, planar=planar)
    elif settings.objects_as == "separated":
        target = (borders(shown, touching=True, planar=planar) == 1).astype(np.uint8)
    else:
        target = (shown != 0).astype(np.uint8)
    target[~known] = IGNORE
    codes: NDArray[np.uint8] = target.astype(np.uint8, copy=False)
    return codes


def separation(labels: NDArray[Any], target: NDArray[np.uint8], settings: TrainSettings) -> NDArray[np.float32]:
    """Make the weight map that keeps touching objects apart.

    Parameters
    ----------
    labels : integer array of shape (C, Z, Y, X)
        As painted.
    target : array of shape (Z, Y, X) or (K, Z, Y, X)
        From `make_target`.
    settings : TrainSettings

    Returns
    -------
    array of float32, shape (Z, Y, X)
    """
    known = target != IGNORE if target.ndim == 3 else (target != IGNORE).all(axis=0)
    if settings.label_values == "objects":
        objects = np.where(known, labels[0], 0)
    else:
        painted = np.where(known, target if target.ndim == 3 else (target == 1).any(axis=0), 0)
        objects = components_of(painted)
    return separation_weights(objects, known=known)


def target_margin(classes: Classes, settings: TrainSettings) -> tuple[int, int, int]:
    """Say how much more of a target than the patch `loss_target` needs, so that a patch's border is as its inside.

    Parameters
    ----------
    classes : Classes
    settings : TrainSettings

    Returns
    -------
    tuple of 3 int
        Voxels on both sides, z, y, x.
    """
    if classes.lines:
        return 0, LINE_MARGIN, LINE_MARGIN
    reach = math.ceil(4 * settings.label_blur)
    return (reach if settings.view == "3d" else 0), reach, reach


def loss_target(target: NDArray[np.uint8], classes: Classes, settings: TrainSettings) -> NDArray[Any]:
    """Give what the loss compares a patch with: blurred lines beside lines, softened borders, or the target itself.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        A patch of what `make_target` gave.
    classes : Classes
    settings : TrainSettings

    Returns
    -------
    array of shape (Z, Y, X), or (K', Z, Y, X) with values in [0, 1] and IGNORE
        K' is K and three more for each line; 1 for a binary head.
    """
    if classes.lines:
        return with_line_channels(target, classes.lines)
    if not settings.label_blur:
        return target
    sigma = (settings.label_blur if settings.view == "3d" else 0.0, settings.label_blur, settings.label_blur)
    softened = soft(target if target.ndim == 4 else one_hot(target, len(classes)), sigma)
    return softened[1:] if settings.head_for(len(classes)) == "binary" else softened


def loss_weights(
    counts: NDArray[np.int64], known: NDArray[np.int64], classes: Classes, settings: TrainSettings
) -> tuple[float, ...]:
    """Give the importance of each output of the network.

    Parameters
    ----------
    counts : array of int, shape (K,)
        Voxels of each class.
    known : array of int, shape (K,)
        Labelled voxels of each class channel.
    classes : Classes
    settings : TrainSettings

    Returns
    -------
    tuple of float
        As `losses.build_loss` takes them; empty for none.

    Raises
    ------
    DataProblem
        If numbers were given, but not one for each class.
    """
    if settings.class_weights == "none":
        return ()
    if isinstance(settings.class_weights, tuple):
        if len(settings.class_weights) != len(classes):
            raise DataProblem(
                f"{len(settings.class_weights)} class weights were given, but there are {len(classes)} classes "
                f"(values {', '.join(map(str, classes.values))}); give one for each."
            )
        weights = settings.class_weights
    elif classes.multilabel:
        pairs = zip(counts.tolist(), known.tolist(), strict=True)
        both = [class_weights((total - count, count), settings.class_weights) for count, total in pairs]
        weights = tuple(there / elsewhere for elsewhere, there in both)
    else:
        weights = class_weights(tuple(counts.tolist()), settings.class_weights)
    return tuple(w for i, w in enumerate(weights) for _ in range(4 if i in classes.lines else 1))
