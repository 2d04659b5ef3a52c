"""What a segmentation reads: the image with the channels of the model, and its mask; of a series each time point."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.axes import UnclearAxes
from napari_unetvnet.images.series import Opened, opened
from napari_unetvnet.runs.channels import given_names, image_for

if TYPE_CHECKING:
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.settings import SegmentJob

__all__ = ["OneInput", "SegmentInputs"]


class OneInput(NamedTuple):
    """The whole image, the same with the channels of the model, its mask or None, and the channels that are missing."""

    whole: Volume
    volume: Volume
    mask: Any
    missing: tuple[int, ...]
    notices: list[str]


class SegmentInputs:
    """The open files of a segmentation.

    Parameters
    ----------
    job : SegmentJob
        Becomes the attribute with the axes that were found.
    card : ModelCard
        Of the model.

    Attributes
    ----------
    points : list of int
        The time points that are segmented; empty for a single image.
    notices : list of str
        What was understood of the axes.

    Raises
    ------
    UserError
        If a file cannot be read, or holds no image, or no such time points.
    """

    def __init__(self, job: SegmentJob, card: ModelCard) -> None:
        self.job, self._card, self.notices = job, card, list[str]()
        self._image = self._opened()
        self.points = self._image.points(self.job.time)
        self._mask = None if job.mask is None else opened(job.mask, self.job.axes or "")
        counts = [1 if each is None or each.time is None else each.time.points for each in (self._mask, self._image)]
        if self._mask is not None and counts[0] not in {1, counts[1]}:
            raise DataProblem(
                f"Mask {self._mask.name} holds {counts[0]} time points, and {self._image.name} {counts[1]}; give one "
                "mask, or one for each time point."
            )

    @property
    def count(self) -> int:
        """How many images there are: one, or that of each time point."""
        return max(1, len(self.points))

    def at(self, number: int) -> OneInput:
        """Read the image, or a chosen time point of a series.

        Parameters
        ----------
        number : int
            From 0 to `count`, exclusive.

        Returns
        -------
        OneInput
            The volumes say the time axis of results if these have one.

        Raises
        ------
        UserError
            If the channels are not those of the model, or the mask does not fit.
        """
        job, notices = self.job, list[str]()
        point = self.points[number] if self.points else None
        whole = self._image.volume(point, spacing=job.spacing, notices=notices)
        time = self._image.time.picked(self.points) if self._image.time and len(self.points) > 1 else None
        name = whole.name if time is None or number else self._image.volume_name
        whole = replace(whole, geometry=whole.geometry.completed(unit=job.unit), time=time, name=name)
        mask, told = self._mask_at(point, whole)
        names = given_names(job.image, job.channel_names, whole.channels, whole.channel_names)
        volume, missing, channels = image_for(self._card, whole, names)
        return OneInput(whole, volume, mask, missing, [*notices, *channels, *told])

    def _opened(self) -> Opened:
        """Open the image; the model decides which axes it has if only one reading fits it."""
        image = opened(self.job.image, self.job.axes or "")
        try:
            image.check_axes()
        except UnclearAxes as unclear:
            if not (axes := unclear.axes_for(self._card.channels)):
                raise
            self.job = self.job.model_copy(update={"axes": axes})
            reason = f"the model takes {self._card.channels} channel(s)"
            self.notices.append(unclear.reading_as(axes, reason))
            image = opened(self.job.image, axes)
        return image

    def _mask_at(self, point: int | None, image: Volume) -> tuple[Any, list[str]]:
        """Bring the mask to the grid of its image if their positions allow it, and say where it lies otherwise."""
        from napari_unetvnet.images.io import labels_of
        from napari_unetvnet.images.same_grid import brought_onto, difference

        if self._mask is None:
            return None, []
        mask = labels_of(self._mask, self.job.spacing, point=None if self._mask.time is None else point)
        placed = brought_onto(mask, image.grid)
        told = [f"Mask {mask.name} is stored along other axes than {image.name}, and was turned to them."]
        if placed is mask:
            found = difference(image.grid, mask.grid, image.name)
            told = [f"Mask {mask.name} {found.text}. It is used voxel by voxel as it is stored."] if found else []
        return placed.data, told
