"""Summaries over cases: pooled voxels, means over cases, and detection of classes by case."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unetvnet.metrics.counts import mean
from napari_unetvnet.metrics.evaluation import Evaluation, pooled
from napari_unetvnet.metrics.options import EvaluateSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.metrics.overlap import Overlap
    from napari_unetvnet.metrics.surface import SurfaceScores

__all__ = ["CaseScores", "MeanScores", "Summary", "scores_of_case", "summarise"]


@dataclass(frozen=True)
class MeanScores:
    """Scores of one class, averaged over the cases that have it."""

    cases: int
    """Cases where either image has the class; Dice and IoU are averaged over these."""
    dice: float | None
    iou: float | None
    precision: float | None
    """Over the cases where the prediction has it."""
    recall: float | None
    """Over the cases where the truth has it."""
    surface_dice: float | None
    """Over the cases where either image has it."""
    hd95: float | None
    """Over the cases where both images have it, since a missing surface has no distance."""
    mean_distance: float | None
    """Likewise."""
    cases_with_distance: int
    """Number of these cases."""


@dataclass(frozen=True)
class CaseScores:
    """Detection of a class by case: a case has a class if it has enough voxels of it."""

    true_positives: int
    """Cases that have the class in both images."""
    false_positives: int
    """Cases that have it only in the prediction."""
    false_negatives: int
    """Cases that have it only in the truth."""
    true_negatives: int
    """Cases that have it in neither."""

    @property
    def recall(self) -> float | None:
        """TP / (TP + FN); None where no truth has the class."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP); None where no prediction has the class."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def accuracy(self) -> float | None:
        """(TP + TN) / cases."""
        correct = self.true_positives + self.true_negatives
        return _share(correct, correct + self.false_positives + self.false_negatives)

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self) | {"recall": self.recall, "precision": self.precision, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Summary:
    """All scores of several cases. Parts are named by class value, region, or "foreground"."""

    cases: dict[str, Evaluation]
    """By name."""
    pooled: Evaluation
    """Over all voxels and objects: large cases have more weight."""
    means: dict[str, MeanScores]
    """By part, means over cases: all cases have equal weight."""
    mean_scores: dict[str, float | None]
    """Means over cases of scores without parts: mean_dice, mean_iou, accuracy, object scores."""
    detection: dict[str, CaseScores]
    """By part other than background, its detection by case."""
    case_voxels: int
    """A case has a part if it has more voxels of it than this."""
    notices: tuple[str, ...] = ()
    """One sentence each."""
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Prediction and truth of each case, by its name, where they were read from files."""

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        files = {name: {"prediction": predicted, "truth": true} for name, (predicted, true) in self.files.items()}
        return {
            "cases": [{"case": name, **files.get(name, {}), **case.as_dict()} for name, case in self.cases.items()],
            "pooled": self.pooled.as_dict(),
            "mean_over_cases": {**self.mean_scores, "parts": {name: asdict(part) for name, part in self.means.items()}},
            "case_level": {
                "case_voxels": self.case_voxels,
                "parts": {name: part.as_dict() for name, part in self.detection.items()},
            },
            "notices": list(self.notices),
        }


def summarise(cases: Mapping[str, Evaluation], settings: EvaluateSettings | None = None) -> Summary:
    """Summarise the scores of several cases.

    Parameters
    ----------
    cases : mapping of str to Evaluation
        At least one, by name, all with these settings and the same meaning of truth values.

    Returns
    -------
    Summary

    Notes
    -----
    If cases differ in unit, distances are not averaged.
    """
    settings = settings or EvaluateSettings()
    evaluations = list(cases.values())
    pool = pooled(evaluations, settings)
    names = [*map(str, pool.classes), *pool.regions, "foreground"]
    one_unit = len({evaluation.unit for evaluation in evaluations}) == 1
    notices = [f"{name}: {line}" for name, evaluation in cases.items() for line in evaluation.notices]
    if not one_unit:
        notices.append("The cases differ in the unit of their spacing, so distances are not averaged.")
    return Summary(
        cases=dict(cases),
        pooled=pool,
        means={name: _means(evaluations, name, distances=one_unit) for name in names},
        mean_scores=_mean_scores(evaluations, distances=one_unit),
        detection={name: _detection(evaluations, name, settings.case_voxels) for name in names if name != "0"},
        case_voxels=settings.case_voxels,
        notices=tuple(notices),
    )


def scores_of_case(evaluation: Evaluation) -> dict[str, float | None]:
    """Collect the scores of a case that have no parts: means over classes, accuracies, object scores.

    Returns
    -------
    dict of str to float or None
    """
    objects = evaluation.objects
    return {
        "mean_dice": evaluation.mean_dice,
        "mean_iou": evaluation.mean_iou,
        **evaluation.mean_surfaces(),
        "accuracy": evaluation.confusion.accuracy,
        "mean_accuracy": evaluation.confusion.mean_accuracy,
        "object_f1": objects.f1,
        "object_precision": objects.precision,
        "object_recall": objects.recall,
        "mean_average_precision": objects.mean_average_precision,
        "panoptic_quality": objects.panoptic_quality,
    }


def _part(evaluation: Evaluation, name: str) -> Overlap | None:
    """Give the scores of a class, a region or the foreground; None if the case does not have the class."""
    if name == "foreground":
        return evaluation.foreground
    if name in evaluation.regions:
        return evaluation.regions[name]
    return evaluation.classes.get(int(name)) if name.lstrip("-").isdigit() else None


def _means(evaluations: Sequence[Evaluation], name: str, *, distances: bool) -> MeanScores:
    """Average the scores of one part."""
    overlaps = [part for evaluation in evaluations if (part := _part(evaluation, name))]
    surfaces: list[SurfaceScores] = [
        evaluation.surfaces[name] for evaluation in evaluations if name in evaluation.surfaces
    ]
    measured = [part for part in surfaces if part.hd95 is not None] if distances else []
    return MeanScores(
        cases=sum(part.dice is not None for part in overlaps),
        dice=mean(part.dice for part in overlaps),
        iou=mean(part.iou for part in overlaps),
        precision=mean(part.precision for part in overlaps),
        recall=mean(part.recall for part in overlaps),
        surface_dice=mean(part.surface_dice for part in surfaces),
        hd95=mean(part.hd95 for part in measured),
        mean_distance=mean(part.mean_distance for part in measured),
        cases_with_distance=len(measured),
    )


def _mean_scores(evaluations: Sequence[Evaluation], *, distances: bool) -> dict[str, float | None]:
    """Average the scores without parts."""
    rows = [scores_of_case(evaluation) for evaluation in evaluations]
    means = {name: mean(row[name] for row in rows) for name in rows[0]}
    return means if distances else means | {"mean_hd95": None, "mean_distance": None}


def _detection(evaluations: Sequence[Evaluation], name: str, voxels: int) -> CaseScores:
    """Count the cases that have a part in the prediction, in the truth, in both."""
    counts = {(predicted, true): 0 for predicted in (False, True) for true in (False, True)}
    for evaluation in evaluations:
        part = _part(evaluation, name)
        counts[part is not None and part.predicted > voxels, part is not None and part.true > voxels] += 1
    return CaseScores(counts[True, True], counts[True, False], counts[False, True], counts[False, False])


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
