"""A folder for each subject with a file for each modality, such as those of BraTS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.layouts.layout import Layout, folders_in, pair_files
from napari_unetvnet.images.names import has_label_word
from napari_unetvnet.images.pairs import MOST_NAMED, files_in, shortened
from napari_unetvnet.images.sources import stem_of

__all__ = ["SubjectImage", "images_in", "modality_of", "recognise"]

BRATS = (("t1", "t1ce", "t2", "flair"), ("t1n", "t1c", "t2w", "t2f"))
"""Modalities of the challenge until 2021, and since."""


class SubjectImage(NamedTuple):
    """The folder of a subject, its image (channel files separated by ``|``), and the files of its labels."""

    folder: Path
    image: str
    labels: list[str]


class _Subject(NamedTuple):
    """The files of a folder by modality, those of labels, and further ones of a modality that it has already."""

    folder: Path
    images: dict[str, str]
    labels: list[str]
    further: list[str]


def recognise(folder: Path) -> Layout | None:
    """Read a folder of subjects.

    Returns
    -------
    Layout or None

    Raises
    ------
    DataProblem
        If a subject has no labels or several, or lacks a modality that another has; one line each.
    """
    subjects = [subject for path in folders_in(folder) if (subject := _read(path)).images or subject.labels]
    if not any(subject.images and subject.labels for subject in subjects):
        return None
    modalities = _ordered({name for subject in subjects for name in subject.images})
    if lines := [line for subject in subjects for line in _faults(subject, modalities)]:
        raise DataProblem(*shortened(lines, MOST_NAMED), "Complete these subjects, or leave their folders out.")
    pairs = [("|".join(each.images[name] for name in modalities), each.labels[0]) for each in subjects]
    kind = "a BraTS folder" if modalities in BRATS else "a folder of subjects"
    sentence = f"{folder.name} is {kind} with {len(pairs)} subjects: channels {', '.join(modalities)}."
    return Layout(pair_files(pairs), sentence, modalities)


def images_in(folder: Path) -> list[SubjectImage]:
    """List the subjects of a folder that have images, whether they have labels or lack a modality or not.

    Returns
    -------
    list of SubjectImage
        With the modalities of each in one order; empty if a folder holds several images of one modality, so that it is
        not that of a subject.
    """
    read = [subject for path in folders_in(folder) if (subject := _read(path)).images]
    if any(subject.further for subject in read):
        return []
    order = _ordered({name for subject in read for name in subject.images})
    joined = ("|".join(each.images[name] for name in order if name in each.images) for each in read)
    return [SubjectImage(each.folder, image, each.labels) for each, image in zip(read, joined, strict=True)]


def modality_of(file: str, folder: str) -> str:
    """Give what a file name says beyond the name of its subject, in lower case: "t1ce" of p1/p1_t1ce.nii.gz.

    Parameters
    ----------
    folder : str
        Name of the folder of the subject.

    Returns
    -------
    str
    """
    stem = stem_of(Path(file)).casefold()
    beyond = re.fullmatch(rf"{re.escape(folder.casefold())}[ _.-]+(.+)", stem)
    return beyond[1] if beyond else re.split(r"[ _-]", stem)[-1]


def _read(folder: Path) -> _Subject:
    images, labels, further = dict[str, str](), list[str](), list[str]()
    for file in files_in(folder):
        stem = stem_of(Path(file))
        if has_label_word(stem):
            labels.append(file)
        elif (modality := modality_of(file, folder.name)) in images:
            further.append(file)
        else:
            images[modality] = file
    return _Subject(folder, images, labels, further)


def _ordered(names: set[str]) -> tuple[str, ...]:
    """Put modalities in the order of the challenge if they are its own, else by name."""
    return next((known for known in BRATS if set(known) == names), tuple(sorted(names)))


def _faults(subject: _Subject, modalities: tuple[str, ...]) -> list[str]:
    name = subject.folder.name
    lines = [f"{name} has no {modality}; others have." for modality in modalities if modality not in subject.images]
    lines += [f"{name} has several images of one modality, such as {Path(file).name}." for file in subject.further[:1]]
    if not subject.labels:
        lines.append(f"{name} has no labels; expected {name}_seg.nii.gz or the like.")
    if len(subject.labels) > 1:
        lines.append(f"{name} has several labels ({', '.join(Path(file).name for file in subject.labels)}).")
    return lines
