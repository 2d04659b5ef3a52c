"""Folders of images with labels as they are distributed: a row for each kind, each with a function that recognises it.

A kind says which images and labels belong together, in one sentence what it was taken for, and what its own description
says of the labels. The first row that recognises a folder counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.layouts import bids, flat, nnunet, subfolders, subjects
from napari_unetvnet.images.layouts.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["LAYOUTS", "Layout", "recognise"]

LAYOUTS: tuple[tuple[str, Callable[[Path], Layout | None]], ...] = (
    ("nnU-Net (dataset.json, imagesTr, labelsTr)", nnunet.recognise),
    ("BIDS (sub-*, derivatives/labels)", bids.recognise),
    ("folders of images and of labels (images, labels; DRIVE)", subfolders.recognise),
    ("a folder for each subject (p1/p1_t1.nii.gz, p1/p1_seg.nii.gz; BraTS)", subjects.recognise),
    ("labels beside the images (a.tif, a_labels.tif; CHASE_DB1)", flat.recognise),
)
"""What each kind is called in messages, and the function that gives its pairs, or None for a folder of another kind."""


def recognise(folder: Path, label_kind: str = "") -> Layout:
    """Recognise images with labels in a folder.

    Parameters
    ----------
    label_kind : str
        Which labels, where a BIDS folder has several kinds.

    Returns
    -------
    Layout

    Raises
    ------
    DataProblem
        If it is of no known kind, or something lacks in it.
    """
    if label_kind and (layout := bids.recognise(folder, label_kind)) is not None:
        return layout
    for _, read in LAYOUTS:
        if (layout := read(folder)) is not None:
            return layout
    kinds = "; ".join(name for name, _ in LAYOUTS)
    raise DataProblem(
        f"{folder} holds no labels that belong to its images. Give --label, or a folder of one of these kinds: {kinds}."
    )
