"""Scores as text: aligned tables for the terminal, and rows for a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.metrics.cases import scores_of_case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unetvnet.metrics.cases import CaseScores, MeanScores, Summary
    from napari_unetvnet.metrics.evaluation import Evaluation
    from napari_unetvnet.metrics.overlap import Overlap
    from napari_unetvnet.metrics.surface import SurfaceScores

__all__ = ["COLUMNS", "evaluation_rows", "evaluation_table", "summary_rows", "summary_table"]

WIDTHS = (18, 8, 8, 10, 8, 8, 8, 9, 12, 12)  # with spaces at most 110
SCORES = ("dice", "iou", "precision", "recall", "surface", "hd95", "distance")
CASE_SCORES = {
    "dice": "mean_dice",
    "iou": "mean_iou",
    "accuracy": "accuracy",
    "surface": "mean_surface_dice",
    "hd95": "mean_hd95",
    "object F1": "object_f1",
    "AP": "mean_average_precision",
    "PQ": "panoptic_quality",
}
COLUMNS = (
    "case", "part", "name", "cases", "dice", "iou", "precision", "recall", "surface_dice", "hd95", "mean_distance",
    "predicted", "true", "accuracy", "mean_accuracy", "object_f1", "object_precision", "object_recall",
    "mean_average_precision", "panoptic_quality",
)  # fmt: skip
NAME = 34
"""Maximum length of case names in a table; longer ones are cut at the start."""


def evaluation_table(evaluation: Evaluation) -> str:
    """Format the scores of one prediction.

    Returns
    -------
    str
        A line for each class, region, the foreground and the mean, then sentences.
    """
    lines = [_row("class", *SCORES, "predicted", "true"), *_part_rows(evaluation), "", *_sentences(evaluation)]
    return "\n".join([*lines, *(f"Notice: {line}" for line in evaluation.notices)])


def summary_table(summary: Summary) -> str:
    """Format the scores of several cases.

    Returns
    -------
    str
        A line for each case, then the pooled scores, the means over cases, and the detection by case.
    """
    blocks = [
        _case_rows(summary),
        [
            f"Pooled: the voxels and objects of all {len(summary.cases)} cases as if they were one image; no surfaces.",
            _row("class", *SCORES, "predicted", "true"),
            *_part_rows(summary.pooled),
        ],
        _sentences(summary.pooled),
        [
            "Mean over the cases that have the class; of distances, over the cases where both images have it.",
            _row("class", *SCORES, "cases", "distances"),
            *(_mean_row(summary.pooled.title(name), part) for name, part in summary.means.items()),
            *_shared_surface_sentence(summary),
        ],
        [
            f"Cases that have the class, with more than {summary.case_voxels} voxels.",
            _count_row("class", "recall", "precision", "accuracy", "found", "false", "missed", "in neither"),
            *(_detection_row(summary.pooled.title(name), part) for name, part in summary.detection.items()),
        ],
        [f"Notice: {line}" for line in summary.notices],
    ]
    return "\n\n".join(text for block in blocks if (text := "\n".join(block)))


def evaluation_rows(evaluation: Evaluation, case: str = "") -> Iterator[dict[str, Any]]:
    """Give the scores of one prediction as rows for a table of ``COLUMNS``.

    Parameters
    ----------
    case : str
        Name of the case.

    Yields
    ------
    dict
        A row for each class, region and the foreground, and one, "mean", for the means over classes and the scores of
        the objects; scores that are not measured are missing or None.
    """
    for name, overlap in _parts(evaluation):
        called = evaluation.title(name).partition(" ")[2]
        surface = _surface_fields(evaluation.surfaces.get(name))
        yield {"case": case, "part": name, "name": called, **vars(overlap), **surface}
    yield {"case": case, "part": "mean", **_mean_fields(scores_of_case(evaluation))}


def summary_rows(summary: Summary) -> Iterator[dict[str, Any]]:
    """Give the scores of several cases as rows for a table of ``COLUMNS``.

    Yields
    ------
    dict
        The rows of each case, then those of all together (case "(pooled)") and the means over cases ("(mean)").
    """
    for name, evaluation in summary.cases.items():
        yield from evaluation_rows(evaluation, name)
    yield from evaluation_rows(summary.pooled, "(pooled)")
    for name, part in summary.means.items():
        yield {"case": "(mean)", "part": name, "name": summary.pooled.title(name).partition(" ")[2], **vars(part)}
    yield {"case": "(mean)", "part": "mean", "cases": len(summary.cases), **_mean_fields(summary.mean_scores)}


def _parts(evaluation: Evaluation) -> Iterator[tuple[str, Overlap]]:
    """List classes, regions and the foreground by name."""
    yield from ((str(value), scores) for value, scores in evaluation.classes.items())
    yield from evaluation.regions.items()
    yield "foreground", evaluation.foreground


def _surface_fields(scores: SurfaceScores | None) -> dict[str, Any]:
    names = ("surface_dice", "hd95", "mean_distance")
    return {name: getattr(scores, name) for name in names} if scores else {}


def _mean_fields(scores: dict[str, float | None]) -> dict[str, float | None]:
    """Rename the means to the columns of classes."""
    renamed = {"mean_dice": "dice", "mean_iou": "iou", "mean_surface_dice": "surface_dice", "mean_hd95": "hd95"}
    return {renamed.get(name, name): score for name, score in scores.items()}


def _part_rows(evaluation: Evaluation) -> list[str]:
    """Format a line for each class, region, the foreground and the mean."""
    lines = []
    for name, overlap in _parts(evaluation):
        title = evaluation.title(name)
        if title == "0":
            title += " (background)"
        surface = evaluation.surfaces.get(name)
        scores = (overlap.dice, overlap.iou, overlap.precision, overlap.recall)
        lengths = (surface.surface_dice, surface.hd95, surface.mean_distance) if surface else (None, None, None)
        lines.append(_row(title, *_score_cells(*scores, *lengths), str(overlap.predicted), str(overlap.true)))
    means = (evaluation.mean_dice, evaluation.mean_iou, None, None, *evaluation.mean_surfaces().values())
    return [*lines, _row("mean", *_score_cells(*means), "", "").rstrip()]


def _mean_row(name: str, part: MeanScores) -> str:
    scores = (part.dice, part.iou, part.precision, part.recall, part.surface_dice, part.hd95, part.mean_distance)
    return _row(name, *_score_cells(*scores), str(part.cases), str(part.cases_with_distance))


def _detection_row(name: str, part: CaseScores) -> str:
    scores = _cell(part.recall), _cell(part.precision), _cell(part.accuracy)
    counts = part.true_positives, part.false_positives, part.false_negatives, part.true_negatives
    return _count_row(name, *scores, *map(str, counts))


def _case_rows(summary: Summary) -> Iterator[str]:
    """Format a line for each case and one for their mean."""
    width = max(len("(mean)"), *(min(len(name), NAME) for name in summary.cases))
    yield f"{'case':<{width}} " + " ".join(f"{head:>9}" for head in CASE_SCORES)
    rows = {name: scores_of_case(evaluation) for name, evaluation in summary.cases.items()}
    for name, scores in [*rows.items(), ("(mean)", summary.mean_scores)]:
        cells = [(_length if key == "mean_hd95" else _cell)(scores[key]) for key in CASE_SCORES.values()]
        short = name if len(name) <= width else "..." + name[3 - width :]
        yield f"{short:<{width}} " + " ".join(f"{cell:>9}" for cell in cells)


def _shared_surface_sentence(summary: Summary) -> Iterator[str]:
    """Describe how surfaces were measured, if it is the same in all cases."""
    sentences = {_surface_sentence(evaluation) for evaluation in summary.cases.values() if evaluation.surfaces}
    if len(sentences) == 1:
        yield sentences.pop()
    elif sentences:
        yield "The cases differ in voxel size; the JSON output has the tolerance and unit of each."


def _surface_sentence(evaluation: Evaluation) -> str:
    size = " x ".join(f"{edge:g}" for edge in evaluation.spacing)
    return (
        f"Surfaces agree within {evaluation.tolerance:g} {evaluation.unit}; hd95 and mean distance in "
        f"{evaluation.unit}, voxel size {size}."
    )


def _sentences(evaluation: Evaluation) -> Iterator[str]:
    """Describe the images, the measurement, and further scores."""
    confusion, objects = evaluation.confusion, evaluation.objects
    yield (
        f"Truth values read as {evaluation.truth_is}; {evaluation.voxels} voxels compared, "
        f"{evaluation.ignored} ignored."
    )
    yield (
        f"Global accuracy {_cell(confusion.accuracy)}; over all values, background included: "
        f"mean accuracy {_cell(confusion.mean_accuracy)}, mean IoU {_cell(confusion.mean_iou)}."
    )
    if confusion.absent:
        yield f"Not in the truth and left out of the mean accuracy: {', '.join(map(str, confusion.absent))}."
    if evaluation.surfaces:
        yield _surface_sentence(evaluation)
    yield (
        f"Objects at IoU >= {objects.iou_threshold:g}: F1 {_cell(objects.f1)}, precision {_cell(objects.precision)}, "
        f"recall {_cell(objects.recall)}; {objects.true_positives} found, {objects.false_positives} false, "
        f"{objects.false_negatives} missed."
    )
    curve = ", ".join(f"{objects.average_precision[key]:.4f} at {key}" for key in ("0.50", "0.75", "0.90"))
    yield (
        f"AP over IoU 0.50 to 0.95: {_cell(objects.mean_average_precision)} ({curve}); "
        f"panoptic quality {_cell(objects.panoptic_quality)}."
    )


def _score_cells(*scores: float | None) -> list[str]:
    """Format scores, the last two as lengths."""
    return [*map(_cell, scores[:-2]), *map(_length, scores[-2:])]


def _cell(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _length(length: float | None) -> str:
    if length is None:
        return "-"
    return f"{length:.3f}" if length == 0 or 0.01 <= length < 10_000 else f"{length:.3g}"


def _row(name: str, *cells: str) -> str:
    return _first(name) + " ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS[1:], strict=True))


def _count_row(name: str, *cells: str) -> str:
    return _first(name) + " ".join(f"{cell:>10}" for cell in cells)


def _first(name: str) -> str:
    """Fill the first column; a longer name is cut at its end."""
    short = name if len(name) < WIDTHS[0] else f"{name[: WIDTHS[0] - 4]}..."
    return f"{short:<{WIDTHS[0]}}"
