"""Folders that follow BIDS: an image of each subject, and labels of the same entities in derivatives."""

from __future__ import annotations

from pathlib import Path

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.layouts.layout import Layout, all_files, folders_in, pair_files
from napari_unetvnet.images.names import has_label_word
from napari_unetvnet.images.pairs import find_pairs
from napari_unetvnet.images.sources import stem_of

__all__ = ["recognise"]

DERIVATIVES, SUBJECT = "derivatives", "sub-"


def recognise(folder: Path) -> Layout | None:
    """Read a BIDS folder.

    Images without labels, such as those of another contrast, are left out.

    Returns
    -------
    Layout or None

    Raises
    ------
    DataProblem
        If labels are in several folders of derivatives, or do not belong to one image each.
    """
    subjects = [path for path in folders_in(folder) if path.name.startswith(SUBJECT)]
    if not subjects or not (folder / DERIVATIVES).is_dir():
        return None
    labels = _labels(folder / DERIVATIVES)
    if not labels:
        return None
    images = all_files(subjects)
    pairs = find_pairs(images, labels, images_may_lack=True)
    used = sum(image.count("|") + 1 for image, _ in pairs)
    left = f"; {len(images) - used} image files without labels are left out" if len(images) > used else ""
    return Layout(pair_files(pairs), f"{folder.name} is a BIDS folder with {len(pairs)} labelled images{left}.")


def _labels(derivatives: Path) -> list[str]:
    """List the label files of the folder named labels, or of the only one that holds any."""
    sets = {path.name: all_files([path]) for path in folders_in(derivatives)}
    if sets.get("labels"):
        return sets["labels"]
    named = {name: [f for f in files if has_label_word(stem_of(Path(f)))] for name, files in sets.items()}
    found = [name for name, files in named.items() if files]
    if len(found) < 2:
        return named[found[0]] if found else []
    raise DataProblem(
        f"{derivatives} has labels in {', '.join(found)}; list the pairs of images and labels in a CSV file (--pairs)."
    )
