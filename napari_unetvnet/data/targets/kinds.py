"""The kinds of labels: a row each says which classes it has, what it makes of labels, and how far around it looks.

A target is class indices (Z, Y, X), or a channel for each class (K, Z, Y, X), whatever the labels were. A new kind is
one row, the functions it names, and its name among the choices of ``label_values`` or ``objects_as``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import object_ids, painted
from napari_unetvnet.data.targets.classes import loss_classes
from napari_unetvnet.losses import by_class, classes_of_terms
from napari_unetvnet.settings.labels import OBJECT_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_unetvnet.data.targets.classes import Classes
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import ObjectRule, TrainSettings

__all__ = ["LABEL_KINDS", "LabelKind", "find_classes", "kind_of", "label_margin", "make_target"]


def _no_margin(_: TrainSettings) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class LabelKind:
    """How labels of one kind become classes and targets.

    Parameters
    ----------
    classes : callable
        ``(labels, settings) -> Classes``, of all label volumes.
    target : callable
        ``(labels (C, Z, Y, X), classes, settings, name) -> target``, of a part of one volume.
    margin : callable
        ``(settings) -> int``: how many voxels around a voxel its target depends on.
    objects_by : str
        How results are divided into single objects; empty if they stay classes.
    """

    classes: Callable[[Sequence[Volume], TrainSettings], Classes]
    target: Callable[[NDArray[Any], Classes, TrainSettings, str], NDArray[np.uint8]]
    margin: Callable[[TrainSettings], int] = _no_margin
    objects_by: ObjectRule | Literal[""] = ""


def _object_kind(
    name: str,
    codes: object_ids.Codes,
    margin: Callable[[TrainSettings], int],
    objects_by: ObjectRule | Literal[""] = "",
) -> LabelKind:
    """Make a row for labels that are ids of objects."""
    classes, target = object_ids.named(OBJECT_CLASSES[name]), object_ids.target_of(codes)
    return LabelKind(classes=classes, target=target, margin=margin, objects_by=objects_by)


LABEL_KINDS: Mapping[str, LabelKind] = {
    "classes": LabelKind(classes=painted.value_classes, target=painted.value_target),
    "lines": LabelKind(classes=painted.line_classes, target=painted.value_target),
    "regions": LabelKind(classes=painted.region_classes, target=painted.region_target),
    "overlapping": LabelKind(classes=painted.mask_classes, target=painted.mask_target),
    "foreground": _object_kind("foreground", object_ids.foreground, _no_margin),
    "separated": _object_kind("separated", object_ids.separated, object_ids.margin, "watershed"),
    "boundaries": _object_kind("boundaries", object_ids.between, object_ids.margin),
    "borders": _object_kind("borders", object_ids.inside_and_border, object_ids.margin, "border"),
    "cores": _object_kind("cores", object_ids.core_and_rim, object_ids.core_margin, "cores"),
}


def kind_of(settings: TrainSettings) -> LabelKind:
    """Find the kind of labels that the settings describe."""
    if settings.label_values == "objects":
        return LABEL_KINDS[settings.objects_as]
    if settings.label_values == "classes":
        return LABEL_KINDS["regions" if settings.regions else "lines" if settings.lines else "classes"]
    return LABEL_KINDS[settings.label_values]


def find_classes(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    """Find the classes in labels.

    Parameters
    ----------
    labels : sequence of Volume, data of shape (1, Z, Y, X), or (K, Z, Y, X) with label_values=overlapping

    Returns
    -------
    Classes

    Raises
    ------
    DataProblem
        If a class is not painted anywhere, there are too few or too many, or a value is none of them.
    SettingsProblem
        If the loss is for a class that there is not, or leaves one out.
    """
    classes = kind_of(settings).classes(labels, settings)
    if by_class(settings.loss):
        classes_of_terms(settings.loss, loss_classes(classes, settings))
    return classes


def make_target(
    labels: NDArray[Any], classes: Classes, settings: TrainSettings, name: str, mask: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """Make the target of one image.

    Parameters
    ----------
    labels : integer array of shape (C, Z, Y, X)
        C is 1, or the number of classes with label_values=overlapping.
    name : str
        Of the labels, for messages.
    mask : array of shape (Z, Y, X), optional
        Voxels are ignored where it is 0.

    Returns
    -------
    array of uint8, shape (Z, Y, X) or, for overlapping classes, (K, Z, Y, X)
        Class indices or 0 and 1; IGNORE where voxels are ignored.
    """
    target = kind_of(settings).target(labels, classes, settings, name)
    if mask is not None:
        target[..., mask == 0] = IGNORE
    return target


def label_margin(settings: TrainSettings) -> int:
    """Say how far around a voxel `make_target` looks at the labels.

    Returns
    -------
    int
        Voxels along each axis.
    """
    return kind_of(settings).margin(settings)
