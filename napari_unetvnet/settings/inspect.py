"""How to look into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from napari_unetvnet.conventions import Axes, Precision, Spacing
from napari_unetvnet.images.formats import ending_of, endings_for, format_of, listed
from napari_unetvnet.images.outputs import replaced_input
from napari_unetvnet.settings.channels import ChannelNames
from napari_unetvnet.settings.labels import numbers
from napari_unetvnet.settings.segment import SegmentSettings
from napari_unetvnet.settings.tiling import TilingSettings

__all__ = ["InspectJob"]

What = Literal["heatmaps", "attention", "reconstruction", "levels"]


class InspectJob(TilingSettings):
    """Show what a model computes besides its labels, as maps on the grid of an image."""

    image: str = Field(min_length=1)
    """Image file; the channel files of one image are separated by | (write || for a | in a name)."""
    channel_names: ChannelNames = ()
    """Names of the channels of the image in their order, by which they are matched with those of the model (default:
    the names of its channel files)."""
    model: str = Field(min_length=1)
    """Name of a model (see the models command) or a .safetensors file."""
    what: Annotated[tuple[What, ...], BeforeValidator(numbers)] = ()
    """What to show: heatmaps (mean magnitude of each level's activations), attention maps, the reconstruction by an
    autoencoder branch, or the probabilities of all levels with deep supervision (default: all that the model has)."""
    output: Path | None = None
    """Folder for the maps, a file for each, and index.json, which describes them."""
    overwrite: bool = False
    """Replace also a file or folder that this program did not write, or that was changed since."""
    ending: str | None = Field(
        None,
        description=f"Ending of the files, one of {listed(endings_for('probabilities'))} (default: that of the image, "
        "or .tif where it cannot hold maps).",
    )
    precision: Precision = "fp32"
    """Number format of the network; fp16 is for GPUs only."""
    spacing: Spacing | None = None
    """Voxel size z y x for an image whose file has none."""
    unit: str = "pixel"
    """Unit of that voxel size, such as micrometer or mm."""
    axes: Axes | None = None
    """Axes of the arrays in TIFF, npy, Zarr and HDF5 files that do not say it, such as zyx or cyx (c is channels)."""

    @model_validator(mode="after")
    def _ending_is_written(self) -> Self:
        kind = format_of(f"map{self.ending}")
        is_written = kind is not None and kind.writes("probabilities") and ending_of(f"map{self.ending}") == self.ending
        if self.ending is not None and not is_written:
            raise ValueError(f"Maps cannot be written as {self.ending}; use {listed(endings_for('probabilities'))}.")
        return self

    @model_validator(mode="after")
    def _inputs_stay(self) -> Self:
        if problem := replaced_input([self.output] if self.output else [], (self.image, self.model)):
            raise ValueError(problem)
        return self

    @property
    def tiling(self) -> SegmentSettings:
        """How tiles lie and are blended, as settings of a segmentation."""
        return SegmentSettings(**{name: getattr(self, name) for name in TilingSettings.model_fields}, compile="no")
