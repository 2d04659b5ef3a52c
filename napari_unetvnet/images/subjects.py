"""HDF5 sets of subjects with several modalities: which images they hold, and where each was cut out.

A set holds ``data`` (N, C, Z, Y, X) and, with labels, ``truth`` (N, 1, Z, Y, X), or ``subjects/ID/data`` (C, Z, Y, X)
where the sizes differ. The image of a subject is named ``set.h5:/data[3]``, or as any dataset.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.declared import check_decoded, check_shape
from napari_unetvnet.images.formats import format_of
from napari_unetvnet.images.formats.hdf5_checks import opened_set
from napari_unetvnet.images.geometry import Geometry, spacing_of
from napari_unetvnet.images.orientation import original_axes
from napari_unetvnet.images.resample import Resampled
from napari_unetvnet.images.sources import split_dataset
from napari_unetvnet.images.stored_geometry import as_geometry
from napari_unetvnet.images.volume import Box, Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple

__all__ = [
    "AXES",
    "Placement",
    "modalities_of",
    "placement_of",
    "settings_of",
    "subject_ids",
    "subject_number",
    "subjects_of",
]

HDF5 = ".h5"
"""An ending of the format of sets."""
AXES = "NCZYX"
"""Value of the attribute "axes" of a set that the convert command made."""
MOST_SUBJECTS = 1 << 20
AGAIN = "make the set again (napari-unetvnet convert)"
SUBJECT = re.compile(r"/?(?:data|truth)\[(\d+)\]|/?subjects/(.+)/(?:data|truth)")


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the image of a subject lies in the files that it was made of.

    Parameters
    ----------
    box : Box
        The part that was cut out of the original grid.
    shape : tuple of 3 int
        Voxels z, y, x of the original grid.
    orientation : array of shape (3, 2)
        Of the original axes, as `orientation_of` gives it.
    geometry : Geometry
        Of the original grid, with all that the format of its file says of it.
    ending : str
        Of the first of the original files; empty if that is not known.
    """

    box: Box
    shape: Triple
    orientation: NDArray[np.float64]
    geometry: Geometry
    ending: str = ""

    @property
    def cut_shape(self) -> Triple:
        """Voxels z, y, x of the part on the canonical axes, before it was resized."""
        edges = dict(zip(self.orientation[:, 0].astype(int), self.box.shape[::-1], strict=True))
        return edges[2], edges[1], edges[0]

    def put_back(self, labels: Any, like: Volume) -> tuple[NDArray[Any], Volume]:
        """Put labels back on the original grid; outside the part they are 0.

        Parameters
        ----------
        labels : array of shape (Z, Y, X) or (K, Z, Y, X)
            On the grid of the set.
        like : Volume
            The image in the set.

        Returns
        -------
        labels : array
        like : Volume
            With the original grid, for writing; its data cannot be used.
        """
        masks = np.asarray(labels).reshape(-1, *labels.shape[-3:])
        part = original_axes(Resampled(masks, self.cut_shape, "nearest")[:], self.orientation)
        whole = np.zeros((len(masks), *self.shape), masks.dtype)
        whole[(slice(None), *self.box.slices)] = part
        grid = np.broadcast_to(np.zeros((), np.uint8), (1, *self.shape))
        placed = replace(like, data=grid, geometry=self.geometry)
        return whole.reshape(*labels.shape[:-3], *self.shape), placed


def subjects_of(source: str) -> list[tuple[str, str]]:
    """List the subjects of a set.

    Parameters
    ----------
    source : str
        A file.

    Returns
    -------
    list of (str, str)
        Sources of the image and of the labels, empty without; no rows if the file is not a set.

    Raises
    ------
    FileProblem
        If it declares more than a set can hold.
    """
    path, inside = split_dataset(Path(source).expanduser())
    kind = format_of(path)
    if inside or kind is None or HDF5 not in kind.endings or not path.is_file():
        return []
    import h5py

    with opened_set(path) as file:
        if isinstance(file.get("subjects"), h5py.Group):
            groups = file["subjects"]
            return [
                (f"{path}:/subjects/{name}/data", f"{path}:/subjects/{name}/truth" if "truth" in groups[name] else "")
                for name in groups
            ]
        data, truth = file.get("data"), file.get("truth")
        if not isinstance(data, h5py.Dataset) or data.ndim != 5:
            return []
        check_shape(path, data.shape, data.dtype)
        if data.shape[0] > MOST_SUBJECTS:
            raise FileProblem(f"{path.name} declares {data.shape[0]} images; at most {MOST_SUBJECTS} are read.")
        numbers = range(data.shape[0])
        return [(f"{path}:/data[{i}]", f"{path}:/truth[{i}]" if truth is not None else "") for i in numbers]


def subject_ids(source: str) -> list[str]:
    """List the names of the subjects of a set, in the order of `subjects_of`; empty where it has none."""
    path, _ = split_dataset(Path(source).expanduser())
    import h5py

    with opened_set(path) as file:
        if isinstance(file.get("subjects"), h5py.Group):
            return list(file["subjects"])
        ids = file.get("subject_ids")
        names = [] if ids is None else [str(name) for name in ids.asstr()[:]]
        return names if len(names) == len(file["data"]) else []


def subject_number(file: Any, inside: str) -> int | None:
    """Give the row of a subject in the tables of a set.

    Parameters
    ----------
    file : h5py.File
    inside : str
        The image or labels of a subject, as `subjects_of` names them.

    Returns
    -------
    int or None
        None if it is not of a set that the convert command made.
    """
    match = SUBJECT.fullmatch(inside)
    if match is None or file.attrs.get("axes") != AXES:
        return None
    return int(match[1]) if match[1] else list(file["subject_ids"].asstr()[:]).index(match[2])


def modalities_of(source: str) -> tuple[str, ...]:
    """Give the names of the channels of a set that the convert command made, or of one of its subjects.

    Returns
    -------
    tuple of str
        Empty for any other image.
    """
    path, _ = split_dataset(Path(source).expanduser())
    kind = format_of(path)
    if kind is None or HDF5 not in kind.endings or not path.is_file():
        return ()
    with opened_set(path) as file:
        return tuple(map(str, file.attrs["modalities"])) if file.attrs.get("axes") == AXES else ()


def placement_of(source: str) -> Placement | None:
    """Read where the image of a subject was cut out.

    Parameters
    ----------
    source : str
        As `subjects_of` names it.

    Returns
    -------
    Placement or None
        None for an image that is not of a set that the convert command made.

    Raises
    ------
    FileProblem
        If it says of the image what cannot be.
    """
    path, inside = split_dataset(Path(source).expanduser())
    if not inside or not path.is_file():
        return None
    with opened_set(path) as file:
        if (i := subject_number(file, inside)) is None:
            return None
        start, stop, shape = (file[name][i].tolist() for name in ("crop_start", "crop_stop", "original_shape"))
        orientation, geometry = file["orientation"][i].astype(np.float64), _original_geometry(file, i)
        ending = str(file["original_ending"].asstr()[i]) if "original_ending" in file else ""
        _check_placement(path, inside, np.stack([start, stop, shape]), orientation)
        if fault := geometry.fault(shape):
            raise FileProblem(f"{path.name} says of {inside} that its file {fault}, which no image has; {AGAIN}.")
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return Placement(box, (shape[0], shape[1], shape[2]), orientation, geometry, ending)


def _check_placement(path: Path, inside: str, numbers: NDArray[Any], orientation: NDArray[np.float64]) -> None:
    """Refuse a part that is not inside its original grid, axes that are none, and a grid that does not fit into memory.

    Parameters
    ----------
    numbers : array of shape (3, 3)
        First voxel, end and grid, z, y, x.
    orientation : array of shape (3, 2)

    Raises
    ------
    FileProblem
    """
    start, stop, shape = numbers
    is_turned = orientation.shape == (3, 2) and sorted(orientation[:, 0]) == [0, 1, 2]
    is_turned = is_turned and bool((np.abs(orientation[:, 1]) == 1).all())
    if not is_turned or not ((start >= 0) & (start < stop) & (stop <= shape)).all():
        raise FileProblem(
            f"{path.name} says of {inside} that it is the part {start.tolist()} to {stop.tolist()} of {shape.tolist()} "
            f"voxels (z y x), turned in a way that cannot be; {AGAIN}."
        )
    check_shape(path, shape.tolist(), np.uint8)
    check_decoded(path, shape.tolist(), np.uint8)


def _original_geometry(file: Any, i: int) -> Geometry:
    """Give the geometry of the files of a subject; of earlier sets only the affine is known."""
    if "original_geometry" in file:
        return as_geometry(str(file["original_geometry"].asstr()[i]))
    affine = file["original_affine"][i]
    return Geometry(spacing_of(affine), str(file.attrs["unit"]), affine)


def settings_of(source: str) -> dict[str, Any]:
    """Give what the data set that a set was made of says of its labels, as settings of a training.

    Returns
    -------
    dict
        Empty for a set of others.
    """
    path, _ = split_dataset(Path(source).expanduser())
    with opened_set(path) as file:
        stored = (
            json.loads(file.attrs["settings"]) if file.attrs.get("axes") == AXES and "settings" in file.attrs else {}
        )
    return stored if isinstance(stored, dict) else {}
