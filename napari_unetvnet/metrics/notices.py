"""Notices about a pair of label images whose scores are correct but may mislead."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_unetvnet.metrics.options import EvaluateSettings
    from napari_unetvnet.metrics.overlap import ConfusionMatrix, Overlap

__all__ = ["odd_values"]

FEWEST_IDS = 3
MOST_NAMED = 8


def odd_values(
    counted: ConfusionMatrix,
    classes: dict[int, Overlap],
    foreground: Overlap,
    mean_dice: float | None,
    settings: EvaluateSettings,
) -> tuple[str, ...]:
    """Report where the values of two images seem to have different meanings.

    Parameters
    ----------
    classes : dict of int to Overlap
        Empty if the truth has object ids.

    Returns
    -------
    tuple of str
        One sentence each.
    """
    if not counted.voxels:
        return ("No voxel was compared: all are ignored.",)
    predicted, true = (values.keys() - {settings.background} for values in (counted.predicted, counted.true))
    lines = []
    if classes and predicted and true and not predicted & true:
        lines.append(
            f"Only the background value is in both images: the prediction has {_named(predicted)}, the truth "
            f"{_named(true)}. If they mean the same, give them the same values; the foreground scores are valid anyway."
        )
    elif classes and settings.truth_is == "auto" and len(true) >= FEWEST_IDS and _far_below(mean_dice, foreground.dice):
        lines.append(
            f"The foreground agrees far better (Dice {foreground.dice:.2f}) than the classes ({mean_dice:.2f}). If the "
            "values are object ids, give --truth-is objects."
        )
    in_regions = {value for region in settings.regions for value in region.values}
    if settings.regions and (outside := (predicted | true) - in_regions):
        lines.append(f"No region has the value {_named(outside)}, which counts as outside all regions.")
    return tuple(lines)


def _far_below(score: float | None, reference: float | None) -> bool:
    return score is not None and reference is not None and reference > 0.5 and score < reference / 2


def _named(values: Iterable[int]) -> str:
    names = [str(value) for value in sorted(values)]
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
