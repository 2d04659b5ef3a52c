"""What earlier models did with the images of a training, remembered by content: what was trained on and held out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_unetvnet.data.boxes import from_numbers, intersection, numbers, on_grid, subtract
from napari_unetvnet.images.identity import content_hash, original_shape
from napari_unetvnet.images.volume import Box
from napari_unetvnet.model.card import ImageRecord, read_card

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_unetvnet.data.patches import TrainingData
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import Normalisation

__all__ = ["KnownImages", "Role", "all_learnt", "known_images", "records"]


@dataclass(frozen=True)
class Role:
    """What earlier models did with an image: boxes in its voxels that were trained on, and that are held out."""

    trained: list[Box]
    held_out: list[Box]


@dataclass(frozen=True)
class KnownImages:
    """The images that a model and those it started from were trained on.

    Parameters
    ----------
    model : str
        Name of the model file; empty if a training starts anew.
    images : list of ImageRecord
    by_position : tuple
        The split by position of a model from before images were recorded.
    resumed : bool
        Whether the model is that of the run itself.
    normalisation : Normalisation or None
        That of the run itself.
    """

    model: str = ""
    images: list[ImageRecord] = field(default_factory=list)
    by_position: tuple[tuple[int, ...], ...] = ()
    resumed: bool = False
    normalisation: Normalisation | None = None

    def role(self, image: Volume) -> Role | None:
        """Give the role that an image had; None for a new one."""
        if not self.images:
            return None
        content, shape = content_hash(image), original_shape(image)
        known = next((each for each in self.images if (each.content, each.shape) == (content, shape)), None)
        if known is None:
            return None
        trained = [on_grid(from_numbers(row), shape, image.shape, outward=True) for row in known.trained]
        held_out = [on_grid(from_numbers(row), shape, image.shape, outward=False) for row in known.held_out]
        return Role(trained, held_out)

    def role_at(self, images: Sequence[Volume], number: int) -> Role | None:
        """Give the role of an image by its position, for a model from before images were recorded."""
        if len(self.by_position) != len(images) or len(self.by_position[number]) != 12:
            return None
        row = self.by_position[number]
        trained, held_out = from_numbers(row[:6]), from_numbers(row[6:])
        whole = Box((0, 0, 0), images[number].shape)
        inside = all(intersection(box, whole) == box for box in (trained, held_out))
        return Role([trained], [held_out]) if inside else None


def known_images(model: Path | None, *, resumed: bool = False) -> KnownImages:
    """Read from the card of a model what it did with which image.

    Parameters
    ----------
    model : Path or None
        The model that a training starts from, or that of a run which is resumed; None for neither.

    Returns
    -------
    KnownImages

    Raises
    ------
    FileProblem
        If there is no such file.
    ModelProblem
        If it is not a model file.
    """
    if model is None:
        return KnownImages()
    card = read_card(model)
    return KnownImages(model.name, list(card.images), card.split, resumed)


def records(data: TrainingData, images: Sequence[Volume]) -> tuple[ImageRecord, ...]:
    """Describe for the card what was done with each image, by this training and those before.

    Parameters
    ----------
    images : sequence of Volume
        Those of the training.

    Returns
    -------
    tuple of ImageRecord
        Images that only earlier models were trained on come last.
    """
    # A training that starts from a model starts from its weights before the final fit.
    earlier = {record.content: record.model_copy(update={"fitted": ()}) for record in data.known}
    described: dict[str, ImageRecord] = {}
    for i, image in enumerate(images):
        content, shape = content_hash(image), original_shape(image)
        train, hold_out = data.parts(i)
        # A voxel that is partly in a box counts as trained on, and not as held out.
        trained = [on_grid(box, image.shape, shape, outward=True) for box in train]
        held_out = [on_grid(box, image.shape, shape, outward=False) for box in hold_out]
        if before := described.get(content) or earlier.get(content):
            trained = _joined(map(from_numbers, before.trained), trained)
        if twin := described.get(content):
            held_out = _joined(map(from_numbers, twin.held_out), held_out)
        described[content] = ImageRecord(
            content=content,
            name=image.name,
            shape=shape,
            trained=tuple(map(numbers, trained)),
            held_out=tuple(map(numbers, subtract(held_out, trained))),
        )
    return (*described.values(), *(record for content, record in earlier.items() if content not in described))


def all_learnt(images: Sequence[ImageRecord], fitted: Sequence[Volume]) -> tuple[ImageRecord, ...]:
    """Add to the records of a model that its final fit learnt the rest of some images.

    Parameters
    ----------
    images : sequence of ImageRecord
    fitted : sequence of Volume
        Those of the training.

    Returns
    -------
    tuple of ImageRecord
    """
    contents, described = {content_hash(image) for image in fitted}, []
    for record in images:
        rest = subtract([Box((0, 0, 0), record.shape)], map(from_numbers, record.trained))
        learnt = record.content in contents
        described.append(record.model_copy(update={"fitted": tuple(map(numbers, rest))}) if learnt else record)
    return tuple(described)


def _joined(boxes: Iterable[Box], more: Sequence[Box]) -> list[Box]:
    """Add boxes to others without overlap."""
    known = list(boxes)
    return [*known, *subtract(more, known)]
