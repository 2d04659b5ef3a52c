"""How to segment."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from napari_unetvnet.conventions import Axes, OptionValue, Precision, Spacing, Triple
from napari_unetvnet.images.formats import FORMATS, endings, endings_for, listed
from napari_unetvnet.images.outputs import replaced_input
from napari_unetvnet.images.same_file import same_or_inside
from napari_unetvnet.settings.channels import ChannelNames
from napari_unetvnet.settings.labels import numbers
from napari_unetvnet.settings.postprocess import PostprocessSettings
from napari_unetvnet.settings.tiling import TilingSettings
from napari_unetvnet.settings.time_points import TimePoints

__all__ = ["SegmentJob", "SegmentSettings"]

ROTATIONS = "rotations"
GROWING = endings(each for each in FORMATS if each.grows)
LABEL, HALF = 1, 2
"""Bytes of a label, and of a probability or an uncertainty."""
Looks = Literal["2d", "2.5d", "3d", "multi-view"]
Uncertainty = Literal["entropy", "variance"]
Voxel = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


def _tta(value: Any) -> Any:
    """Accept axes or "rotations", as text or as a list of words."""
    words = numbers(value)
    return ROTATIONS if words in ([ROTATIONS], (ROTATIONS,)) else words


Tta = Annotated[Literal["rotations"] | tuple[Literal["z", "y", "x"], ...], BeforeValidator(_tta)]


RegionClasses = Annotated[tuple[str, ...], BeforeValidator(numbers)]


class SegmentSettings(TilingSettings, PostprocessSettings):
    """How to segment."""

    precision: Precision = "auto"
    """Number format of the network; auto is the fastest that reproduces 99.9 % of the fp32 labels on a part of the
    image. fp16 is for GPUs only."""
    view: Looks | None = None
    """View of the model (default), or multi-view: the mean over planes along z, y and x; any other is refused."""
    tta: Tta = ()
    """Test-time augmentation: axes (z, y, x) along which tiles are also mirrored, or rotations for all 48 ways to turn
    and mirror a cube (3d only). The result is the mean; 1, 2 or 3 axes take 2, 4 or 8 times as long, rotations 48."""
    skip_constant: bool = False
    """Treat tiles in which every channel is constant as background, without computing them."""
    box_start: Voxel | None = None
    """Region of interest: first voxel z y x (default: 0 0 0); everything outside is background."""
    box_stop: Triple | None = None
    """Region of interest: stop voxel z y x, exclusive (default: the end of the image)."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the network first, which takes about a minute; auto does so where there are enough tiles to make it
    pay."""
    cascade: bool = True
    """Run the second stage of a network with two (fine_grained_unet): the region of its large object is enlarged, and
    the tiny objects are searched for in it. The thresholds are the network's own, with and without it."""
    option: dict[str, OptionValue] = {}  # noqa: RUF012 (pydantic copies it)
    """An option of the network that may be changed after the training, such as roi_threshold=0.5 of
    fine_grained_unet."""
    uncertainty_kind: Uncertainty | None = None
    """Measure of uncertainty: entropy of the probabilities as a fraction of its maximum (default; for overlapping
    classes the highest of any class), or variance of the probabilities over test-time augmentation."""

    def result_bytes(self, classes: int) -> int:
        """Give the bytes per voxel of the results of a slab."""
        return LABEL + HALF * (self.uncertainty_kind is not None)

    @model_validator(mode="after")
    def _box_holds_something(self) -> Self:
        if self.box_stop and any(a >= b for a, b in zip(self.box_start or (0, 0, 0), self.box_stop, strict=True)):
            raise ValueError(f"The box stops at {self.box_stop}, not after its start {self.box_start}; enlarge it.")
        return self

    @model_validator(mode="after")
    def _something_varies(self) -> Self:
        if self.uncertainty_kind == "variance" and (self.view == "multi-view" or not self.tta):
            raise ValueError(
                "Variance is computed over test-time augmentation of one view; choose tta, or uncertainty_kind entropy."
            )
        return self


class SegmentJob(SegmentSettings):
    """Segment an image with a model."""

    image: str = Field(min_length=1)
    """Image file; the channel files of one image are separated by | (write || for a | in a name)."""
    channel_names: ChannelNames = ()
    """Names of the channels of the image in their order, by which they are matched with those of the model (default:
    the names of its channel files)."""
    model: str = Field(min_length=1)
    """Name of a model (see the models command) or a .safetensors file."""
    spacing: Spacing | None = None
    """Voxel size z y x for an image whose file has none."""
    unit: str = "pixel"
    """Unit of that voxel size, such as micrometer or mm."""
    axes: Axes | None = None
    """Axes of the arrays in TIFF, npy, Zarr and HDF5 files that do not say it, such as zyx or cyx (c is channels, t
    time points); labels and masks have no c. In NIfTI files t says that the fourth axis is time, not channels."""
    time: TimePoints = ()
    """Time points of a time series, such as 0 3 5 or 0:10:2 (begin:end:step; the end is exclusive); default: all. The
    result has the same axes; of a single time point it has none of time."""
    mask: str | None = None
    """Mask file of the same size as the image; where it is 0 the result is background and, if possible, not
    computed."""
    region_model: str | None = None
    """Name or file of a model that is applied first, to the whole image; the result is background outside the region
    that it finds."""
    region_class: RegionClasses = ()
    """Classes of that model that make the region, by name or label value (default: all but the background)."""
    region_threshold: float | None = Field(None, gt=0, lt=1)
    """Probability above which a voxel belongs to the region (default: where that model writes such a class)."""
    region_shape: Literal["box", "union", "mask"] = "box"
    """Shape of the region: a box around each object that is found, one box around all of them, or their voxels."""
    region_largest: int | None = Field(None, ge=1)
    """Number of objects that make the region, the largest ones (default: all)."""
    region_margin: int = Field(10, ge=0)
    """Voxels by which the region is enlarged on each side; fewer along an axis on which voxels are longer."""
    output: Path | None = Field(
        None,
        description="Where to write the labels; the ending decides the format "
        f"({listed(endings_for('labels'))}). {listed(GROWING)} is filled while they are computed.",
    )
    probabilities: Path | None = Field(
        None, description=f"Where to write class probabilities as well ({listed(endings_for('probabilities'))})."
    )
    uncertainty: Path | None = Field(
        None,
        description="Where to write the uncertainty of each voxel as well "
        f"({listed(endings_for('uncertainty'))}); 0 is certain.",
    )
    overwrite: bool = False
    """Replace also a file or folder that this program did not write, or that was changed since."""

    def result_bytes(self, classes: int) -> int:
        """Give the bytes per voxel of the results of a slab, including probabilities if chosen."""
        return super().result_bytes(classes) + HALF * classes * (self.probabilities is not None)

    @model_validator(mode="after")
    def _outputs_differ(self) -> Self:
        outputs = [path for path in (self.output, self.probabilities, self.uncertainty) if path is not None]
        for first, second in permutations(outputs, 2):
            if same_or_inside(first, second):
                raise ValueError(f"Two results would be written to {second}; give a different path for each.")
        sources = (self.image, self.model, self.mask or "", self.region_model or "")
        if problem := replaced_input(outputs, sources):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _region_has_model(self) -> Self:
        names = ("region_class", "region_threshold", "region_shape", "region_largest", "region_margin")
        chosen = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        if chosen and self.region_model is None:
            raise ValueError(f"{' and '.join(chosen)} would have no effect; give region_model, which finds the region.")
        return self

    @model_validator(mode="after")
    def _uncertainty_has_output(self) -> Self:
        if self.uncertainty_kind is not None and self.uncertainty is None:
            raise ValueError("Uncertainty has no output; give a path as uncertainty, or leave out uncertainty_kind.")
        return self
