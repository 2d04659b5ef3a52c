"""Everything a person can choose, each declared once: type, range, default and a sentence.

The form, the command line, the job file and the reference page are derived from these models. They are frozen, refuse
unknown names, and are checked together: a network that has no 3D form, a loss that does not fit the head, two budgets
at once are refused here, before anything runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import LOSSES, LossTerm, head_misfits, parse_loss
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.registry import near_names
from napari_unetvnet.volume import Normalise

__all__ = [
    "IGNORE",
    "SegmentJob",
    "SegmentSettings",
    "Settings",
    "TrainJob",
    "TrainSettings",
    "checked",
]

IGNORE = 255
"""The class index of voxels that no loss, metric or sampler may look at."""

View = Literal["2d", "2.5d", "3d"]
Head = Literal["binary", "multiclass", "multilabel"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Scalar = bool | int | float | str | tuple[float, ...]
Length = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(gt=1e-12, lt=1e12)]
Triple = tuple[Length, Length, Length]
Spacing = tuple[Size, Size, Size]


def _loss_terms(value: Any) -> Any:
    """Accept a loss as text or as a list of terms."""
    try:
        return parse_loss(value) if isinstance(value, str) else value
    except SettingsProblem as problem:
        raise ValueError(str(problem)) from None


class Settings(BaseModel):
    """Frozen choices that refuse unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ComputeSettings(Settings):
    """Where and how exactly to compute."""

    device: Device = "auto"
    """Where to compute; auto takes a CUDA GPU if there is one."""
    precision: Precision = "auto"
    """Number format of the network; auto is bf16 on GPUs that have it, else fp32."""


class TrainSettings(ComputeSettings):
    """How to train."""

    network: str = "unet_padding"
    """Architecture, by its name in the network table."""
    option: dict[str, Scalar] = {}
    """An option of the network, such as width=16."""
    loss: Annotated[tuple[LossTerm, ...], BeforeValidator(_loss_terms)] = (LossTerm(name="dice_ce"),)
    """Loss, or a weighted sum such as "dice + 10*bce"."""
    head: Literal["auto", "binary", "multiclass"] = "auto"
    """Output of the network; auto is one sigmoid channel for two classes and a softmax for more."""
    view: View = "2d"
    """What the network sees: single planes, planes with neighbours as channels, or blocks."""
    context: int = Field(1, ge=1, le=16)
    """Neighbour planes on each side in view 2.5d."""
    patch: Triple | None = Field(None)
    """Training patch z y x in voxels; by default 1 128 128 in 2d and 2.5d, 32 64 64 in 3d."""
    batch: int = Field(4, ge=1, le=1024)
    """Patches a step."""
    minutes: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Time budget; give this, epochs or steps (default: 5 minutes)."""
    epochs: int | None = Field(None, ge=1)
    """Budget in epochs."""
    steps: int | None = Field(None, ge=1)
    """Budget in optimiser steps."""
    epoch_steps: int = Field(25, ge=1)
    """Steps between two looks at the hold-out."""
    learning_rate: float = Field(2e-3, gt=0, le=10)
    """Peak learning rate of AdamW."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Same seed, data and settings give the same model on the same machine."""
    unlabelled: Literal["background", "ignore"] = "background"
    """What label 0 means: the background class, or not painted and therefore ignored."""
    background: int | None = Field(None, ge=0)
    """With unlabelled=ignore: the painted value that means background and is written as 0."""
    classes: tuple[int, ...] = ()
    """Label values that are classes; any other value is then an error (default: all values found)."""
    label_values: Literal["classes", "objects"] = "classes"
    """What label values mean: classes, or the ids of single objects of one class."""
    hold_out: float = Field(0.2, ge=0, le=0.5)
    """Share of the labels that scores the model and is never trained on; 0 for none."""
    augment: Literal["light", "none"] = "light"
    """Random change of patches: in-plane flips and brightness, or nothing."""
    normalise: Normalise = "zscore"
    """Intensities of each image and channel: zscore, percentile (1 to 99.8) or none."""
    start_from: Path | None = None
    """Model file whose weights the training starts from."""

    @field_validator("option")
    @classmethod
    def _network_has_options(cls, value: dict[str, Scalar], info: ValidationInfo) -> dict[str, Scalar]:
        name = info.data.get("network", "")
        if name not in NETWORKS:
            return value  # said by the network's own validator
        try:
            return NETWORKS.check_options(name, value)
        except SettingsProblem as problem:
            raise ValueError(str(problem)) from None

    @field_validator("network")
    @classmethod
    def _network_exists(cls, value: str) -> str:
        try:
            NETWORKS.check(value)
        except SettingsProblem as problem:
            raise ValueError(str(problem)) from None
        return value

    @field_validator("loss")
    @classmethod
    def _losses_exist(cls, value: tuple[LossTerm, ...]) -> tuple[LossTerm, ...]:
        if not value:
            raise ValueError("The loss has no term; name one, such as dice_ce.")
        lines: list[str] = []
        for term in value:
            try:
                LOSSES.check_options(term.name, term.option)
            except SettingsProblem as problem:
                lines += problem.lines
        if lines:
            raise ValueError("\n".join(lines))
        return value

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        lines = [*self._budget_misfits(), *self._patch_misfits(), *self._label_misfits()]
        if self.dims not in NETWORKS.describe(self.network).facts.get("supported_dims", (2, 3)):
            lines.append(f"Network {self.network} has no {self.dims}D form; choose another view than {self.view}.")
        if self.head != "auto":
            lines += head_misfits(self.loss, self.head)
        if lines:
            raise ValueError("\n".join(lines))
        return self

    def _budget_misfits(self) -> list[str]:
        given = [name for name in ("minutes", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) < 2:
            return []
        return [f"Budgets {' and '.join(given)} were given; give one of minutes, epochs, steps."]

    def _patch_misfits(self) -> list[str]:
        if self.patch is not None and self.view != "3d" and self.patch[0] != 1:
            return [f"Patch {self.patch} must have z = 1 in view {self.view}; planes are the batch there."]
        return []

    def _label_misfits(self) -> list[str]:
        if self.label_values == "objects" and self.unlabelled == "ignore":
            return ["Object ids need unlabelled=background: what is no object is background there."]
        if self.background is not None and self.unlabelled == "background":
            return ["A background value is for unlabelled=ignore only; otherwise 0 is the background."]
        return []

    @property
    def dims(self) -> int:
        """Spatial dimensions of the network that the view asks for."""
        return 3 if self.view == "3d" else 2

    @property
    def planned_minutes(self) -> float | None:
        """The time budget, None if steps or epochs were given."""
        if self.epochs or self.steps:
            return None
        return self.minutes or 5.0

    @property
    def planned_steps(self) -> int | None:
        """The budget in steps, None for a time budget."""
        return self.epochs * self.epoch_steps if self.epochs else self.steps

    def head_for(self, classes: int) -> Head:
        """Decide the head mode once the classes are known.

        Parameters
        ----------
        classes : int
            How many there are, background included.

        Returns
        -------
        {"binary", "multiclass"}

        Raises
        ------
        SettingsProblem
            If the chosen head cannot hold the classes, or the loss fits no head that can.
        """
        if self.head == "binary" and classes != 2:
            raise SettingsProblem(f"A binary head holds 2 classes, the labels have {classes}; choose multiclass.")
        allowed: list[Head] = ["binary", "multiclass"] if classes == 2 else ["multiclass"]
        allowed = allowed if self.head == "auto" else [self.head]
        for head in allowed:
            if not head_misfits(self.loss, head):
                return head
        raise SettingsProblem(f"There are {classes} classes.", *head_misfits(self.loss, allowed[-1]))


class SegmentSettings(ComputeSettings):
    """How to segment."""

    view: View | None = None
    """The view of the model (default); another one is refused."""
    tile: Triple | None = None
    """Tile z y x in voxels (default: the training patch in 3d, whole planes up to 768 in 2d and 2.5d)."""
    overlap: float = Field(0.25, ge=0, le=0.9)
    """Share of a tile that the next tile covers again."""
    batch: int = Field(1, ge=1, le=1024)
    """Tiles at once."""


class TrainJob(TrainSettings):
    """Train a model on images with labels."""

    image: tuple[str, ...] = ()
    """Image files or a folder; the channel files of one image are separated by |."""
    label: tuple[str, ...] = ()
    """Label files or a folder, paired with the images by name or in order."""
    pairs: Path | None = None
    """CSV file with the columns image, label and, if wanted, split (train or val)."""
    spacing: Spacing | None = None
    """Voxel size z y x for images whose files carry none."""
    unit: str = "pixel"
    """Unit of that voxel size, such as micrometer or mm."""
    output: Path | None = None
    """Where to write the model (.safetensors)."""

    @field_validator("image", "label", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _inputs_given(self) -> Self:
        if self.pairs is None and not (self.image and self.label):
            raise ValueError("Give --image and --label, or --pairs.")
        if self.pairs is not None and (self.image or self.label):
            raise ValueError("Give either --pairs or --image and --label, not both.")
        read = [part for source in (*self.image, *self.label, str(self.pairs)) for part in source.split("|")]
        if self.output is not None and str(self.output) in read:
            raise ValueError(f"The model would replace {self.output}, which is read; give another output.")
        return self


class SegmentJob(SegmentSettings):
    """Segment an image with a model."""

    image: str = Field(min_length=1)
    """Image file; the channel files of one image are separated by |."""
    model: str = Field(min_length=1)
    """Name of a model (see the models command) or a .safetensors file."""
    spacing: Spacing | None = None
    """Voxel size z y x for an image whose file carries none."""
    unit: str = "pixel"
    """Unit of that voxel size, such as micrometer or mm."""
    output: Path | None = None
    """Where to write the labels; the ending decides the format (.nii.gz, .tif, .png, .npy)."""
    probabilities: Path | None = None
    """Where to write a probability for each class, too."""

    @model_validator(mode="after")
    def _outputs_are_apart(self) -> Self:
        if self.output is not None and self.output == self.probabilities:
            raise ValueError(f"Labels and probabilities would both be written to {self.output}; give two files.")
        for path in (self.output, self.probabilities):
            if path is not None and str(path) in (*self.image.split("|"), self.model):
                raise ValueError(f"The result would replace {path}, which is read; give another output.")
        return self


Model = TypeVar("Model", bound=Settings)


def checked(kind: type[Model], values: dict[str, Any]) -> Model:
    """Make settings from plain values, with a sentence for each mistake.

    Parameters
    ----------
    kind : type of Settings
    values : dict

    Returns
    -------
    Settings
        Of the given kind.

    Raises
    ------
    SettingsProblem
        One line for each value that is unknown, of the wrong type, out of range, or does not fit another.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        lines = [line for item in error.errors() for line in _sentences(kind, item)]
        raise SettingsProblem(*dict.fromkeys(lines)) from None


def _sentences(kind: type[Settings], item: Any) -> list[str]:
    """Turn one pydantic error into sentences that say what was given, what was expected, what to do."""
    if item["type"] == "value_error":
        return str(item["ctx"]["error"]).split("\n")
    place = [str(part) for part in item["loc"]]
    name = ".".join(place)
    if place[0] == "option":
        return [f"Setting {'.'.join(place[:2])}={item['input']}: an option is a number, a text, or true or false."]
    if item["type"] == "extra_forbidden":
        known = LossTerm.model_fields if place[0] == "loss" else kind.model_fields
        return [f"There is no setting {name!r}{near_names(place[-1], known)}"]
    if item["type"] == "missing" and len(place) == 1:
        return [f"Setting {name} is missing: {kind.model_fields[name].description}"]
    if item["type"] == "missing":
        return [f"Setting {place[0]}={item['input']}: {name} is missing."]
    return [f"Setting {name}={item['input']}: {item['msg'].lower()}."]
