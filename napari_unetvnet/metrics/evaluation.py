"""All scores of one prediction."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.metrics.background import background_as_zero
from napari_unetvnet.metrics.counts import mean
from napari_unetvnet.metrics.notices import odd_values
from napari_unetvnet.metrics.objects import ObjectScores, object_scores, pooled_objects
from napari_unetvnet.metrics.options import EvaluateSettings
from napari_unetvnet.metrics.overlap import ConfusionMatrix, Overlap, confusion_matrix
from napari_unetvnet.metrics.surface import SurfaceScores, surface_scores, usual_tolerance
from napari_unetvnet.settings import checked
from napari_unetvnet.settings.regions import outside_preset

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
    """The meaning of the values of the truth."""
    background: int
    """The value of the truth that is background; the scores name it 0, as results of segment do."""
    ignore: int | None
    """The value of the truth whose voxels were left out."""
    voxels: int
    """Number of compared voxels."""
    ignored: int
    """Number of ignored voxels."""
    mean_dice: float | None
    """Over the classes other than background that occur in either image; for object ids, of the foreground."""
    mean_iou: float | None
    """Likewise; both are None if there is only background."""
    foreground: Overlap
    """Of all voxels that are not background, of any class."""
    classes: dict[int, Overlap]
    """By value, background included; empty for object ids."""
    objects: ObjectScores
    """Detection of connected components, see `object_scores`."""
    confusion: ConfusionMatrix
    """Of all values; for object ids, of the background (0) and all else (1)."""
    regions: dict[str, Overlap]
    """By name, the scores of unions of classes."""
    surfaces: dict[str, SurfaceScores]
    """By class value as text, background aside, and by region; for object ids, of the "foreground" as a whole."""
    spacing: tuple[float, ...]
    """Voxel size (z, y, x)."""
    unit: str
    """Of the spacing and of all distances."""
    tolerance: float | None
    """Distance up to which surfaces agree; None without surfaces."""
    notices: tuple[str, ...] = ()
    """One sentence each."""
    class_names: dict[int, str] = field(default_factory=dict)
    """By value; some or all classes may have none."""

    def title(self, part: str) -> str:
        """Name a class by its value and its name; regions and the foreground have their own."""
        name = self.class_names.get(int(part)) if part.isdecimal() and part not in self.regions else None
        return f"{part} {name}" if name else part

    def mean_surfaces(self) -> dict[str, float | None]:
        """Average the surface scores over the classes other than background; for object ids, those of the foreground.

        Returns
        -------
        dict of str to float or None
            mean_surface_dice, mean_hd95 and mean_distance; without classes that lack the score; None if all lack it.
        """
        parts = [scores for name, scores in self.surfaces.items() if name not in self.regions]
        return {
            "mean_surface_dice": mean(part.surface_dice for part in parts),
            "mean_hd95": mean(part.hd95 for part in parts),
            "mean_distance": mean(part.mean_distance for part in parts),
        }

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold: finite numbers, None, lists, and text as keys, also for class values."""
        values = asdict(self) | {"confusion": self.confusion.as_dict()}
        for name in ("classes", "class_names"):
            values[name] = {str(value): item for value, item in values[name].items()}
        return values | self.mean_surfaces() | {"spacing": list(self.spacing), "notices": list(self.notices)}


def evaluate(prediction: Any, truth: Any, settings: EvaluateSettings | None = None, **changes: Any) -> Evaluation:
    """Compute all scores of a prediction.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape, (X,), (Y, X) or (Z, Y, X)
        Label images.
    settings : EvaluateSettings, optional
        Settings for ignored voxels, regions, surfaces and so on.
    **changes
        Fields of the settings, with priority: ``truth_is``, ``background``, ``ignore``, ``regions``, ``spacing`` ...
        With truth_is="auto" the truth has object ids if it has more than 16 values and the prediction at most 2, not
        counting background, and no regions are given; else classes.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataProblem
        If the shapes differ, the values are not integers, or there are more than three axes.
    SettingsProblem
        If a setting is unknown or out of range, regions are given for object ids, or a value is both background and
        ignored or of a region.

    See Also
    --------
    overlap : The scores of the classes.
    object_scores : What an object is, and a match.
    surface_scores : What a surface is, and its distances.
    """
    chosen = checked(EvaluateSettings, {**(dict(settings) if settings else {}), **changes})
    prediction, truth, settings, notices = background_as_zero(prediction, truth, chosen)
    if settings.truth_is == "objects" and settings.regions:
        raise SettingsProblem("Regions are unions of classes, but the truth has object ids; leave out one of them.")
    objects = object_scores(
        prediction, truth, settings.iou_threshold, settings.ignore, settings.background
    )  # also checks the images
    counted = confusion_matrix(prediction, truth, settings.ignore)
    read_as = _reading(counted, settings) if settings.truth_is == "auto" else settings.truth_is
    composed = _composed(counted, read_as, objects, settings)
    return replace(
        composed,
        background=chosen.background,
        ignore=chosen.ignore,
        ignored=prod(truth.shape) - counted.voxels,
        notices=(*notices, *odd_values(counted, composed.classes, composed.foreground, composed.mean_dice, settings)),
        **_surfaces(prediction, truth, composed, settings),
    )


def pooled(evaluations: Sequence[Evaluation], settings: EvaluateSettings) -> Evaluation:
    """Score several cases as if they were one image.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        At least one, all with these settings and the same meaning of truth values.

    Returns
    -------
    Evaluation
        Confusion matrices and objects are summed; surfaces cannot be summed and are left out.
    """
    pairs: Pairs = Counter()
    for evaluation in evaluations:
        pairs.update(evaluation.confusion.pairs)
    objects = pooled_objects(evaluation.objects for evaluation in evaluations)
    first = evaluations[0]
    zero = settings.model_copy(update={"background": 0})  # the pairs of each case have it as 0 already
    composed = _composed(ConfusionMatrix(pairs), first.truth_is, objects, zero)
    ignored = sum(evaluation.ignored for evaluation in evaluations)
    named = {value: name for evaluation in reversed(evaluations) for value, name in evaluation.class_names.items()}
    composed = replace(composed, background=settings.background, ignored=ignored, class_names=named)
    return replace(composed, spacing=first.spacing, unit=first.unit)


def _reading(counted: ConfusionMatrix, settings: EvaluateSettings) -> Literal["classes", "objects"]:
    """Guess the meaning of the values of the truth."""
    background = {settings.background}
    ids = len(counted.true.keys() - background) > MOST_CLASSES
    few = len(counted.predicted.keys() - background) <= MOST_PREDICTED
    return "objects" if ids and few and not settings.regions else "classes"


def _composed(
    counted: ConfusionMatrix, read_as: Literal["classes", "objects"], objects: ObjectScores, settings: EvaluateSettings
) -> Evaluation:
    """Compute all scores that follow from the confusion matrix."""
    if problem := outside_preset(settings.regions, set(counted.values) - {settings.background}):
        raise DataProblem(problem)
    is_object = counted.merged(lambda value: value != settings.background)
    foreground = is_object.overlap(1)
    classes = {value: counted.overlap(value) for value in counted.values} if read_as == "classes" else {}
    parts = [scores for value, scores in classes.items() if value != settings.background] if classes else [foreground]
    regions = {region.name: counted.merged(set(region.values).__contains__) for region in settings.regions}
    return Evaluation(
        truth_is=read_as,
        background=settings.background,
        ignore=settings.ignore,
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
        spacing=settings.spacing or (1.0, 1.0, 1.0),
        unit=settings.unit or "pixel",
        tolerance=None,
        class_names={item.value: item.name for item in settings.class_names},
    )


def _surfaces(prediction: Any, truth: Any, composed: Evaluation, settings: EvaluateSettings) -> dict[str, Any]:
    """Compute the surface scores of classes and regions, or of the foreground, as fields of the evaluation."""
    if settings.no_surfaces:
        return {}
    spacing = composed.spacing
    tolerance = usual_tolerance(spacing, truth.shape) if settings.tolerance is None else settings.tolerance
    values = [value for value in composed.classes if value != settings.background]
    by_value = surface_scores(prediction, truth, values, spacing, tolerance, settings.ignore) if values else {}
    surfaces = {str(value): scores for value, scores in by_value.items()}
    masks: dict[str, Callable[[Any], NDArray[np.bool_]]] = {
        region.name: partial(np.isin, test_elements=np.array(region.values)) for region in settings.regions
    }
    if composed.truth_is == "objects":
        masks["foreground"] = partial(np.not_equal, settings.background)
    for name, mask in masks.items():
        images = mask(np.asarray(prediction)).astype(np.uint8), mask(np.asarray(truth)).astype(np.uint8)
        if settings.ignore is not None:
            images[1][np.asarray(truth) == settings.ignore] = HIDDEN
        surfaces[name] = surface_scores(*images, [1], spacing, tolerance, HIDDEN)[1]
    return {"surfaces": surfaces, "tolerance": tolerance}
