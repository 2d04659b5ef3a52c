"""The classes that are learnt, and what a loss compares with: the target of a patch, and the weight of each class.

A target is class indices (Z, Y, X) where each voxel has one class, or a channel for each class (K, Z, Y, X) where
classes may overlap; IGNORE marks what is not known. It is what a person drew: `loss_target` makes the softened form
that a loss may want from a patch of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unetvnet.data.targets.balance import class_weights
from napari_unetvnet.data.targets.channels import one_hot, soft
from napari_unetvnet.data.targets.lines import with_line_channels
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses import LossClasses
from napari_unetvnet.settings import BLURS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_unetvnet.settings import TrainSettings

__all__ = ["Classes", "loss_classes", "loss_target", "loss_weights", "target_margin"]

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

    @property
    def words(self) -> tuple[str, ...]:
        """The name of each class, or its value in results."""
        return self.names or tuple(map(str, self.output_values))


def loss_classes(classes: Classes, settings: TrainSettings) -> LossClasses:
    """Describe the classes as a loss refers to them: by name, or by label value as painted.

    Returns
    -------
    LossClasses

    Raises
    ------
    SettingsProblem
        If the classes do not fit the head.
    """
    return LossClasses(
        names=classes.names or tuple(map(str, classes.values)),
        values=() if settings.regions else classes.values,  # numbers of regions are no label values
        head=settings.head_for(len(classes)),
        background=classes.output_values.index(0) if 0 in classes.output_values else None,
        lines=classes.lines,
        blurs=BLURS,
    )


def target_margin(classes: Classes, settings: TrainSettings) -> tuple[int, int, int]:
    """Say how much more of a target than the patch `loss_target` needs, so that a patch's border is as its inside.

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
