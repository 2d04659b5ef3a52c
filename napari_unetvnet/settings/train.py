"""How to train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from napari_unetvnet.conventions import Axes, Head, OptionValue, Spacing, Triple, View
from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.images.formats import format_of
from napari_unetvnet.images.outputs import replaced_input
from napari_unetvnet.losses import LOSSES, LossTerm, class_misfits, head_misfits, loss_needs, parse_loss
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings.base import ComputeSettings
from napari_unetvnet.settings.channels import ChannelNames
from napari_unetvnet.settings.labels import LabelSettings, numbers
from napari_unetvnet.settings.normalisation import Normalisation
from napari_unetvnet.settings.time_points import TimePoints

__all__ = ["Sampling", "TrainJob", "TrainSettings"]
LearningRateSchedule = Literal["linear", "poly", "one_cycle"]
Sampling = Literal["balanced", "random", "one_positive", "all_positive"]
Voxel = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Mirror = Annotated[tuple[Literal["z", "y", "x"], ...], BeforeValidator(numbers)]
LevelWeights = Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], BeforeValidator(numbers)]


def _is_auto(value: Any) -> bool:
    return bool(value in ("auto", ["auto"]))


def _may_hold_labels(source: str) -> bool:
    """Whether a file or a folder may be a set of images with their labels."""
    kind = format_of(source)
    return Path(source).is_dir() or (kind is not None and kind.datasets)


def _loss_terms(value: Any) -> Any:
    """Accept a loss as text or as a list of terms."""
    try:
        return parse_loss(value) if isinstance(value, str) else value
    except SettingsProblem as problem:
        raise ValueError(str(problem)) from None


class TrainSettings(ComputeSettings, LabelSettings, Normalisation):
    """How to train."""

    network: str = "unet_padding"
    """Architecture, by its name in the network table."""
    option: dict[str, OptionValue] = {}  # noqa: RUF012 (pydantic copies it)
    """An option of the network, such as width=16."""
    loss: Annotated[tuple[LossTerm, ...], BeforeValidator(_loss_terms)] = (LossTerm(name="dice_ce"),)
    """Loss, or a weighted sum such as "dice + 10*bce"; by class: "cell: dice + 10*bce; rest: dice"."""
    head: Literal["auto", "binary", "multiclass", "multilabel"] = "auto"
    """Output of the network; auto is a sigmoid for two classes, a softmax for more, a sigmoid per class if they
    overlap."""
    deep_supervision_weights: LevelWeights = ()
    """Weights of the loss on the full-size output and on each coarser level of the network (default: 1 0.5 0.25
    ...)."""
    roi_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the loss on the network's region-of-interest head, if it has one."""
    view: View = "2d"
    """What the network sees: single planes, planes with neighbours as channels, or blocks."""
    context: int = Field(1, ge=1, le=16)
    """Neighbour planes on each side in view 2.5d."""
    patch: Triple | None = Field(None)
    """Training patch z y x in voxels; by default 1 128 128 in 2d and 2.5d, 32 64 64 in 3d."""
    batch: int = Field(4, ge=1, le=1024)
    """Batch size (patches per step)."""
    sampling: Sampling = "balanced"
    """Patches lie around each class equally often, any label, foreground in a third of them (as in nnU-Net), or
    always."""
    minutes: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Time budget in minutes; give this, epochs or steps (default: 5)."""
    epochs: int | None = Field(None, ge=1)
    """Budget in epochs."""
    steps: int | None = Field(None, ge=1)
    """Budget in optimizer steps."""
    steps_per_epoch: int = Field(25, ge=1)
    """Steps per epoch; the hold-out is scored after each epoch."""
    gradient_accumulation: int = Field(1, ge=1, le=1024)
    """Gradient accumulation: the batch of a step is computed in this many parts, which takes less memory."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with Nesterov momentum."""
    learning_rate: float | None = Field(None, gt=0, le=10)
    """Peak learning rate (default: 0.002 for adamw, 0.01 for sgd)."""
    lr_schedule: LearningRateSchedule = "linear"
    """Learning rate: linear falls to 0 over the last 30 % of the steps, poly over 80 %, one_cycle rises and falls."""
    ema_decay: float = Field(0, ge=0, lt=1)
    """Decay of the exponential moving average of the weights that becomes the model, such as 0.99; 0 for none."""
    patience: int | None = Field(None, ge=1)
    """Early stopping: epochs without improvement of the validation score before training ends (default: never)."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the random numbers; the same seed, data and settings give the same model on the same machine."""
    hold_out: float = Field(0.2, ge=0, le=0.5)
    """Share of the labels that is held out to score the model and never trained on; 0 for none."""
    final_fit: float = Field(0.0, ge=0, le=0.5)
    """Share of the steps that learn what was held out, too, at a low rate after the score was measured; 0 for none."""
    folds: int = Field(1, ge=1, le=100)
    """Cross-validation: number of folds into which the labels are divided; 1 for none."""
    fold: int = Field(0, ge=0)
    """Cross-validation: the fold that is held out, from 0."""
    augment: Literal["none", "light", "classic", "standard", "strong"] = "light"
    """Data augmentation: none; light (mirroring, brightness); classic, standard (as nnU-Net) and strong do more."""
    channel_names: ChannelNames = ()
    """Names of the channels in their order, such as T1 FLAIR, which the model remembers (default: what tells the names
    of the channel files of an image apart)."""
    channel_dropout: float = Field(0, ge=0, lt=1)
    """Probability that a channel of a patch is left out, so that the model can do without it; one always stays."""
    mirror_axes: Mirror = ("z", "y", "x")
    """Axes along which patches may be mirrored; leave out x where left and right are different classes."""
    target_spacing: Spacing | None = None
    """Voxel size z y x, in the unit of the images, to which images are resampled for the network (default: none); in 2d
    and 2.5d the distance between planes is kept."""
    preview: Voxel | None = None
    """Voxel z y x around which previews are computed (default: where most labels are)."""
    start_from: Path | None = None
    """Model (name or file) whose weights training starts from; it is the result, unless a step scores better. none is
    random weights; auto a shipped model, if its labels agree with those of the training."""

    distillation: float = Field(0.0, ge=0, le=1000, allow_inf_nan=False)
    """Weight with which the answers of that model are followed where nothing is painted, so that they are not
    forgotten; 0 for none."""

    @field_validator("start_from", mode="before")
    @classmethod
    def _none_is_no_model(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("option")
    @classmethod
    def _network_has_options(cls, value: dict[str, OptionValue], info: ValidationInfo) -> dict[str, OptionValue]:
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
            raise ValueError("The loss has no term; give one, such as dice_ce.")
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
        lines = [*self._budget_misfits(), *self._patch_misfits(), *self.label_misfits(), *self._supervision_misfits()]
        lines += [*self._fold_misfits(), *class_misfits(self.loss, self.class_words)]
        if self.dims not in NETWORKS.describe(self.network).facts.get("supported_dims", (2, 3)):
            lines.append(f"Network {self.network} does not support {self.dims}D; choose another view than {self.view}.")
        if self.multilabel and self.head not in ("auto", "multilabel"):
            lines.append(f"Classes that overlap need head multilabel, not {self.head}.")
        elif all(misfits := [head_misfits(self.loss, head) for head in self.heads]):
            lines += misfits[-1]
        if lines:
            raise ValueError("\n".join(lines))
        return self

    def _budget_misfits(self) -> list[str]:
        given = [name for name in ("minutes", "epochs", "steps") if getattr(self, name) is not None]
        if self.lr_schedule == "one_cycle" and given in ([], ["minutes"]):
            return ["lr_schedule=one_cycle needs the number of steps; give steps or epochs instead of minutes."]
        if len(given) < 2:
            return []
        return [f"Budgets {' and '.join(given)} were given; give one of minutes, epochs, steps."]

    def _patch_misfits(self) -> list[str]:
        if self.patch is None:
            return []
        if self.view != "3d" and self.patch[0] != 1:
            return [f"Patch {self.patch} must have z = 1 in view {self.view}; planes are the batch there."]
        if (built_for := self.built_for(self.patch)) != self.patch:
            sizes = " and ".join(" ".join(map(str, size)) for size in (self.patch, built_for))
            return [f"The patch and the network's options name different patches, {sizes}; leave out the options."]
        return []

    def _fold_misfits(self) -> list[str]:
        lines = []
        if self.fold >= self.folds:
            lines.append(f"Fold {self.fold} is not one of {self.folds} folds, counted from 0; choose a lower one.")
        if self.folds > 1 and self.hold_out != type(self).model_fields["hold_out"].default:
            lines.append(f"With {self.folds} folds, one part in {self.folds} is held out; leave hold_out as it is.")
        return lines

    def _supervision_misfits(self) -> list[str]:
        lines = []
        if self.deep_supervision_weights and not any(self.deep_supervision_weights):
            lines.append("All deep_supervision_weights are 0; give at least one above 0.")
        for need, term in loss_needs(self.loss).items():
            given = {name: dict(NETWORKS.describe(name).facts.get("gives", ())) for name in NETWORKS}
            able = {name: gives[need] for name, gives in given.items() if need in gives}
            if not able:
                continue  # no network's output: what is computed from the labels is always there
            if any(each.name == term and each.classes for each in self.loss):
                lines.append(f"Loss {term} learns from the network's {need}, which is of no class; give it no class.")
            if self.network not in able:
                lines.append(
                    f"Loss {term} learns from the network's {need}, which {self.network} does not have; choose network "
                    f"{' or '.join(able)}."
                )
            elif (switch := able[self.network]) and self._option(switch) in (False, "none"):
                lines.append(f"Loss {term} learns from the network's {need}; turn it on with option {switch}.")
        return lines

    def _option(self, name: str) -> Any:
        """Give an option of the network as it is chosen or by default."""
        return self.option.get(name, NETWORKS.describe(self.network).defaults[name])

    @property
    def heads(self) -> tuple[Head, ...]:
        """The head modes that may come out; which one depends on how many classes there are."""
        if self.head != "auto":
            return (self.head,)
        return ("multilabel",) if self.multilabel else ("binary", "multiclass")

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
        return self.epochs * self.steps_per_epoch if self.epochs else self.steps

    @property
    def planned_patch(self) -> Triple:
        """The training patch z, y, x, by default that of the view."""
        return self.patch or self.built_for((32, 64, 64) if self.view == "3d" else (1, 128, 128))

    @property
    def planes_beside(self) -> int:
        """Planes on each side of one that the network sees as more channels; 0 unless the view is 2.5D."""
        return self.context if self.view == "2.5d" else 0

    def built_for(self, patch: Triple) -> Triple:
        """Replace the axes of a patch that options of the network name.

        Returns
        -------
        tuple of 3 int
            Planes stay planes.
        """
        names = NETWORKS.describe(self.network).facts.get("patch_options", ())
        named = [self._option(name) for name in names] or [0, 0, 0]
        z, y, x = (own or n for own, n in zip(named, patch, strict=True))
        return (z if self.view == "3d" else patch[0]), y, x

    @property
    def peak_rate(self) -> float:
        """The highest learning rate."""
        return self.learning_rate or {"adamw": 2e-3, "sgd": 1e-2}[self.optimizer]

    def head_for(self, classes: int) -> Head:
        """Choose the head for a number of classes.

        Parameters
        ----------
        classes : int
            Number of classes, background included.

        Returns
        -------
        {"binary", "multiclass", "multilabel"}

        Raises
        ------
        SettingsProblem
            If the chosen head cannot hold the classes, or the loss fits no head that can.
        """
        if self.head == "binary" and classes != 2:
            raise SettingsProblem(f"A binary head holds 2 classes, the labels have {classes}; choose multiclass.")
        allowed = [head for head in self.heads if head != "binary" or classes == 2]
        for head in allowed:
            if not head_misfits(self.loss, head):
                return head
        raise SettingsProblem(f"There are {classes} classes.", *head_misfits(self.loss, allowed[-1]))


class TrainJob(TrainSettings):
    """Train a model on images with labels."""

    left_open: ClassVar[tuple[str, ...]] = (
        "view", "context", "network", "option", "target_spacing", "normalise", "normalise_in", "objects_as", "loss",
        "class_weights", "patch", "batch", "gradient_accumulation", "mirror_axes", "augment", "hold_out", "ema_decay",
        "minutes", "unlabelled", "background", "start_from", "distillation", "learning_rate",
    )  # fmt: skip
    """Fields that are chosen from the data where they are not set."""

    image: tuple[str, ...] = ()
    """Image files, datasets (file.h5:/path), or a folder; the channel files of one image are separated by |. Without
    label: a set of images with labels, as .h5 or as a folder (of nnU-Net, BIDS, BraTS, DRIVE and the like)."""
    label: tuple[str, ...] = ()
    """Label files or a folder, paired with the images by name; overlapping masks are separated by |."""
    mask: tuple[str, ...] = ()
    """Mask files or a folder, paired with the images by name; nothing is learnt where a mask is 0."""
    in_order: bool = False
    """Pair images with labels and masks in the order in which they are given (folders: that of names and numbers), not
    by name."""
    label_kind: str = ""
    """Of a BIDS folder with several kinds of labels: which, by a word of their names such as lesion."""
    pairs: Path | None = None
    """CSV file with the columns image, label and, if wanted, split (train or val) and mask."""
    spacing: Spacing | None = None
    """Voxel size z y x for images whose files carry none."""
    unit: str = "pixel"
    """Unit of that voxel size, such as micrometer or mm."""
    axes: Axes | None = None
    """Axes of the arrays in TIFF, npy, Zarr and HDF5 files that do not say it, such as zyx or cyx (c is channels, t
    time points); labels and masks have no c. In NIfTI files t says that the fourth axis is time, not channels."""
    time: TimePoints = ()
    """Time points of time series to train on, such as 0 3 5 or 0:10:2 (begin:end:step; the end is exclusive), or : for
    all. Each is an image with the labels of its time point."""
    output: Path | None = None
    """Where to write the model (.safetensors), or beside it if a better model is there."""

    @model_validator(mode="before")
    @classmethod
    def _auto_is_left_open(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if not (name in cls.left_open and _is_auto(item))}

    @field_validator("image", "label", "mask", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _inputs_given(self) -> Self:
        if self.pairs is None and not (self.image and (self.label or all(map(_may_hold_labels, self.image)))):
            raise ValueError("Give --image and --label, or --pairs.")
        if self.pairs is not None and (self.image or self.label):
            raise ValueError("Give either --pairs or --image and --label, not both.")
        if self.mask and self.pairs is not None:
            raise ValueError("With --pairs, masks are in its column mask; leave out --mask.")
        sources = (*self.image, *self.label, *self.mask, str(self.pairs or ""))
        if problem := replaced_input([self.output] if self.output else [], sources):
            raise ValueError(problem)
        return self
