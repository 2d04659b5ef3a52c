"""How a label image is cleaned and divided into objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from napari_unetvnet.conventions import Spacing
from napari_unetvnet.images.formats import endings_for, listed
from napari_unetvnet.images.outputs import replaced_input
from napari_unetvnet.settings.base import Settings
from napari_unetvnet.settings.labels import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CleanJob", "Connectivity", "Holes", "ObjectRule", "PostprocessSettings", "for_class"]

ObjectRule = Literal["components", "watershed", "border", "cores"]
Connectivity = Literal["faces", "edges", "corners"]
Holes = Literal["none", "planes", "volume"]
ALL = 0
"""Key for all classes that are not listed; the background is not a class."""


def _by_class(value: Any) -> Any:
    """Accept one value for all classes, and ``class=value``, as text, as a list of texts, or as pairs."""
    words = [value] if isinstance(value, str | int | float) else value
    if not isinstance(words, list | tuple):
        return value
    pairs: list[Any] = []
    for word in (item for part in words for item in (numbers(part) if isinstance(part, str) else [part])):
        name, sign, text = str(word).partition("=")
        pairs.append(word if isinstance(word, list | tuple) else (name, text) if sign else (ALL, word))
    return tuple(pairs)


Label = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Line = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[tuple[Label, Count], ...], BeforeValidator(_by_class)]
Sizes = Annotated[tuple[tuple[Label, Amount], ...], BeforeValidator(_by_class)]
Fillings = Annotated[tuple[tuple[Label, Holes], ...], BeforeValidator(_by_class)]


Value = TypeVar("Value")


def for_class(choices: Iterable[tuple[int, Value]], label: int, default: Value) -> Value:
    """Give the choice for a class.

    Parameters
    ----------
    choices : iterable of (class, choice)
        The choice for class 0 is for all classes that are not listed.
    label : int
        The class.
    default : choice
        If there is none.

    Returns
    -------
    choice
    """
    by_class = dict(choices)
    return by_class.get(label, by_class.get(ALL, default))


class PostprocessSettings(Settings):
    """How a label image is cleaned and divided into objects."""

    objects: Literal["auto", "none", "components", "watershed", "border", "cores"] = "auto"
    """What the result holds: classes (none), or ids of single objects: the connected components of each class,
    components split at their necks (watershed), the inside (class 1) grown into the border (class 2), or the cores
    (class 1) split at their necks and grown into the rim (class 2). Auto: ids in the way that the model was made for,
    if it was trained on ids of objects; else classes."""
    connectivity: Connectivity = "corners"
    """Voxels of one class are connected if they share a face, an edge or a corner."""
    split_depth: float | None = Field(None, gt=0, allow_inf_nan=False)
    """With objects=watershed or cores: how much narrower than the parts on both sides, in radius, a neck must be to be
    split, in the unit of the voxel size (default: the longest voxel edge)."""
    keep_largest: Counts = ()
    """Keep the N largest components or objects per class, such as 1, or 1=1 2=3 for classes 1 and 2."""
    min_size: Sizes = ()
    """Remove smaller components or objects, such as 50, or 1=50 2=10 for classes 1 and 2."""
    min_size_in: Literal["voxels", "physical"] = "voxels"
    """Unit of min_size: voxels, or physical (the unit of the voxel size, cubed)."""
    fill_holes: Fillings = ()
    """Fill background enclosed by one class: in planes, in the volume, or 1=planes 2=volume."""
    thin: Annotated[tuple[Line, ...], BeforeValidator(numbers)] = ()
    """Label values of lines, which are thinned to a width of one voxel in each plane and also written as paths, a CSV
    file for each value that napari opens as shapes."""
    nested: Literal["none", "brats", "brats2023"] = "none"
    """With brats: tumour regions (labels 1, 2, 4; with brats2023 1, 2, 3) are first closed, freed of small components
    and nested."""

    @model_validator(mode="after")
    def _depth_has_a_use(self) -> Self:
        if self.split_depth is not None and self.objects not in ("watershed", "cores"):
            raise ValueError("split_depth is for objects=watershed and objects=cores only.")
        return self

    @model_validator(mode="after")
    def _lines_stay_classes(self) -> Self:
        if self.thin and self.object_rule:
            raise ValueError(f"thin makes lines of classes, objects={self.objects} makes ids of objects; choose one.")
        return self

    @property
    def object_rule(self) -> ObjectRule | None:
        """How classes are divided into objects; None if they are not, or if that is the model's to say."""
        match self.objects:
            case "auto" | "none":
                return None
            case rule:
                return rule

    @property
    def postprocessed(self) -> bool:
        """Whether the settings change anything, whatever the model."""
        cleans = self.keep_largest or self.min_size or self.fill_holes or self.thin
        return bool(self.object_rule or self.nested != "none" or cleans)


class CleanJob(PostprocessSettings):
    """Clean a label image, and divide it into objects."""

    labels: str = Field(min_length=1)
    """Label file with one value per class."""
    output: Path = Field(
        description=f"Where to write the result; the ending decides the format ({listed(endings_for('labels'))})."
    )
    overwrite: bool = False
    """Replace also a file or folder that this program did not write, or that was changed since."""
    spacing: Spacing | None = None
    """Voxel size z y x for a file that has none."""
    unit: str = "pixel"
    """Unit of that voxel size, such as micrometer or mm."""

    @model_validator(mode="after")
    def _has_work_and_a_place(self) -> Self:
        if not self.postprocessed:
            raise ValueError(
                "There is nothing to do: give objects, keep_largest, min_size, fill_holes, thin or nested."
            )
        if problem := replaced_input([self.output], [self.labels]):
            raise ValueError(problem)
        return self
