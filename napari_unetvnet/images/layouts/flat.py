"""Labels beside their images in one folder, such as those of CHASE_DB1: Image_01L.jpg and Image_01L_1stHO.png."""

from __future__ import annotations

import re
from pathlib import Path

from napari_unetvnet.images.layouts.layout import Layout, pair_files
from napari_unetvnet.images.names import has_label_word, of_second_observer
from napari_unetvnet.images.pairs import files_in, find_pairs
from napari_unetvnet.images.sources import stem_of

__all__ = ["recognise"]

OF_OBSERVERS = re.compile(r"manual\d*|1st[ _-]?(ho|manual)", re.IGNORECASE)
OF_VIEWS = re.compile(r"[ _.-](fov[ _-]?)?(mask|fov)s?$", re.IGNORECASE)
"""Beside labels of an observer, these are masks of the field of view."""


def recognise(folder: Path) -> Layout | None:
    """Read a folder with images and labels.

    Labels of a second observer are left out; masks beside labels of an observer say where nothing is learnt.

    Returns
    -------
    Layout or None

    Raises
    ------
    DataProblem
        If images and labels cannot be paired.
    """
    stems = {file: stem_of(Path(file)) for file in files_in(folder)}
    second = [file for file, stem in stems.items() if of_second_observer(stem)]
    labels = [file for file, stem in stems.items() if has_label_word(stem) and file not in second]
    images = [file for file in stems if file not in labels and file not in second]
    if not images or not labels:
        return None
    observed = any(OF_OBSERVERS.search(stems[file]) for file in labels)
    views = [file for file in labels if observed and OF_VIEWS.search(stems[file])]
    pairs = find_pairs(images, [file for file in labels if file not in views])
    masks = dict(find_pairs([image for image, _ in pairs], views, ("images", "masks"))) if views else {}
    said = f"{folder.name} holds {len(pairs)} images with labels beside them"
    said += f"; nothing is learnt where {Path(views[0]).name} and the like are 0" if views else ""
    said += f"; {len(second)} labels of a second observer are left out" if second else ""
    return Layout(pair_files(pairs, masks), f"{said}.")
