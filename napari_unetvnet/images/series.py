"""The files of an image, opened: one volume, or a time series of which each time point is a volume.

Channel files are stacked here. What is large is read when it is sliced, so time points that are not used cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.axes import UnclearAxes
from napari_unetvnet.images.channels import stacked
from napari_unetvnet.images.geometry import UNKNOWN, UNKNOWN_UNIT, Grid, spacing_of
from napari_unetvnet.images.image_file import ImageFile, read_file
from napari_unetvnet.images.onto_grid import onto_grid
from napari_unetvnet.images.same_grid import difference
from napari_unetvnet.images.sources import at_time, existing, paths_of, split_time, stem_of
from napari_unetvnet.images.time_axis import TimeAxis, chosen_points
from napari_unetvnet.images.units import METRES
from napari_unetvnet.images.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.geometry import Geometry

__all__ = ["SWAPPED", "Opened", "opened"]

TURNED = {
    2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored", 5: "turned by 90 degrees and mirrored",
    6: "turned by 90 degrees", 7: "turned by 90 degrees and mirrored", 8: "turned by 90 degrees",
}  # fmt: skip
"""What the tag Orientation says that is to be shown."""
SAME_SIZE = 0.02
"""Share by which voxel sizes may differ that are taken as the same."""
SWAPPED = (5, 6, 7, 8)
"""The orientations in which rows and columns are exchanged."""


@dataclass(frozen=True, eq=False)
class Opened:
    """An image whose files are open.

    Parameters
    ----------
    source : str
        One file, or the channel files separated by ``|``.
    images : tuple of ImageFile
        Of each file.
    """

    source: str
    images: tuple[ImageFile, ...]

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return paths_of(self.source)

    @property
    def name(self) -> str:
        """Name of the first file, for messages."""
        return split_time(self.paths[0])[0].name

    @property
    def volume_name(self) -> str:
        """Name of the image, or of the whole series, as that of a volume."""
        return stem_of(self.paths[0])

    @property
    def time(self) -> TimeAxis | None:
        """The time points; None of a single image."""
        return self.images[0].time

    def check_axes(self) -> None:
        """Refuse an image whose first axis can be planes, channels or time points.

        Raises
        ------
        UnclearAxes
        """
        for path, image in zip(self.paths, self.images, strict=True):
            if image.unclear:
                raise UnclearAxes(path.name, image.unclear, len(self.images))

    def _check_colours(self) -> None:
        """Refuse intensities that are indices of a palette."""
        for path, image in zip(self.paths, self.images, strict=True):
            if image.palette:
                raise DataProblem(f"{path.name} has palette colours, not intensities; save it as grey values or RGB.")

    def points(self, times: Sequence[str]) -> list[int]:
        """List the time points that are chosen, by default all.

        Parameters
        ----------
        times : sequence of str
            Such as "0", "3" or "0:10:2".

        Returns
        -------
        list of int
            Empty for a single image.

        Raises
        ------
        DataProblem
            If there are no such time points.
        """
        if self.time is not None:
            return chosen_points(times or (":",), self.time.points, self.name)
        if not times or list(times) in ([":"], ["0"]):
            return []
        fourth = self.images[0].data.shape[0]
        asked = f" or, if its {fourth} channels are time points, say so (--axes tzyx or tyx)" if fourth > 1 else ""
        raise DataProblem(f"{self.name} holds a single time point; leave out --time{asked}.")

    def volume(
        self,
        point: int | None = None,
        *,
        spacing: Spacing | None = None,
        palette: bool = False,
        notices: list[str] | None = None,
    ) -> Volume:
        """Stack the channel files.

        Parameters
        ----------
        point : int, optional
            The time point of a series.
        spacing : tuple of 3 float, optional
            Voxel size (z, y, x) for files without one.
        palette : bool
            Whether numbers are wanted as they are stored, as of labels: indices of a palette, and those of which 0 is
            white.
        notices : list of str, optional
            As for `io.read_volume`.

        Returns
        -------
        Volume, data of shape (C, Z, Y, X)

        Raises
        ------
        DataProblem
            If the channels differ in grid, colours are those of a palette, or no time point of a series is named.
        """
        if point is not None:
            source = at_time(self.source, point)
            images = tuple(each.at(point, path.name) for path, each in zip(self.paths, self.images, strict=True))
            return Opened(source, images).volume(spacing=spacing, palette=palette, notices=notices)
        if self.time is not None:
            raise DataProblem(
                f"{self.name} holds {self.time.points} time points, 0 to {self.time.points - 1}; name one "
                f"({self.name}@t=0), or, in train and segment, choose some (--time 0 2 or --time 0:10:2) or all "
                "(--time :)."
            )
        paths = self.paths
        images = tuple(_placed(*each, spacing, notices) for each in zip(self.images, paths, strict=True))
        first = images[0]
        if not palette:
            self._check_colours()
        rest = zip(images[1:], paths[1:], strict=True)
        arrays = [first.data, *(_on_grid_of(first, paths[0], *each, notices) for each in rest)]
        data = arrays[0] if len(arrays) == 1 else stacked(arrays)
        if palette and first.inverted:  # numbers of labels have no brightness
            data = data.dtype.type(first.inverted) - np.asarray(data[...])
        placed = next((each.geometry for each in images if each.geometry.is_known), first.geometry)
        turned = first.orientation
        if notices is not None and turned != 1:
            notices.append(
                f"{paths[0].name} has the orientation tag {turned}, so viewers show it "
                f"{TURNED.get(turned, 'turned')}. It was read as it is stored; labels fit if they were made so, too."
            )
        if notices is not None and (text := _other_size(placed, data.shape[1:], paths[0].name)):
            notices.append(text)
        names = first.channel_names if len(paths) == 1 and len(first.channel_names) == data.shape[0] else ()
        names = names if len(set(names)) == len(names) else ()
        return Volume(data, placed.completed(spacing), stem_of(paths[0]), first.class_names, names, turned)


def opened(source: str | Path, axes: str = "") -> Opened:
    """Open the files of an image.

    Parameters
    ----------
    source : str or Path
        As for `io.read_volume`.
    axes : str
        Axes of the array in each file, such as "zyx" or "tcyx".

    Returns
    -------
    Opened

    Raises
    ------
    FileProblem
        If a file is missing, cut off, damaged or of another kind.
    DataProblem
        If the axes are not those of one image or series, or channel files hold other time points than the first.
    """
    paths = paths_of(source)
    images = tuple(read_file(existing(path), axes) for path in paths)
    counts = [1 if image.time is None else image.time.points for image in images]
    for path, count in zip(paths, counts, strict=True):
        if count != counts[0]:
            raise DataProblem(
                f"{path.name} holds {count} time point(s) and {paths[0].name} {counts[0]}; the channels of one image "
                "must have the same."
            )
    return Opened(str(source), images)


def _placed(image: ImageFile, path: Path, spacing: Spacing | None, notices: list[str] | None) -> ImageFile:
    """Refuse a geometry with numbers that no image has; where the voxel size is given, leave it out and tell."""
    shape, geometry = image.data.shape[1:], image.geometry
    if fault := geometry.fault(shape):
        if spacing is None:
            raise DataProblem(
                f"{path.name} {fault}, which no image has; give the size of its voxels instead (--spacing z y x), or "
                "correct its header."
            )
        if notices is not None:
            notices.append(f"{path.name} {fault}, which no image has; what it says of space was left out.")
        return image._replace(geometry=UNKNOWN)
    if notices is not None and geometry.unit not in {UNKNOWN_UNIT, *METRES}:
        notices.append(
            f"{path.name} states its voxel size in the unit {geometry.unit!r}, which is not known as a length; it is "
            "compared by its name, and not converted."
        )
    if all(np.isfinite(geometry.spacing)):
        return image
    z, y, x = (size if n > 1 else 1.0 for size, n in zip(geometry.spacing, shape, strict=True))
    return image._replace(geometry=replace(geometry, spacing=(z, y, x)))


def _other_size(geometry: Geometry, shape: Sequence[int], name: str) -> str:
    """Say that a file states one voxel size, and another one by its position; empty if it does not."""
    if geometry.affine is None:
        return ""
    stated, placed = geometry.spacing, spacing_of(geometry.affine)
    longer = [axis for axis, size in enumerate(shape) if size > 1]
    if np.allclose([stated[axis] for axis in longer], [placed[axis] for axis in longer], rtol=SAME_SIZE, atol=0):
        return ""
    sizes = [" x ".join(f"{edge:.4g}" for edge in row) for row in (stated, placed)]
    return (
        f"{name} states voxels of {sizes[0]} {geometry.unit} (z y x), which are used, but its affine says {sizes[1]}. "
        "If the affine is right, save the file with voxels of its size."
    )


def _on_grid_of(first: ImageFile, name: Path, image: ImageFile, path: Path, notices: list[str] | None) -> Any:
    """Give the array of a channel file on the grid of the first, or refuse it where no one can be told."""
    if notices is None and (found := difference(_grid(first), _grid(image), name.name)):
        raise DataProblem(
            f"{path.name} {found.text}; the channels of one image must have the same grid, so resample one to the "
            "other first."
        )
    placed, sentence = onto_grid(Volume(image.data, image.geometry, path.name), _grid(first), name.name)
    if notices is not None and sentence:
        notices.append(sentence)
    return placed.data


def _grid(image: ImageFile) -> Grid:
    z, y, x = image.data.shape[1:]
    return Grid((z, y, x), image.geometry)
