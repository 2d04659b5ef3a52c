"""The meaning of labels, and what the network learns from them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from napari_unetvnet.losses import BACKGROUND
from napari_unetvnet.settings.base import Settings
from napari_unetvnet.settings.class_names import ClassNames, with_values
from napari_unetvnet.settings.regions import Regions

__all__ = ["BLURS", "LabelSettings", "numbers"]

Rule = Literal["none", "inverse_frequency", "effective_number"]
BLURS = 3
"""Number of blurred copies of a line that the network learns, too."""
OBJECT_CLASSES = {
    "foreground": ("background", "object"),
    "separated": ("background", "object"),
    "boundaries": ("inside", "boundary"),
    "borders": ("background", "inside", "border"),
    "cores": ("background", "core", "rim"),
}
"""Names of the classes that are learnt from object ids, by label value in results."""
BY_VALUE = ("background", "ignore_value", "classes", "lines")
"""Settings that take label values, for which names of classes can be given."""


def _class_weights(value: Any) -> Any:
    """Accept a rule, or numbers as text or list."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise ValueError(f"Class weights {value!r} should be a rule or a number for each class.")
    split = [word for part in words for word in (re.split(r"[\s,;]+", part) if isinstance(part, str) else [part])]
    split = [word for word in split if word != ""]
    rules = ("none", "inverse_frequency", "effective_number")
    if len(split) == 1 and split[0] in rules:
        return split[0]
    try:
        return tuple(float(word) for word in split)
    except (TypeError, ValueError):
        listed = ", ".join(rules)
        raise ValueError(f"Class weights {value!r} should be one of {listed}, or a number for each class.") from None


def numbers(value: Any) -> Any:
    """Split a text into its words, for rows of numbers."""
    return [word for word in re.split(r"[\s,;]+", value) if word] if isinstance(value, str) else value


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Weights = Annotated[Rule | tuple[Weight, ...], BeforeValidator(_class_weights)]
Values = Annotated[tuple[int, ...], BeforeValidator(numbers)]


class LabelSettings(Settings):
    """The meaning of labels, and what the network learns from them."""

    unlabelled: Literal["background", "ignore"] = "background"
    """Meaning of label 0: the background class, or not painted and therefore ignored."""
    background: int | None = Field(None, ge=0)
    """With unlabelled=ignore: the painted value that means background; it becomes 0 in results. 0 for none."""
    label_checks: Literal["refuse", "warn"] = "refuse"
    """Labels that contradict their meaning, such as strokes with unlabelled=background: refuse to train, or warn."""
    ignore_value: int | None = Field(None, ge=1)
    """Label value of voxels to ignore, such as 255."""
    classes: Values = ()
    """Label values that are classes; any other value is then an error (default: all values that occur)."""
    class_names: ClassNames = ()
    """Names of the classes by label value, such as 1=cell 2="left line"; of overlapping masks by their number."""
    label_values: Literal["classes", "objects", "overlapping"] = "classes"
    """Meaning of label values: classes, ids of single objects of one class, or one mask per class (overlapping)."""
    objects_as: Literal["foreground", "separated", "boundaries", "borders", "cores"] = "foreground"
    """What is learnt from object ids: foreground, foreground with a gap between touching objects, the boundaries
    between them, inside and border as two classes, or core and rim, whose width grows with the object."""
    boundary_width: int = Field(1, ge=1, le=50)
    """With objects_as=boundaries: distance in voxels to another object that counts as boundary; 1 makes lines two
    voxels wide."""
    regions: Regions = ()
    """Nested classes as unions of label values: brats, brats2023 (in which enhancing tumour is 3), or
    WT=1+2+4 TC=1+4 ET=4."""
    lines: Values = ()
    """Label values of thin lines; each is learnt together with three blurred copies of it."""
    label_blur: float = Field(0, ge=0, le=20)
    """Blur of label borders for the loss: sigma of a Gaussian in voxels; 0 for none."""
    class_weights: Weights = "none"
    """Class weights of the loss: none, inverse_frequency, effective_number, or a number for each class."""

    @field_validator("background")
    @classmethod
    def _zero_is_none(cls, value: int | None) -> int | None:
        return value or None

    @model_validator(mode="before")
    @classmethod
    def _names_to_values(cls, value: Any) -> Any:
        return with_values(value, BY_VALUE) if isinstance(value, dict) and value.get("class_names") else value

    @property
    def class_words(self) -> tuple[str, ...]:
        """The names of classes that follow from the settings."""
        named = tuple(item.name for item in self.class_names) + tuple(region.name for region in self.regions)
        return named + (OBJECT_CLASSES[self.objects_as] if self.label_values == "objects" else ())

    def name_of(self, value: int, usual: str = "") -> str:
        """Give the name of the class of a label value.

        Parameters
        ----------
        usual : str
            Where it has no name; the value itself if empty.

        Returns
        -------
        str
        """
        return next((item.name for item in self.class_names if item.value == value), usual or str(value))

    @property
    def multilabel(self) -> bool:
        """Whether a voxel may have more than one label, so that each class has its own output."""
        return bool(self.regions or self.lines) or self.label_values == "overlapping"

    @property
    def unlabelled_is_open(self) -> bool:
        """Whether the meaning of label 0 is chosen from the data."""
        return "unlabelled" in self.left_open and "unlabelled" not in self.model_fields_set

    @property
    def _background_is_open(self) -> bool:
        return "background" in self.left_open and "background" not in self.model_fields_set

    @property
    def named_background(self) -> int | None:
        """The painted value of the class that is named background."""
        return next((item.value for item in self.class_names if item.name == BACKGROUND and item.value), None)

    def label_misfits(self) -> list[str]:
        """Report choices that exclude each other.

        Returns
        -------
        list of str
            One sentence each.
        """
        objects, ignoring = self.label_values == "objects", self.unlabelled == "ignore"
        multilabel_choices = [name for name in ("regions", "lines") if getattr(self, name)]
        multilabel_choices += ["label_values=overlapping"] if self.label_values == "overlapping" else []
        misfits = {
            "Object ids need unlabelled=background: voxels without an object are background.": objects and ignoring,
            "A background value is for unlabelled=ignore only; otherwise 0 is the background.": (
                self.background is not None and not ignoring and not self.unlabelled_is_open
            ),
            f"objects_as={self.objects_as} is for label_values=objects only.": (
                self.objects_as != "foreground" and not objects
            ),
            "A boundary width is for objects_as=boundaries only.": (
                self.boundary_width != 1 and self.objects_as != "boundaries"
            ),
            f"{' and '.join(multilabel_choices)} were given; choose one.": len(multilabel_choices) > 1,
            f"{' and '.join(multilabel_choices)} cannot be learnt from object ids; choose label_values=classes.": (
                bool(multilabel_choices) and objects
            ),
            "Regions name the label values themselves; leave out classes.": bool(self.regions and self.classes),
            "Regions name the classes themselves; leave out class_names.": bool(self.regions and self.class_names),
            f"Label value {self.background} cannot be both background and ignored.": (
                self.background is not None and self.background == self.ignore_value
            ),
            "A class is named background, but it is not the background: give it another name, or set background.": (
                self.named_background not in (None, self.background) and not self._background_is_open
            ),
            "Class weights should not all be 0.": (
                isinstance(self.class_weights, tuple) and not any(self.class_weights)
            ),
        }
        return [sentence for sentence, wrong in misfits.items() if wrong]
