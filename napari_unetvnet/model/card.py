"""The model card, JSON in the header of a safetensors file, and the list of shipped models.

Cards are read without torch, so that the viewer can show a model before loading it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from napari_unetvnet.conventions import Head, NormaliseIn, OptionValue, Spacing, Triple, View
from napari_unetvnet.errors import DataProblem, FileProblem, ModelProblem, SettingsProblem
from napari_unetvnet.networks import NETWORKS, lasting_options
from napari_unetvnet.settings import BLURS, Normalisation, ObjectRule, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unetvnet.images.volume import Volume

__all__ = [
    "ImageRecord",
    "ModelCard",
    "ObjectsLearnt",
    "ScoredOn",
    "check_channels",
    "check_options",
    "read_card",
    "shipped_models",
    "with_options",
]

BEFORE_FIT = "before_final_fit."
"""The weights before the final fit have this before their names in a model file."""
Count = Annotated[int, Field(ge=0, le=1 << 60)]
Channels = Annotated[int, Field(ge=1, le=1 << 12)]
Edge = Annotated[int, Field(ge=1, le=1 << 16)]
Label = Annotated[int, Field(ge=0, lt=1 << 63)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(max_length=1000)]
Text = Annotated[str, Field(max_length=100_000)]
MOST_CLASSES, MOST_CONTEXT, MOST_CHANNELS = 1000, 64, 1 << 12
Numbers = tuple[Count, Count, Count, Count, Count, Count]
"""A box of voxels: its first voxel z, y, x and its end (exclusive)."""


SHOWN, LONGEST = 5, 500
"""Faults of a card that are listed, and letters of the list."""


class ImageRecord(Settings):
    """What a model, and the models it started from, did with an image. Boxes are in voxels of the original image."""

    content: str
    """Hash of shape and intensities, as `images.identity.content_hash` gives it."""
    name: str = ""
    """What the image was called."""
    shape: Triple
    """Voxels z, y, x."""
    trained: tuple[Numbers, ...] = ()
    """Boxes that were ever trained on; never scored on by a training that starts from this model."""
    held_out: tuple[Numbers, ...] = ()
    """Boxes that scored the model, and score each training that starts from it."""
    fitted: tuple[Numbers, ...] = ()
    """Boxes that only the final fit learnt, the held-out ones among them. A training that starts from this model starts
    from the weights before."""


class ScoredOn(Settings):
    """What the score of a model stands on."""

    images: Count
    """Images of which a part or all is held out."""
    voxels: Count
    """Labelled voxels that are held out."""
    objects: Count | None = None
    """Connected components of the foreground classes in them; None where the hold-out is too large to count."""
    class_voxels: dict[str, Count] = Field(default_factory=dict)
    """Held-out voxels of each class."""

    def __str__(self) -> str:
        images = f"{self.images} image{'s' if self.images != 1 else ''}"
        objects = "" if self.objects is None else f", {self.objects} object{'s' if self.objects != 1 else ''}"
        return f"{images}, {self.voxels} voxels{objects}"


class ObjectsLearnt(Settings):
    """The single objects that a model learnt from, and what makes single objects of its classes."""

    rule: ObjectRule
    """How the classes are divided."""
    count: Count
    """Objects in the training labels."""
    voxels: tuple[Count, Count, Count]
    """Voxels of the smallest, the median and the largest object; smallest and largest are percentiles 1 and 99."""
    split_edges: float | None = None
    """How deep a neck must be to be split, in the longest voxel edge; nothing for the default."""

    @property
    def least_voxels(self) -> int:
        """Voxels below which a piece is no object: half of the smallest one."""
        return max(1, self.voxels[0] // 2)


class ModelCard(Normalisation):
    """All that is needed to rebuild the network and to use it correctly; ranges, because it may be a stranger's."""

    model_config = ConfigDict(allow_inf_nan=False)
    network: str
    """Name in the network table."""
    option: dict[str, OptionValue] = Field(default_factory=dict)
    """Options of the network."""
    head: Head
    """What turns logits into classes: one sigmoid, a softmax, or a sigmoid for each class."""
    view: View
    """2d, 2.5d or 3d."""
    context: Annotated[int, Field(ge=0, le=MOST_CONTEXT)] = 0
    """Neighbour planes on each side that the network sees as channels; 0 but in view 2.5d."""
    channels: Channels = 1
    """Input channels C of an image."""
    channel_names: tuple[Name, ...] = ()
    """Their names, in order; may be empty."""
    channel_dropout: Fraction = 0
    """Probability with which a channel was left out in training; above 0 the model can do without some of them."""
    values: Annotated[tuple[Label, ...], Field(max_length=MOST_CLASSES)]
    """Label value that is written for each class, in class order."""
    class_names: tuple[Name, ...] = ()
    """Names of the classes, in class order; may be empty."""
    overlapping: bool = False
    """Whether a voxel may have several classes, so that a result is a mask for each."""
    paint_order: tuple[int, ...] = ()
    """Classes that lie in each other are written in this order of their indices, later ones over earlier ones."""
    lines: tuple[int, ...] = ()
    """Indices of classes that are thin lines; three outputs after each only serve to learn."""
    patch: tuple[Edge, Edge, Edge]
    """Training patch z y x in voxels."""
    spacing: Spacing = (1.0, 1.0, 1.0)
    """Voxel size z y x of the training images."""
    unit: Annotated[str, Field(max_length=100)] = "pixel"
    """Unit of the spacing."""
    resampled: bool = False
    """Whether the training images were brought to that voxel size."""
    normalise_in: NormaliseIn = "all"
    """The voxels whose intensities were measured to bring them to scale."""
    intensity_range: tuple[tuple[float, float, float, float], ...] = ()
    """Of each channel of the training images, without frames: lowest value, percentiles 0.5 and 99.5, highest value."""
    brightness: tuple[tuple[float, float], ...] = ()
    """Of each channel: where the median of an image lies between its percentiles 0.5 and 99.5, from 0 (mostly dark) to
    1 (mostly bright); percentiles 10 and 90 over the training images."""
    loss: Text = ""
    """What was minimised."""
    steps: Count = 0
    """Optimiser steps that were taken in all, those of the parent included."""
    final_fit_steps: Count = 0
    """How many of the steps belong to the final fit, which learnt what was held out after it had scored the model."""
    seed: int = 0
    """Of the training."""
    parent: Text = ""
    """The model that the training started from: name and sha256 of its file."""
    parent_steps: Count = 0
    """How many of the steps are the parent's."""
    parent_dice: float | None = None
    """Dice of the parent on the hold-out of this training; nothing where it could not be compared."""
    unchanged: bool = False
    """Whether the weights are the parent's, because no step of this training scored better."""
    distilled: bool = False
    """Whether it has followed the parent's answers where nothing was painted, so that it knows more than its labels."""
    objects: ObjectsLearnt | None = None
    """Of a model whose classes are to be divided into single objects: what it learnt from."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Scores on the hold-out."""
    scored: ScoredOn | None = None
    """What these scores stand on."""
    images: tuple[ImageRecord, ...] = ()
    """Each image that was trained on or held out, by this model and those it started from. A training that starts from
    this model keeps to them, so that it is never scored on what was learnt."""
    split: tuple[tuple[int, ...], ...] = ()
    """Of models before `images` was recorded: the same for each training image in order, without its content."""
    task: Text = ""
    """What the model finds in which images, in one line, such as "nuclei in fluorescence images"."""
    data: Text = ""
    """Where the training data come from."""
    licence: Text = ""
    """Licence of the weights."""
    attribution: Text = ""
    """Whom to name where the weights are passed on: the authors of the training images, as their licence asks."""
    inputs: Text = ""
    """How many images it was trained on, and a hash over the contents of all files."""
    device: Text = ""
    """What it was trained on: the GPU or the processor."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the software that trained it."""

    @model_validator(mode="after")
    def _values_fit_the_head(self) -> Self:
        if not self.values or min(self.values) < 0 or (self.head == "binary" and len(self.values) != 2):
            raise ValueError(f"label values {self.values} do not fit a {self.head} head")
        if self.class_names and len(self.class_names) != len(self.values):
            raise ValueError(f"class names {self.class_names} are not as many as label values {self.values}")
        if self.channel_names and len(self.channel_names) != self.channels:
            raise ValueError(f"channel names {self.channel_names} are not as many as {self.channels} channels")
        if self.normalise == "dataset":
            raise ValueError("normalise=dataset has no constants; a card has them as fixed ones")
        if any(not 0 <= i < len(self.values) for i in (*self.paint_order, *self.lines)):
            raise ValueError(f"classes {self.paint_order} or {self.lines} are beyond {len(self.values)} label values")
        return self

    @model_validator(mode="after")
    def _has_one_meaning(self) -> Self:
        if any(len(set(each)) < len(each) for each in (self.values, self.paint_order, self.lines)):
            raise ValueError(f"of the classes {self.values}, {self.paint_order} or {self.lines} some are named twice")
        if self.context and self.view != "2.5d":
            raise ValueError(f"view {self.view} has no neighbour planes, but a context of {self.context}")
        if self.in_channels > MOST_CHANNELS:
            raise ValueError(f"{self.channels} channels of {2 * self.context + 1} planes are more than {MOST_CHANNELS}")
        return self

    @property
    def score(self) -> str:
        """The validation score and what it stands on, as text; empty without one."""
        dice = self.scores.get("hold_out_dice")
        if dice is None:
            return ""
        before = " before its final fit" if self.final_fit_steps else ""
        return f"Dice {dice:.3f} on its hold-out{before}" + (f" ({self.scored})" if self.scored else "")

    @property
    def dims(self) -> int:
        """Spatial dimensions of the network."""
        return 3 if self.view == "3d" else 2

    @property
    def in_channels(self) -> int:
        """Input channels of the network: those of the image, times the number of input planes."""
        return self.channels * (2 * self.context + 1)

    @property
    def outputs(self) -> int:
        """Channels of the logits, K."""
        return 1 if self.head == "binary" else len(self.values) + BLURS * len(self.lines)

    @property
    def begins_with_object(self) -> bool:
        """Whether the first output is an object that may contain others, not a background or a softmax class."""
        return self.head == "binary" or (self.head == "multilabel" and self.values[0] != 0)

    @property
    def one_stage(self) -> str:
        """The sentence that a network with two stages runs in one, because it has no object to look into; or empty."""
        if self.begins_with_object or not NETWORKS.describe(self.network).facts.get("two_stages"):
            return ""
        return (
            f"{self.network} has no second stage here, because its first class is the background and not a large "
            "object; for one, train on overlapping masks, or on regions such as --regions big=1+2 tiny=2."
        )

    @property
    def names_by_value(self) -> tuple[tuple[int, str], ...]:
        """Label values with the name of each class, in class order; empty if classes have no names."""
        return tuple(zip(self.values, self.class_names, strict=True)) if self.class_names else ()

    @property
    def class_outputs(self) -> tuple[int, ...]:
        """The channel of the logits for each class; other channels only serve training."""
        return tuple(i + BLURS * sum(line < i for line in self.lines) for i in range(len(self.values)))


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a model file, without its weights and without torch.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file.

    Returns
    -------
    ModelCard

    Raises
    ------
    FileProblem
        If there is no such file.
    ModelProblem
        If the file is cut off, of another kind, or has no card.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileProblem(f"There is no model file {path}; the models command lists all.")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelProblem(f"{path} is not a model file, or is cut off ({error}); copy or train it again.") from None
    if "card" not in header:
        raise ModelProblem(f"{path} has weights but no model card; choose a model of this program.")
    try:
        return ModelCard.model_validate_json(header["card"])
    except ValidationError as error:
        found = [f"{'.'.join(map(str, item['loc'])) or 'the card'}: {item['msg']}" for item in error.errors()]
        shown = "; ".join(found[:SHOWN])[:LONGEST].replace("\n", " ")
        raise ModelProblem(
            f"{path}: its card does not fit this version, or is out of range ({shown}); update the program."
        ) from None


def check_options(card: ModelCard, name: str) -> None:
    """Refuse a card whose network is unknown, or has options that are unknown, out of range or name a file.

    Parameters
    ----------
    name : str
        Of the model, for the message.

    Raises
    ------
    ModelProblem
    """
    try:
        NETWORKS.check_options(card.network, card.option)
    except SettingsProblem as problem:
        raise ModelProblem(*(f"{name}: {line}" for line in problem.lines)) from None
    lasting = lasting_options(card.network, card.option)
    if starting := [option for option, value in card.option.items() if option not in lasting and value]:
        raise ModelProblem(f"{name}: its card has the option {', '.join(starting)}, which only a training may have.")


def shipped_models() -> dict[str, Path]:
    """Find the models that are shipped with the program, by file name.

    They are inside an installed package, but beside the package in a source checkout.

    Returns
    -------
    dict of str to Path
    """
    package = Path(__file__).parents[1]
    inside = package / "weights"
    folder = inside if inside.is_dir() else package.parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def with_options(card: ModelCard, option: Mapping[str, OptionValue]) -> ModelCard:
    """Change options of a trained network.

    Parameters
    ----------
    option : mapping of str to value
        Those to change.

    Returns
    -------
    ModelCard

    Raises
    ------
    SettingsProblem
        If the network has no such option, or it cannot be changed after the training.
    """
    allowed = NETWORKS.describe(card.network).facts.get("inference_options", ())
    if fixed := [name for name in option if name not in allowed]:
        those = f"only {', '.join(allowed)} can" if allowed else "none of its options can"
        raise SettingsProblem(
            f"Option {', '.join(fixed)} of {card.network} cannot be changed after the training; {those}."
        )
    return card.model_copy(update={"option": card.option | NETWORKS.check_options(card.network, option)})


def check_channels(card: ModelCard, image: Volume) -> None:
    """Refuse an image whose channels the model does not expect.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)

    Raises
    ------
    DataProblem
        If the numbers of channels differ.
    """
    if image.channels != card.channels:
        named = f" ({', '.join(card.channel_names)})" if card.channel_names else ""
        raise DataProblem(
            f"The model expects images with {card.channels} channel(s){named}, but {image.name} has {image.channels}; "
            "choose other channels, say what the axes of the file are (--axes zyx), or choose another model."
        )
