"""How to make one set of the files of many subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, model_validator

from napari_unetvnet.conventions import Triple
from napari_unetvnet.settings.base import Settings
from napari_unetvnet.settings.labels import numbers

__all__ = ["ConvertJob"]


class ConvertJob(Settings):
    """Make an HDF5 set of folders with a file for each modality."""

    folder: Path
    """Folder with a folder for each subject."""
    modalities: Annotated[tuple[str, ...], BeforeValidator(numbers)] = ()
    """Ends of the file names, one for each channel in order, such as t1 t1ce flair t2 for p1/p1_t1.nii.gz (default: all
    files of a subject, with its labels)."""
    labels: str = ""
    """End of the name of the label file, such as seg (default: no labels)."""
    label_kind: str = ""
    """Of a BIDS folder with several kinds of labels: which, by a word of their names such as lesion."""
    size: Triple | None = None
    """Voxels z y x to which all images are resized (default: they keep their sizes)."""
    standardise: bool = False
    """Subtract the mean of the set from each modality and divide by its standard deviation."""
    output: Path
    """Where to write the set (.h5)."""
    overwrite: bool = False
    """Replace also a file or folder that this program did not write, or that was changed since."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.labels and not self.modalities:
            raise ValueError("Labels were named without modalities; name both, or neither to take all files.")
        names = [name.casefold() for name in (*self.modalities, self.labels)]
        if len(set(names)) < len(names):
            raise ValueError(f"Modalities {' '.join(self.modalities)} and labels {self.labels} should all differ.")
        if not self.output.name.lower().endswith((".h5", ".hdf5")):
            raise ValueError(f"The set {self.output} should end in .h5 or .hdf5.")
        return self
