"""The chosen layers when a button is pressed, and the files that they become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.time_axis import chosen_points, listed_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.widgets.channel import Channel

__all__ = ["IMAGES", "LABELS", "MASKS", "Files", "Snapshot"]

IMAGES, LABELS, MASKS = "inputs/image", "inputs/labels", "inputs/mask"


@dataclass(frozen=True)
class Files:
    """Input paths of a run, relative to its folder; several of a kind are separated by ``|``."""

    image: str
    label: str = ""
    mask: str = ""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The chosen layers when the button is pressed.

    Parameters
    ----------
    labels : tuple of Channel
        One, or a mask for each class; empty for a segmentation.
    spacing : tuple of 3 float
        Voxel size z, y, x, of the whole transform of the first layer; z is 1 for a 2D image.
    unit : str
        Unit of the spacing.
    mask : Channel or None
        Voxels are ignored where it is 0.
    points : tuple of int
        The time points of a series that are used, each as an image of its own; empty for all, as one image.
    is_part : bool
        Whether the channels are those of the single time point in ``points``.
    """

    channels: tuple[Channel, ...]
    labels: tuple[Channel, ...]
    spacing: Spacing
    unit: str
    mask: Channel | None = None
    points: tuple[int, ...] = ()
    is_part: bool = False

    @property
    def name(self) -> str:
        """Name of the first image layer, for messages."""
        return self.channels[0].name

    @property
    def time_points(self) -> int:
        """Number of time points; 1 of a single image."""
        return self.channels[0].shape[0] if self.channels[0].is_series else 1

    @property
    def axes(self) -> str:
        """Axes of the written arrays, as `SegmentJob` names them."""
        axes = "zyx"[3 - len(self.channels[0].shape) + self.channels[0].is_series :]
        return f"t{axes}" if self.channels[0].is_series else axes

    def chosen(self, times: Sequence[str]) -> Snapshot:
        """Choose time points of a series, which become images of their own.

        Parameters
        ----------
        times : sequence of str
            Such as "0", "3" or "0:10:2".

        Returns
        -------
        Snapshot
            The same for a single image.

        Raises
        ------
        DataProblem
            If there are no such time points, or there are labels of a single one only.
        """
        if self.time_points == 1:
            return self
        points = tuple(chosen_points(times, self.time_points, self.name))
        single = next((each.name for each in self.labels if not each.is_series), "")
        if single and len(points) > 1:
            raise DataProblem(
                f"{single} has no time axis, so it belongs to one time point, but {len(points)} of {self.name} are "
                "chosen; choose one (time, under Advanced), or paint on a labels layer that was added to this image."
            )
        return replace(self, points=points)

    @property
    def parts(self) -> list[Snapshot]:
        """Each chosen time point as an image of its own; the image itself if none are chosen."""
        return [self._at(point) for point in self.points] if self.points and not self.is_part else [self]

    @property
    def points_text(self) -> str:
        """The chosen time points in words."""
        return f"time point{'s' if len(self.points) > 1 else ''} {listed_points(self.points)}"

    def _at(self, point: int) -> Snapshot:
        labels = tuple(each.at(point) if each.is_series else each for each in self.labels)
        mask = self.mask.at(point) if self.mask is not None and self.mask.is_series else self.mask
        channels = tuple(each.at(point) for each in self.channels)
        return replace(self, channels=channels, labels=labels, mask=mask, points=(point,), is_part=True)

    @property
    def training_files(self) -> dict[str, Any]:
        """The inputs of a training that `layers.write` writes, as plain values: an image for each chosen time point."""
        files = [part.files for part in self.parts]
        masks = [each.mask for each in files if each.mask]
        listed = {"image": [each.image for each in files], "label": [each.label for each in files], "mask": masks}
        return listed | {"in_order": len(files) > 1}

    @property
    def files(self) -> Files:
        """Paths that `layers.write` uses: named after the layers, because messages of a run name files."""
        end = f"_t{self.points[0]}.npy" if self.is_part else ".npy"
        image = _file_names([self.name])[0]
        channels = [f"{IMAGES}/{image}{f'-{i}' if i else ''}{end}" for i in range(len(self.channels))]
        labels = [f"{LABELS}/{name}{end}" for name in _file_names([label.name for label in self.labels])]
        mask = f"{MASKS}/{_file_names([self.mask.name])[0]}{end}" if self.mask else ""
        return Files("|".join(channels), "|".join(labels), mask)


def _file_names(names: Sequence[str]) -> list[str]:
    """Convert layer names to unique file names."""
    unique: list[str] = []
    for name in names:
        clean = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]
        while clean.lower() in map(str.lower, unique):
            clean += "_"
        unique.append(clean)
    return unique
