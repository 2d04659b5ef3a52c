"""From labels as people paint them to class indices as losses want them.

A label value is what a person painted, a class index counts 0, 1, ... in the order of the values, and IGNORE marks
ignored voxels. With ``unlabelled="ignore"`` a 0 is such a voxel; with ``"background"`` it is class 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE, WHITE
from napari_unetvnet.data.counts import count_values
from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import TrainSettings

__all__ = ["encode", "find_values", "is_black_and_white", "named", "output_values"]

TABLE = 1 << 20
"""Values below this are looked up, which is faster than searching."""
MANY_VALUES = 64
"""More label values than this are taken for object ids, unless the classes are listed."""


def find_values(labels: Sequence[Volume], settings: TrainSettings) -> tuple[int, ...]:
    """Find the label value of each class, in class order.

    Parameters
    ----------
    labels : sequence of Volume, data of shape (1, Z, Y, X)
    settings : TrainSettings
        ``classes``, ``unlabelled`` and ``label_values`` are used.

    Returns
    -------
    tuple of int

    Raises
    ------
    DataProblem
        If fewer than two or more than 255 classes are there, a value is not among the listed classes, or the values
        look like object ids.
    """
    if settings.label_values == "objects":
        return (0, 1)
    found = sorted(set().union(*(label_counts(volume).counts[0] for volume in labels)) - {settings.ignore_value})
    zero_is_class = settings.unlabelled == "background"
    values = [v for v in found if v or zero_is_class]
    if zero_is_class and 0 not in values:
        values = [0, *values]
    if settings.classes:
        values = _listed(values, settings)
    elif len(values) > MANY_VALUES:
        raise DataProblem(
            f"The labels hold {len(values)} different values: they look like ids of single objects. Choose label "
            "values = objects (--label-values objects), or list the classes."
        )
    _check_values(values, settings)
    # The background comes first, whatever its value, as losses and a binary head expect it.
    return tuple(sorted(values, key=lambda value: (value != settings.background, value)))


def named(values: Sequence[int], settings: TrainSettings, usual: Sequence[str] = ()) -> tuple[str, ...]:
    """Give the names of classes by their values.

    Parameters
    ----------
    usual : sequence of str
        Names of classes that were given none; empty where they have none.

    Returns
    -------
    tuple of str
        A class without a name has its value, the background "background"; empty if there are no names at all.

    Raises
    ------
    DataProblem
        If a value that was named is no class, or two classes have one name.
    """
    if strays := [str(item) for item in settings.class_names if item.value not in values]:
        classes = _some(sorted(values))
        raise DataProblem(
            f"Class name(s) {', '.join(strays)} are of no class; the classes are {classes}. Leave them out."
        )
    if not settings.class_names:
        return tuple(usual)
    outputs = output_values(values, settings)
    names = usual or [BACKGROUND if output == 0 else "" for output in outputs]
    chosen = tuple(settings.name_of(value, name) for value, name in zip(values, names, strict=True))
    if len(set(chosen)) < len(chosen):
        raise DataProblem(f"Two classes have the same name ({', '.join(chosen)}); give each another.")
    return chosen


def _check_values(values: list[int], settings: TrainSettings) -> None:
    """Refuse values that cannot be classes."""
    if settings.background is not None and settings.background not in values:
        raise DataProblem(
            f"Background value {settings.background} is not painted anywhere; painted are {_some(values)}."
        )
    if values and max(values) >= 2**32:
        raise DataProblem(f"Label value {max(values)} is too large; number the classes from 1.")
    if len(values) > IGNORE:
        raise DataProblem(f"There are {len(values)} classes; there can be {IGNORE} at most, background included.")
    if len(values) < 2:
        raise DataProblem(
            f"Only the value {_some(values)} is painted; paint at least two classes, one of which may be background, "
            "or say that what is unpainted is background (--unlabelled background)."
        )


def _listed(values: list[int], settings: TrainSettings) -> list[int]:
    """Hold the values against the classes that the user listed."""
    zero = [0] if settings.unlabelled == "background" else []
    listed = sorted({*settings.classes, *zero})
    if strays := [v for v in values if v not in listed]:
        raise DataProblem(f"Label value(s) {_some(strays)} are beyond the classes {_some(listed)}; correct the labels.")
    if missing := [v for v in listed if v not in values]:
        raise DataProblem(f"Class(es) {_some(missing)} are not painted anywhere; painted are {_some(values)}.")
    return listed


def _some(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:10])) + (" ..." if len(values) > 10 else "")


def encode(labels: NDArray[Any], values: Sequence[int], settings: TrainSettings, name: str) -> NDArray[np.uint8]:
    """Turn label values into class indices.

    Parameters
    ----------
    labels : array of shape (Z, Y, X), integers
    values : sequence of int
        Label value of each class.
    name : str
        Of the labels, for messages.

    Returns
    -------
    array of uint8 of the same shape
        Class indices; IGNORE where unpainted voxels are to be ignored.

    Raises
    ------
    DataProblem
        If a value is none of the classes.
    """
    if settings.label_values == "objects":
        objects: NDArray[np.uint8] = (labels != 0).astype(np.uint8)
        return objects
    found = sorted(count_values(labels))
    index = {value: i for i, value in enumerate(values)}
    index |= {0: IGNORE} if settings.unlabelled == "ignore" else {}
    index |= {settings.ignore_value: IGNORE} if settings.ignore_value is not None else {}
    if strays := [v for v in found if v not in index]:
        raise DataProblem(f"Labels {name} hold value(s) {_some(strays)} beyond the classes {_some(list(values))}.")
    codes = np.array([index[v] for v in found], np.uint8)
    if found[0] < 0 or found[-1] >= TABLE:
        return codes[np.searchsorted(found, labels)]
    table = np.zeros(found[-1] + 1, np.uint8)
    table[found] = codes
    encoded: NDArray[np.uint8] = table[labels.astype(np.uint8) if labels.dtype.kind == "b" else labels]
    return encoded


def is_black_and_white(values: Sequence[int], settings: TrainSettings) -> bool:
    """Whether labels are a mask that was saved as a picture, 0 and 255, unless the user names that value."""
    return tuple(values) == (0, WHITE) and WHITE not in settings.classes


def output_values(values: Sequence[int], settings: TrainSettings) -> tuple[int, ...]:
    """Give the value that results carry for each class: the user's own, 0 for the named background, 1 for white."""
    if is_black_and_white(values, settings):
        return 0, 1
    return tuple(0 if value == settings.background else value for value in values)
