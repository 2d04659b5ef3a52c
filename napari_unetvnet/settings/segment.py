"""How to segment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from napari_unetvnet.conventions import Precision, Spacing, Triple
from napari_unetvnet.settings.base import ComputeSettings
from napari_unetvnet.settings.labels import numbers
from napari_unetvnet.settings.postprocess import PostprocessSettings

__all__ = ["Blending", "SegmentJob", "SegmentSettings"]

ROTATIONS = "rotations"
LABEL, HALF = 1, 2
"""Bytes of a label, and of a probability or an uncertainty."""
Looks = Literal["2d", "2.5d", "3d", "multi-view"]
Blending = Literal["gaussian", "constant", "centre"]
Uncertainty = Literal["entropy", "variance"]
Voxel = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


def _tta(value: Any) -> Any:
    """Accept axes or "rotations", as text or as a list of words."""
    words = numbers(value)
    return ROTATIONS if words in ([ROTATIONS], (ROTATIONS,)) else words


Tta = Annotated[Literal["rotations"] | tuple[Literal["z", "y", "x"], ...], BeforeValidator(_tta)]


class SegmentSettings(ComputeSettings, PostprocessSettings):
    """How to segment."""

    precision: Precision = "auto"
    """Number format of the network; auto is the fastest that gives 999 of 1000 labels of a part of the image as fp32
    does. fp16 is for GPUs only."""
    view: Looks | None = None
    """The view of the model (default), or multi-view: the mean over the planes along z, y and x; another is refused."""
    tile: Triple | None = None
    """Tile z y x in voxels (default: the largest that fits into the memory for it, the whole image if it can be)."""
    tile_memory: float | None = Field(None, gt=0)
    """Memory for a tile, its sums and its results in GiB (default: a quarter of all there is, on a CPU at most 1)."""
    overlap: float = Field(0.25, ge=0, le=0.9)
    """Share of a tile that the next tile covers again."""
    blending: Blending = "gaussian"
    """How tiles that overlap are joined: weighed by a Gaussian, or all alike, or each voxel from the nearest tile."""
    mirror_edge: Literal["reflect", "symmetric"] = "reflect"
    """How the image goes on beyond its border, where a network wants to see more: mirrored without repeating the border
    voxel, as in training, or with it."""
    batch: int = Field(1, ge=1, le=1024)
    """Tiles at once."""
    tta: Tta = ()
    """Test-time augmentation: axes (z, y, x) along which tiles are also mirrored, or rotations for all 48 ways to turn
    and mirror a cube (3d only). The result is the mean; 1, 2 or 3 axes take 2, 4 or 8 times as long, rotations 48."""
    skip_constant: bool = False
    """Whether tiles in which each channel has one value everywhere are background without being computed."""
    box_start: Voxel | None = None
    """First voxel z y x of the part to segment (default: 0 0 0); what lies outside is background."""
    box_stop: Triple | None = None
    """The voxel z y x behind the last one of the part to segment (default: the end of the image)."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Whether the network is compiled first, which takes about a minute; auto does so where many tiles make it pay."""
    cascade: bool = True
    """Whether a network that looks twice (fine_grained_unet) does so: the region of its big object is enlarged, and the
    tiny objects that are found in it count, with the network's own threshold."""
    resample: bool = True
    """Whether an image with another voxel size than the model's is resampled for the network; the labels have the
    image's own grid in any case."""
    uncertainty_kind: Uncertainty | None = None
    """What uncertainty is: the entropy of the probabilities as a share of the highest there can be (default; where
    classes overlap, the highest of a class), or the variance of a probability over mirrored or turned tiles."""

    def result_bytes(self, classes: int) -> int:
        """Count the bytes for each voxel of what is made of a slab.

        Parameters
        ----------
        classes : int

        Returns
        -------
        int
        """
        return LABEL + HALF * (self.uncertainty_kind is not None)

    @model_validator(mode="after")
    def _box_holds_something(self) -> Self:
        if self.box_stop and any(a >= b for a, b in zip(self.box_start or (0, 0, 0), self.box_stop, strict=True)):
            raise ValueError(f"The box ends at {self.box_stop}, not behind its start {self.box_start}; make it larger.")
        return self

    @model_validator(mode="after")
    def _something_varies(self) -> Self:
        if self.uncertainty_kind == "variance" and (self.view == "multi-view" or not self.tta):
            raise ValueError(
                "Variance is that over mirrored or turned tiles of one view; choose tta, or uncertainty_kind entropy."
            )
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
    mask: str | None = None
    """File of the same size as the image; what is 0 in it is background and, as far as tiles allow, not computed."""
    output: Path | None = None
    """Where to write the labels; the ending decides the format (.nii.gz, .nii, .tif, .npy, .png, or .zarr, which is
    filled while they are computed)."""
    probabilities: Path | None = None
    """Where to write a probability for each class, too (.nii.gz, .nii, .tif, .npy, .zarr)."""
    uncertainty: Path | None = None
    """Where to write how unsure the network is of each voxel, too; 0 is certain."""

    def result_bytes(self, classes: int) -> int:
        """Count the bytes for each voxel of what is made of a slab, with probabilities if these are wanted.

        Parameters
        ----------
        classes : int

        Returns
        -------
        int
        """
        return super().result_bytes(classes) + HALF * classes * (self.probabilities is not None)

    @model_validator(mode="after")
    def _outputs_are_apart(self) -> Self:
        outputs = [path for path in (self.output, self.probabilities, self.uncertainty) if path is not None]
        if twice := [path for path in outputs if outputs.count(path) > 1]:
            raise ValueError(f"Several results would be written to {twice[0]}; give a place for each.")
        read = [Path(source.strip()) for source in (*self.image.split("|"), self.model, self.mask or "") if source]
        for path in outputs:
            if any(path in (source, *source.parents) for source in read):
                raise ValueError(f"The result would replace {path}, which is read; give another output.")
        return self

    @model_validator(mode="after")
    def _uncertainty_has_a_place(self) -> Self:
        if self.uncertainty_kind is not None and self.uncertainty is None:
            raise ValueError("Say with uncertainty where to write it, or leave out uncertainty_kind.")
        return self
