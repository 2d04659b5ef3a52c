"""A folder of images beside a folder of labels, such as images and labels, or images, 1st_manual and mask of DRIVE."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.layouts.layout import Layout, folders_in, pair_files
from napari_unetvnet.images.names import has_label_word, of_second_observer
from napari_unetvnet.images.pairs import files_in, find_pairs

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["recognise"]

TRAINING = re.compile("train(ing)?", re.IGNORECASE)
OF_IMAGES = re.compile(r"(images?|imgs?|raw|inputs?|volumes?|scans?)([ _-]?tr(ain(ing)?)?)?", re.IGNORECASE)
OF_VIEWS = re.compile("(mask|fov|roi)s?", re.IGNORECASE)
"""Where there are other labels, these are masks of the field of view."""


def recognise(folder: Path) -> Layout | None:
    """Read a folder of images, one of labels, and perhaps one of masks.

    Labels of a second observer are left out; masks beside labels say where nothing is learnt.

    Returns
    -------
    Layout or None

    Raises
    ------
    DataProblem
        If there are several folders of labels, or images and labels cannot be paired.
    """
    inside = folders_in(folder)
    training = [path for path in inside if TRAINING.fullmatch(path.name)]
    if len(training) == 1 and (layout := recognise(training[0])) is not None:
        return Layout(layout.pairs, f"{folder.name}: {layout.sentence}")
    images = [path for path in inside if OF_IMAGES.fullmatch(path.name) and files_in(path)]
    others = [path for path in inside if path not in images and files_in(path)]
    labels = [path for path in others if has_label_word(path.name) and not of_second_observer(path.name)]
    views = [path for path in labels if OF_VIEWS.fullmatch(path.name)] if len(labels) > 1 else []
    labels = [path for path in labels if path not in views]
    if len(images) != 1 or not labels:
        return None
    if len(labels) > 1 or len(views) > 1:
        several = ", ".join(path.name for path in (*labels, *views))
        raise DataProblem(
            f"{folder} has several folders of labels ({several}); choose one with "
            f"--image {images[0]} --label {labels[0]}."
        )
    return _layout(folder, images[0], labels[0], views, [path for path in others if of_second_observer(path.name)])


def _layout(folder: Path, images: Path, labels: Path, views: list[Path], left: list[Path]) -> Layout:
    pairs = find_pairs([str(images)], [str(labels)])
    masks = dict(find_pairs([image for image, _ in pairs], [str(views[0])], ("images", "masks"))) if views else {}
    said = f"{folder.name} holds {len(pairs)} images in {images.name} with labels in {labels.name}"
    said += f"; nothing is learnt where {views[0].name} is 0" if views else ""
    said += f"; {left[0].name} (of a second observer) is left out" if left else ""
    return Layout(pair_files(pairs, masks), f"{said}.")
