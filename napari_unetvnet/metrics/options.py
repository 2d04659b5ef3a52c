"""What a person can choose of a comparison, each declared once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_unetvnet.conventions import Axes, Spacing
from napari_unetvnet.settings import Settings
from napari_unetvnet.settings.class_names import ClassNames
from napari_unetvnet.settings.regions import Regions

__all__ = ["EvaluateSettings", "TruthIs"]

TruthIs = Literal["auto", "classes", "objects"]


class EvaluateSettings(Settings):
    """How to compare labels with the truth."""

    truth_is: TruthIs = "auto"
    """What values of the truth mean: classes, ids of single objects, or to be found out."""
    background: int = Field(0, ge=0)
    """Value of the truth that is background; it is compared with 0 in the prediction, as segment writes it."""
    class_names: ClassNames = ()
    """Names of the classes by label value, such as 1=cell 2=nucleus (default: those in the file of the prediction)."""
    ignore: int | None = None
    """Value of truth voxels to leave out."""
    regions: Regions = ()
    """Unions of classes to score, such as WT=1+2+4 TC=1+4 ET=4, which is the preset brats; with brats2023, enhancing
    tumour is 3."""
    iou_threshold: float = Field(0.5, gt=0, le=1)
    """IoU at which objects match."""
    no_surfaces: bool = False
    """Leave out surface Dice and distances, which take the most time."""
    tolerance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Distance up to which surfaces agree, in the unit of the spacing (default: the shortest voxel edge)."""
    spacing: Spacing | None = None
    """Voxel size z y x (default: as the file of the truth says, else 1)."""
    unit: str | None = None
    """Unit of that voxel size, such as micrometer or mm (default: as the file says, else pixel)."""
    axes: Axes | None = None
    """Axes of the arrays in TIFF, npy, Zarr and HDF5 files that do not say it, such as zyx."""
    case_voxels: int = Field(10, ge=0)
    """Of several cases, those with more voxels of a class than this have the class."""
