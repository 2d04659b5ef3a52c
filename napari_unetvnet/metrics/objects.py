"""Object scores: true positives, false positives and false negatives, and the IoU of matched objects.

The IoU of every two components that overlap is computed once; every threshold then only counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.metrics.counts import check_images, count_pairs
from napari_unetvnet.metrics.overlap import ConfusionMatrix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["ObjectScores", "object_scores", "pooled_objects"]

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))  # divided, so that 0.6 is the 0.6 of 6 / 10
Ious = dict[tuple[int, int], float]
"""IoU by (true component, predicted component)."""


@dataclass(frozen=True)
class ObjectScores:
    """Detection of objects: TP match one to one, FP have no true object, FN were missed."""

    f1: float
    """2 TP / (2 TP + FP + FN); 1 where neither image has an object."""
    precision: float | None
    """TP / (TP + FP); None without a predicted object."""
    recall: float | None
    """TP / (TP + FN); None without a true object."""
    true_positives: int
    """Objects that match one to one."""
    false_positives: int
    """Predicted objects without a match."""
    false_negatives: int
    """True objects without a match."""
    iou_threshold: float
    """Minimum IoU of a match."""
    matches: dict[str, int]
    """TP at each IoU threshold from 0.50 to 0.95, in steps of 0.05."""
    average_precision: dict[str, float]
    """TP / (TP + FP + FN) at each of those; 1 where neither image has an object."""
    mean_average_precision: float
    """Mean of those ten."""
    panoptic_quality: float
    """Mean IoU of the objects that match above IoU 0.5, times their F1; 1 where neither image has an object."""


def object_scores(
    prediction: Any, truth: Any, iou_threshold: float = 0.5, ignore: int | None = None, background: int = 0
) -> ObjectScores:
    """Count true positive, false positive and missed objects.

    An object is a connected component (corners touch) of one value other than background. So different values keep
    touching objects apart, and a class image gives its components. Values are not compared between the images.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape, (X,), (Y, X) or (Z, Y, X)
        Label images, of classes or of object ids.
    iou_threshold : float
        Minimum IoU of two objects that match, above 0, at most 1. Each object matches at most once, and the number of
        matches is maximal.
    ignore : int, optional
        Where the truth has this value, both images count as background, which may split an object.
    background : int
        The value that is not an object, in both images.

    Returns
    -------
    ObjectScores

    Raises
    ------
    DataProblem
        If the shapes differ, the values are not integers, or there are more than three axes.
    SettingsProblem
        If the threshold is out of range.

    Notes
    -----
    Average precision is that of the Data Science Bowl 2018 [1]_ and of StarDist [2]_, panoptic quality that of [3]_.
    The latter two give 0 where neither image has an object.

    References
    ----------
    .. [1] Caicedo et al. 2019, Nucleus segmentation across imaging experiments,
       https://doi.org/10.1038/s41592-019-0612-7
    .. [2] Schmidt et al. 2018, Cell detection with star-convex polygons, https://doi.org/10.1007/978-3-030-00934-2_30
    .. [3] Kirillov et al. 2019, Panoptic segmentation, https://doi.org/10.1109/CVPR.2019.00963
    """
    if not 0 < iou_threshold <= 1:
        raise SettingsProblem(f"An IoU threshold of {iou_threshold} was given; choose one above 0, at most 1.")
    check_images(prediction, truth)
    if len(prediction.shape) > 3:
        raise DataProblem(f"Objects need one to three axes, the images have shape {prediction.shape}; give parts.")
    hidden = None if ignore is None else np.asarray(truth) == ignore
    (predicted, n_predicted), (true, n_true) = (_components(image, hidden, background) for image in (prediction, truth))
    ious = _ious(ConfusionMatrix(count_pairs(predicted, true, None)))
    matches = {threshold: _count_matches(ious, threshold) for threshold in {*THRESHOLDS, float(iou_threshold)}}
    return _scores((n_predicted, n_true), matches, float(iou_threshold), sum(iou for iou in ious.values() if iou > 0.5))


def pooled_objects(scores: Iterable[ObjectScores]) -> ObjectScores:
    """Score the objects of several images as if they were one image.

    Parameters
    ----------
    scores : iterable of ObjectScores
        At least one, all at one IoU threshold.

    Returns
    -------
    ObjectScores
    """
    scores = list(scores)
    totals = [_totals(part) for part in scores]
    threshold = scores[0].iou_threshold
    matches = {float(key): sum(part.matches[key] for part in scores) for key in scores[0].matches}
    matches[threshold] = sum(part.true_positives for part in scores)
    ious = sum(part.panoptic_quality * sum(total) / 2 for part, total in zip(scores, totals, strict=True))
    return _scores(
        (sum(predicted for predicted, _ in totals), sum(true for _, true in totals)), matches, threshold, ious
    )


def _totals(scores: ObjectScores) -> tuple[int, int]:
    """Give the number of objects in the prediction and in the truth."""
    return scores.true_positives + scores.false_positives, scores.true_positives + scores.false_negatives


def _components(image: Any, hidden: NDArray[np.bool_] | None, background: int) -> tuple[NDArray[np.intp], int]:
    """Label and count the connected components of equal value; background and hidden voxels are 0."""
    from skimage.measure import label

    values = np.array(image, dtype=np.int64)
    if hidden is not None:
        values[hidden] = background
    components, count = label(values, background=background, return_num=True, connectivity=values.ndim)
    return components, int(count)


def _ious(counted: ConfusionMatrix) -> Ious:
    """Give the IoU of all pairs of components that overlap."""
    true, predicted = counted.true, counted.predicted
    return {(a, b): common / (true[a] + predicted[b] - common) for (a, b), common in counted.pairs.items() if a and b}


def _count_matches(ious: Ious, threshold: float) -> int:
    """Give the size of the maximum matching at a threshold; above IoU 0.5 the pairs are unique anyway."""
    candidates = [pair for pair, iou in ious.items() if iou >= threshold]
    if threshold > 0.5 or not candidates:
        return len(candidates)
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    graph = csr_array((np.ones(len(candidates), dtype=np.int8), np.transpose(candidates)))
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))


def _scores(totals: tuple[int, int], matches_at: dict[float, int], threshold: float, ious: float) -> ObjectScores:
    """Compute scores from the totals, the matches at each threshold, and the sum of the IoUs above 0.5."""
    predicted, true = totals
    total, matches = predicted + true, matches_at[threshold]
    curve = {f"{key:.2f}": matches_at[key] / (total - matches_at[key]) if total else 1.0 for key in THRESHOLDS}
    return ObjectScores(
        f1=2 * matches / total if total else 1.0,
        precision=matches / predicted if predicted else None,
        recall=matches / true if true else None,
        true_positives=matches,
        false_positives=predicted - matches,
        false_negatives=true - matches,
        iou_threshold=threshold,
        matches={f"{key:.2f}": matches_at[key] for key in THRESHOLDS},
        average_precision=curve,
        mean_average_precision=sum(curve.values()) / len(curve),
        panoptic_quality=2 * ious / total if total else 1.0,  # TP + FP / 2 + FN / 2 is half of all objects
    )
