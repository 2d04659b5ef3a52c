"""Folders that follow BIDS: an image of each subject, and labels of the same entities in derivatives."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.formats import listed
from napari_unetvnet.images.layouts.layout import Layout, all_files, folders_in, pair_files
from napari_unetvnet.images.names import has_label_word
from napari_unetvnet.images.pairs import find_pairs
from napari_unetvnet.images.sources import paths_of, stem_of

__all__ = ["ANY_KIND", "recognise"]

DERIVATIVES, SUBJECT = "derivatives", "sub-"
ANY_KIND = "*"
"""Instead of a kind of labels: the first one, for those who only need the images."""
Labels = dict[str, list[str]]
"""Label files by their kind."""


def recognise(folder: Path, kind: str = "") -> Layout | None:
    """Read a BIDS folder.

    Images without labels, such as those of another contrast, are left out.

    Parameters
    ----------
    kind : str
        Of several kinds of labels of the same images: which, by a word of their names or the name of their folder.

    Returns
    -------
    Layout or None

    Raises
    ------
    DataProblem
        If there are several kinds of labels and none, or not one, is chosen; or labels do not belong to one image each.
    """
    subjects = [path for path in folders_in(folder) if path.name.startswith(SUBJECT)]
    if not subjects or not (folder / DERIVATIVES).is_dir():
        return None
    images = all_files(subjects)
    sets = _in_folders(folder / DERIVATIVES)
    of_folder = _chosen(folder, sets, kind if len(sets) > 1 else ANY_KIND)
    if not of_folder:
        return None
    kinds = _kinds(images, sets[of_folder])
    by_name = kind if of_folder.casefold() != kind.casefold() or len(sets) == 1 else ""
    own = _chosen(folder, kinds, by_name)
    pairs = find_pairs(images, kinds[own], images_may_lack=True)
    used = sum(len(paths_of(image)) for image, _ in pairs)
    left = f"; {len(images) - used} image files without labels are left out" if len(images) > used else ""
    others = [name for name in kinds if name != own]
    left += f"; labels {own} are used, not {listed(others)}" if others else ""
    return Layout(pair_files(pairs), f"{folder.name} is a BIDS folder with {len(pairs)} labelled images{left}.")


def _in_folders(derivatives: Path) -> Labels:
    """List the label files of the folder named labels, or else of each folder that holds any."""
    sets = {path.name: all_files([path]) for path in folders_in(derivatives)}
    if sets.get("labels"):
        return {"labels": sets["labels"]}
    named = {name: [f for f in files if has_label_word(stem_of(Path(f)))] for name, files in sets.items()}
    return {name: files for name, files in named.items() if files}


def _kinds(images: list[str], labels: list[str]) -> Labels:
    """Sort labels by what their names say beyond those of images; all are one kind if each image has one of them."""
    known = {word for image in images for word in stem_of(Path(image)).split("_")}
    kinds, entities = defaultdict[str, list[str]](list), list[tuple[str, ...]]()
    for label in labels:
        words = stem_of(Path(label)).split("_")
        kinds["_".join(word for word in words if word not in known)].append(label)
        entities.append(tuple(word for word in words if word in known))
    return dict(kinds) if len(set(entities)) < len(entities) else {"": labels}


def _chosen(folder: Path, kinds: Labels, kind: str) -> str:
    """Give the kind that is meant, by a word of its name; ask for one if there are several."""
    if len(kinds) < 2 or kind == ANY_KIND:
        return next(iter(kinds), "")
    wanted = kind.casefold()
    exact = [name for name in kinds if name.casefold() == wanted]
    found = exact or [name for name in kinds if wanted in re.split("[_-]", name.casefold())]
    if len(found) == 1:
        return found[0]
    rows = listed(f"{name} ({len(files)} files)" for name, files in kinds.items())
    said = f", and {kind!r} is {'not one' if not found else 'more than one'} of them" if kind else ""
    advice = f"Choose one, such as --label-kind {next(iter(kinds))}."
    raise DataProblem(f"{folder.name} has several kinds of labels: {rows}{said}. {advice}")
