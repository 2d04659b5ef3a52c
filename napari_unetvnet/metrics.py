"""Compare one label image with another.

Everything rests on one table: how often each pair (true value, predicted value) occurs. It is counted slab by slab,
so memory-mapped, dask and zarr images are never held as a whole, and any integers may be values. Classes and the
foreground are sums over that short table; objects are compared by the same table of their component numbers. A score
that has nothing to measure is None, never NaN, and is left out of means.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Evaluation", "ObjectScores", "Overlap", "TruthIs", "evaluate", "object_scores", "overlap"]

TruthIs = Literal["auto", "classes", "objects"]
Pairs = Counter[tuple[int, int]]
"""How many voxels have (true value, predicted value)."""

SLAB_VOXELS = 1 << 22
MOST_CLASSES = 16
MOST_PREDICTED = 2


@dataclass(frozen=True)
class Overlap:
    """How well the voxels of one class agree."""

    dice: float | None
    """2 |P and T| / (|P| + |T|); None where neither image has the class."""
    iou: float | None
    """|P and T| / |P or T|; None where neither image has the class."""
    predicted: int
    """Voxels of the class in the prediction, |P|."""
    true: int
    """Voxels of the class in the truth, |T|."""


@dataclass(frozen=True)
class ObjectScores:
    """How many objects were found."""

    f1: float
    """2 TP / (2 TP + FP + FN); 1 where neither image has an object."""
    precision: float | None
    """TP / (TP + FP); None where no object was predicted."""
    recall: float | None
    """TP / (TP + FN); None where the truth has no object."""
    true_positives: int
    """Objects that match one to one."""
    false_positives: int
    """Predicted objects without a match."""
    false_negatives: int
    """True objects without a match."""
    iou_threshold: float
    """Least IoU of a match."""


@dataclass(frozen=True)
class Evaluation:
    """All scores of one prediction."""

    truth_is: Literal["classes", "objects"]
    """How the values of the truth were read."""
    background: int
    """The value that is background, in both images."""
    ignore: int | None
    """The value of the truth whose voxels were left out."""
    voxels: int
    """How many were compared."""
    ignored: int
    """How many were left out."""
    mean_dice: float | None
    """Over the classes other than background that occur in either image; for object ids, of the foreground."""
    mean_iou: float | None
    """Likewise; both are None where nothing but background occurs."""
    foreground: Overlap
    """Of all that is not background, whatever its class."""
    classes: dict[int, Overlap]
    """By value, background included; empty for object ids."""
    objects: ObjectScores
    """How many connected pieces were found, see `object_scores`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON holds: finite numbers, None, and text as keys, class values too."""
        plain = asdict(self)
        plain["classes"] = {str(value): scores for value, scores in plain["classes"].items()}
        return plain

    def table(self) -> str:
        """Plain text: a line for each class, the foreground and the mean, then what was read and found."""
        lines = [_row("class", "dice", "iou", "predicted", "true")]
        for value, scores in self.classes.items():
            name = f"{value} (background)" if value == self.background else str(value)
            lines.append(_overlap_row(name, scores))
        lines.append(_overlap_row("foreground", self.foreground))
        lines.append(_row("mean", _cell(self.mean_dice), _cell(self.mean_iou), "", "").rstrip())
        found = self.objects
        lines += [
            f"\nTruth values read as {self.truth_is}; {self.voxels} voxels compared, {self.ignored} ignored.",
            f"Objects at IoU >= {found.iou_threshold:g}: F1 {_cell(found.f1)}, precision {_cell(found.precision)}, "
            f"recall {_cell(found.recall)}; {found.true_positives} found, {found.false_positives} false, "
            f"{found.false_negatives} missed.",
        ]
        return "\n".join(lines)


def overlap(
    prediction: Any, truth: Any, values: Iterable[int] | None = None, ignore: int | None = None
) -> dict[int, Overlap]:
    """Measure how well the voxels of each class agree.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape (..., Y, X)
        Label images; the same value means the same class. Read by slicing along the first axis only.
    values : iterable of int, optional
        The classes to measure (default: all values found in either image, in rising order).
    ignore : int, optional
        Voxels where the truth has this value are left out, whatever was predicted there.

    Returns
    -------
    dict of int to Overlap
        By class value, background included.

    Raises
    ------
    DataProblem
        If the shapes differ or the values are no integers.
    """
    _check_images(prediction, truth)
    return _overlaps(_count_pairs(prediction, truth, ignore), values)


def object_scores(
    prediction: Any, truth: Any, iou_threshold: float = 0.5, ignore: int | None = None, background: int = 0
) -> ObjectScores:
    """Count the objects that were found, made up and missed.

    An object is a connected component (corners touch) of one value other than background. So different values keep
    touching objects apart, and a class image gives its components. Values are not compared between the images.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape, (X,), (Y, X) or (Z, Y, X)
        Label images, of classes or of object ids.
    iou_threshold : float
        Least IoU of two objects that match, above 0 to 1. Each object matches at most once; where there is a choice,
        as many as possible match.
    ignore : int, optional
        Where the truth has this value, both images count as background, which may cut an object in two.
    background : int
        The value that is no object, in both images.

    Returns
    -------
    ObjectScores

    Raises
    ------
    DataProblem
        If the shapes differ, the values are no integers, or there are more than three axes.
    SettingsProblem
        If the threshold is out of range.
    """
    if not 0 < iou_threshold <= 1:
        raise SettingsProblem(f"An IoU threshold of {iou_threshold} was given; choose one above 0, at most 1.")
    _check_images(prediction, truth)
    if not 1 <= len(prediction.shape) <= 3:
        raise DataProblem(f"Objects need one to three axes, the images have shape {prediction.shape}; give parts.")
    hidden = None if ignore is None else np.asarray(truth) == ignore
    (found, n_found), (true, n_true) = (_components(image, hidden, background) for image in (prediction, truth))
    return _object_scores(_count_pairs(found, true, None), n_found, n_true, iou_threshold)


def evaluate(
    prediction: Any,
    truth: Any,
    *,
    truth_is: TruthIs = "auto",
    background: int = 0,
    ignore: int | None = None,
    iou_threshold: float = 0.5,
) -> Evaluation:
    """Compare a prediction with the truth in all ways.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape, (X,), (Y, X) or (Z, Y, X)
        Label images.
    truth_is : {"auto", "classes", "objects"}
        What the values of the truth mean: classes, as in the prediction, or the ids of single objects of one class.
        "auto" reads ids where the truth has more than 16 values and the prediction at most 2, background aside.
    background : int
        The value that is background, in both images.
    ignore : int, optional
        Voxels where the truth has this value are left out of everything.
    iou_threshold : float
        Least IoU of two objects that match, above 0 to 1.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataProblem
        If the shapes differ, the values are no integers, or there are more than three axes.
    SettingsProblem
        If the threshold is out of range, or ``truth_is`` is none of the three.

    See Also
    --------
    overlap : The scores of the classes.
    object_scores : What an object is, and a match.
    """
    if truth_is not in ("auto", "classes", "objects"):
        raise SettingsProblem(f"truth_is={truth_is!r} was given; choose auto, classes or objects.")
    objects = object_scores(prediction, truth, iou_threshold, ignore, background)  # checks the images, too
    pairs = _count_pairs(prediction, truth, ignore)
    voxels = pairs.total()
    foreground = _foreground(pairs, background)
    read_as = _reading(pairs, background) if truth_is == "auto" else truth_is
    classes = _overlaps(pairs, None) if read_as == "classes" else {}
    parts = [scores for value, scores in classes.items() if value != background] if classes else [foreground]
    return Evaluation(
        truth_is=read_as,
        background=background,
        ignore=ignore,
        voxels=voxels,
        ignored=prod(truth.shape) - voxels,
        mean_dice=_mean(part.dice for part in parts),
        mean_iou=_mean(part.iou for part in parts),
        foreground=foreground,
        classes=classes,
        objects=objects,
    )


def _check_images(prediction: Any, truth: Any) -> None:
    """Refuse what is no pair of label images."""
    if tuple(prediction.shape) != tuple(truth.shape):
        raise DataProblem(
            f"The prediction has shape {tuple(prediction.shape)}, the truth {tuple(truth.shape)}; "
            "give two label images of the same voxels, cropped or resampled to one shape."
        )
    lines = [
        f"The {name} holds values of type {image.dtype}, labels are integers; "
        "turn probabilities into labels first (such as scores > 0.5), or convert whole numbers to an integer type."
        for name, image in (("prediction", prediction), ("truth", truth))
        if np.dtype(image.dtype).kind not in "biu"
    ]
    if lines:
        raise DataProblem(*lines)


def _count_pairs(prediction: Any, truth: Any, ignore: int | None) -> Pairs:
    """Count how often each (true value, predicted value) occurs where the truth is not ignored."""
    pairs: Pairs = Counter()
    length, *rest = truth.shape
    step = max(1, SLAB_VOXELS // max(1, prod(rest)))
    for start in range(0, length, step):
        part, true = (np.asarray(image[start : start + step]).ravel() for image in (prediction, truth))
        keep = slice(None) if ignore is None else true != ignore
        pairs.update(_pairs_of_slab(part[keep], true[keep]))
    return pairs


def _pairs_of_slab(part: NDArray[Any], true: NDArray[Any]) -> dict[tuple[int, int], int]:
    """Count the pairs of two flat arrays (N,)."""
    if not part.size:
        return {}
    (true_values, true_index), (part_values, part_index) = _ranked(true), _ranked(part)
    codes, index = _ranked(true_index * len(part_values) + part_index)
    places = (divmod(code, len(part_values)) for code in codes)
    counts = np.bincount(index).tolist()
    return {(true_values[a], part_values[b]): count for (a, b), count in zip(places, counts, strict=True)}


def _ranked(values: NDArray[Any]) -> tuple[list[int], NDArray[np.intp]]:
    """Return the distinct values in rising order and, for each voxel (N,), the place of its value among them."""
    low, high = int(values.min()), int(values.max())
    if high - low >= max(1 << 20, 4 * values.size):  # too wide for a table: sort
        distinct, index = np.unique(values, return_inverse=True)
        return distinct.tolist(), index.ravel()
    wide = values.astype(np.uint64 if values.dtype.kind == "u" else np.int64)
    offsets = (wide - wide.dtype.type(low)).astype(np.intp)
    present = np.bincount(offsets) > 0
    return [low + offset for offset in np.flatnonzero(present).tolist()], (np.cumsum(present) - 1)[offsets]


def _sums(pairs: Pairs) -> tuple[Counter[int], Counter[int]]:
    """Return how often each value occurs in the prediction and in the truth."""
    predicted: Counter[int] = Counter()
    true: Counter[int] = Counter()
    for (true_value, predicted_value), count in pairs.items():
        predicted[predicted_value] += count
        true[true_value] += count
    return predicted, true


def _overlaps(pairs: Pairs, values: Iterable[int] | None) -> dict[int, Overlap]:
    predicted, true = _sums(pairs)
    wanted = sorted(predicted.keys() | true.keys()) if values is None else [int(value) for value in values]
    return {value: _overlap(pairs[value, value], predicted[value], true[value]) for value in wanted}


def _overlap(common: int, predicted: int, true: int) -> Overlap:
    union = predicted + true - common
    if union == 0:
        return Overlap(None, None, 0, 0)
    return Overlap(2 * common / (predicted + true), common / union, predicted, true)


def _foreground(pairs: Pairs, background: int) -> Overlap:
    """Compare all that is not background."""
    merged: Pairs = Counter()
    for (true_value, predicted_value), count in pairs.items():
        merged[int(true_value != background), int(predicted_value != background)] += count
    return _overlaps(merged, [1])[1]


def _reading(pairs: Pairs, background: int) -> Literal["classes", "objects"]:
    """Guess what the values of the truth mean."""
    predicted, true = _sums(pairs)
    ids = len(true.keys() - {background}) > MOST_CLASSES and len(predicted.keys() - {background}) <= MOST_PREDICTED
    return "objects" if ids else "classes"


def _components(image: Any, hidden: NDArray[np.bool_] | None, background: int) -> tuple[NDArray[np.intp], int]:
    """Give each connected component of equal value a number from 1 and count them; background and hidden are 0."""
    from skimage.measure import label

    values = np.array(image, dtype=np.int64)
    if hidden is not None:
        values[hidden] = background
    components, count = label(values, background=background, return_num=True, connectivity=values.ndim)
    return components, int(count)


def _object_scores(pairs: Pairs, found: int, true: int, iou_threshold: float) -> ObjectScores:
    """Score ``found`` and ``true`` components, numbered from 1, from how they overlap."""
    matches = _count_matches(pairs, iou_threshold)
    return ObjectScores(
        f1=2 * matches / (found + true) if found + true else 1.0,
        precision=matches / found if found else None,
        recall=matches / true if true else None,
        true_positives=matches,
        false_positives=found - matches,
        false_negatives=true - matches,
        iou_threshold=float(iou_threshold),
    )


def _count_matches(pairs: Pairs, iou_threshold: float) -> int:
    """Count the most pairs of components that overlap enough and share none; above one half none ever do."""
    found, true = _sums(pairs)
    ious = {(a, b): common / (true[a] + found[b] - common) for (a, b), common in pairs.items() if a and b}
    candidates = [pair for pair, iou in ious.items() if iou >= iou_threshold]
    if iou_threshold > 0.5 or not candidates:
        return len(candidates)
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    graph = csr_array((np.ones(len(candidates), dtype=np.int8), np.transpose(candidates)))
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))


def _mean(scores: Iterable[float | None]) -> float | None:
    """Average what could be measured."""
    measured = [score for score in scores if score is not None]
    return sum(measured) / len(measured) if measured else None


def _cell(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _overlap_row(name: str, scores: Overlap) -> str:
    return _row(name, _cell(scores.dice), _cell(scores.iou), str(scores.predicted), str(scores.true))


def _row(name: str, dice: str, iou: str, predicted: str, true: str) -> str:
    return f"{name:<18} {dice:>7} {iou:>7} {predicted:>12} {true:>12}"
