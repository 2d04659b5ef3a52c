"""All scores of one prediction."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.metrics.counts import mean
from napari_unetvnet.metrics.notices import odd_values
from napari_unetvnet.metrics.objects import ObjectScores, object_scores, pooled_objects
from napari_unetvnet.metrics.options import EvaluateSettings
from napari_unetvnet.metrics.overlap import ConfusionMatrix, Overlap, confusion_matrix
from napari_unetvnet.metrics.surface import SurfaceScores, surface_scores, usual_tolerance
from napari_unetvnet.settings import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.metrics.counts import Pairs

__all__ = ["Evaluation", "evaluate", "pooled"]

MOST_CLASSES = 16
MOST_PREDICTED = 2
HIDDEN = 2  # beside 0 and 1 of a mask


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
    confusion: ConfusionMatrix
    """Of all values; for object ids, of the background (0) and all else (1)."""
    regions: dict[str, Overlap]
    """By name, the unions of classes that were asked for."""
    surfaces: dict[str, SurfaceScores]
    """By class value as text, background aside, and by region; for object ids, of the "foreground" as a whole."""
    spacing: tuple[float, ...]
    """Voxel size (z, y, x)."""
    unit: str
    """Of the spacing and of all distances."""
    tolerance: float | None
    """Distance up to which surfaces agree; None where no surfaces were compared."""
    notices: tuple[str, ...] = ()
    """What is odd about the images, a sentence each."""

    def mean_surfaces(self) -> dict[str, float | None]:
        """Average the surface scores over the classes other than background; for object ids, those of the foreground.

        Returns
        -------
        dict of str to float or None
            mean_surface_dice, mean_hd95 and mean_distance; a class without the score is left out, None where all are.
        """
        parts = [scores for name, scores in self.surfaces.items() if name not in self.regions]
        return {
            "mean_surface_dice": mean(part.surface_dice for part in parts),
            "mean_hd95": mean(part.hd95 for part in parts),
            "mean_distance": mean(part.mean_distance for part in parts),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON holds: finite numbers, None, lists, and text as keys, class values too."""
        plain = asdict(self) | {"confusion": self.confusion.as_dict()}
        plain["classes"] = {str(value): scores for value, scores in plain["classes"].items()}
        return plain | self.mean_surfaces() | {"spacing": list(self.spacing), "notices": list(self.notices)}


def evaluate(prediction: Any, truth: Any, settings: EvaluateSettings | None = None, **changes: Any) -> Evaluation:
    """Compare a prediction with the truth in all ways.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape, (X,), (Y, X) or (Z, Y, X)
        Label images.
    settings : EvaluateSettings, optional
        What to do with ignored voxels, regions, surfaces and so on.
    **changes
        Fields of the settings, which go before: ``truth_is``, ``background``, ``ignore``, ``regions``, ``spacing`` ...
        With truth_is="auto" the truth is read as ids of single objects where it has more than 16 values and the
        prediction at most 2, background aside, and no regions are asked for; else as classes.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataProblem
        If the shapes differ, the values are no integers, or there are more than three axes.
    SettingsProblem
        If a setting is unknown or out of range, or regions are asked for of object ids.

    See Also
    --------
    overlap : The scores of the classes.
    object_scores : What an object is, and a match.
    surface_scores : What a surface is, and its distances.
    """
    chosen = checked(EvaluateSettings, {**(dict(settings) if settings else {}), **changes})
    if chosen.truth_is == "objects" and chosen.regions:
        raise SettingsProblem("Regions are unions of classes, but the truth holds object ids; leave one of both out.")
    objects = object_scores(prediction, truth, chosen.iou_threshold, chosen.ignore, chosen.background)  # checks, too
    counted = confusion_matrix(prediction, truth, chosen.ignore)
    read_as = _reading(counted, chosen) if chosen.truth_is == "auto" else chosen.truth_is
    composed = _composed(counted, read_as, objects, chosen)
    return replace(
        composed,
        ignored=prod(truth.shape) - counted.voxels,
        notices=odd_values(counted, composed.classes, composed.foreground, composed.mean_dice, chosen),
        **_surfaces(prediction, truth, composed, chosen),
    )


def pooled(evaluations: Sequence[Evaluation], settings: EvaluateSettings) -> Evaluation:
    """Score several cases as if they were one image.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        At least one, all made with these settings and with one reading.
    settings : EvaluateSettings

    Returns
    -------
    Evaluation
        Confusion matrices and objects are summed; surfaces cannot be and are left out.
    """
    pairs: Pairs = Counter()
    for evaluation in evaluations:
        pairs.update(evaluation.confusion.pairs)
    objects = pooled_objects(evaluation.objects for evaluation in evaluations)
    first = evaluations[0]
    chosen = settings
    if first.truth_is == "objects":  # whose pairs are 0 and 1 already
        chosen = settings.model_copy(update={"background": 0})
    composed = _composed(ConfusionMatrix(pairs), first.truth_is, objects, chosen)
    ignored = sum(evaluation.ignored for evaluation in evaluations)
    return replace(composed, background=settings.background, ignored=ignored, spacing=first.spacing, unit=first.unit)


def _reading(counted: ConfusionMatrix, chosen: EvaluateSettings) -> Literal["classes", "objects"]:
    """Guess what the values of the truth mean."""
    background = {chosen.background}
    ids = len(counted.true.keys() - background) > MOST_CLASSES
    few = len(counted.predicted.keys() - background) <= MOST_PREDICTED
    return "objects" if ids and few and not chosen.regions else "classes"


def _composed(
    counted: ConfusionMatrix, read_as: Literal["classes", "objects"], objects: ObjectScores, chosen: EvaluateSettings
) -> Evaluation:
    """Score the voxels by what was counted."""
    is_object = counted.merged(lambda value: value != chosen.background)
    foreground = is_object.overlap(1)
    classes = {value: counted.overlap(value) for value in counted.values} if read_as == "classes" else {}
    parts = [scores for value, scores in classes.items() if value != chosen.background] if classes else [foreground]
    regions = {region.name: counted.merged(set(region.values).__contains__) for region in chosen.regions}
    return Evaluation(
        truth_is=read_as,
        background=chosen.background,
        ignore=chosen.ignore,
        voxels=counted.voxels,
        ignored=0,
        mean_dice=mean(part.dice for part in parts),
        mean_iou=mean(part.iou for part in parts),
        foreground=foreground,
        classes=classes,
        objects=objects,
        confusion=counted if read_as == "classes" else is_object,
        regions={name: merged.overlap(1, empty=1.0) for name, merged in regions.items()},
        surfaces={},
        spacing=chosen.spacing or (1.0, 1.0, 1.0),
        unit=chosen.unit or "pixel",
        tolerance=None,
    )


def _surfaces(prediction: Any, truth: Any, composed: Evaluation, chosen: EvaluateSettings) -> dict[str, Any]:
    """Compare the surfaces of the classes and regions, or of the foreground; what the evaluation then says of them."""
    if chosen.no_surfaces:
        return {}
    spacing = composed.spacing
    tolerance = usual_tolerance(spacing, truth.shape) if chosen.tolerance is None else chosen.tolerance
    values = [value for value in composed.classes if value != chosen.background]
    found = surface_scores(prediction, truth, values, spacing, tolerance, chosen.ignore) if values else {}
    surfaces = {str(value): scores for value, scores in found.items()}
    masks: dict[str, Callable[[Any], NDArray[np.bool_]]] = {
        region.name: partial(np.isin, test_elements=np.array(region.values)) for region in chosen.regions
    }
    if composed.truth_is == "objects":
        masks["foreground"] = partial(np.not_equal, chosen.background)
    for name, mask in masks.items():
        images = mask(np.asarray(prediction)).astype(np.uint8), mask(np.asarray(truth)).astype(np.uint8)
        if chosen.ignore is not None:
            images[1][np.asarray(truth) == chosen.ignore] = HIDDEN
        surfaces[name] = surface_scores(*images, [1], spacing, tolerance, HIDDEN)[1]
    return {"surfaces": surfaces, "tolerance": tolerance}
