"""What is odd about a pair of label images: numbers that are right but say little."""

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
    """Say where the values of two images do not seem to mean the same.

    Parameters
    ----------
    counted : ConfusionMatrix
    classes : dict of int to Overlap
        Empty where the truth was read as object ids.
    foreground : Overlap
    mean_dice : float or None
    settings : EvaluateSettings

    Returns
    -------
    tuple of str
        A sentence each.
    """
    if not counted.voxels:
        return ("No voxel was compared: all are ignored.",)
    predicted, true = (values.keys() - {settings.background} for values in (counted.predicted, counted.true))
    lines = []
    if classes and predicted and true and not predicted & true:
        lines.append(
            f"No value but the background is in both images: the prediction has {_named(predicted)}, the truth "
            f"{_named(true)}. If they mean the same, give them the same numbers; the foreground line holds anyway."
        )
    elif classes and settings.truth_is == "auto" and len(true) >= FEWEST_IDS and _far_below(mean_dice, foreground.dice):
        lines.append(
            f"The foreground agrees far better (Dice {foreground.dice:.2f}) than the classes ({mean_dice:.2f}). If the "
            "values are ids of single objects, read them so: --truth-is objects."
        )
    in_regions = {value for region in settings.regions for value in region.values}
    if settings.regions and (outside := (predicted | true) - in_regions):
        lines.append(f"No region has the value {_named(outside)}, which is counted as outside of all.")
    return tuple(lines)


def _far_below(score: float | None, other: float | None) -> bool:
    return score is not None and other is not None and other > 0.5 and score < other / 2


def _named(values: Iterable[int]) -> str:
    named = [str(value) for value in sorted(values)]
    return ", ".join(named[:MOST_NAMED]) + (", ..." if len(named) > MOST_NAMED else "")
