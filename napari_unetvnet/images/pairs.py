"""Pair images with labels: by name, in order, or from a table."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from napari_unetvnet.errors import DataProblem, FileProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.volume import Volume


from napari_unetvnet.images.formats import endings, listed
from napari_unetvnet.images.sources import existing, is_folder, paths_of, stem_of

__all__ = ["Pair", "PairFiles", "find_pairs", "read_pairs_csv", "resolve"]

# Words in file names that distinguish images from labels, as in "a_seg", "mask-a", "a.labels", "21_manual1".
WORDS = (
    r"labels?|masks?|seg(mentation|mented)?|gt|truth|pred(iction)?|result|annotations?|objects|images?|img|raw|"
    r"training|test|manual\d*|1stHO|2ndHO"
)
AFFIX = re.compile(rf"^({WORDS})[ _.-]+|[ _.-]+({WORDS})$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Pair:
    """An image with its labels.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X), or (K, Z, Y, X) with a mask for each class
    split : {"", "train", "val"}
        Chosen by the user; "" leaves it to `prepare_data`.
    mask : Volume, data of shape (1, Z, Y, X), or None
        Voxels are ignored where it is 0.
    """

    image: Volume
    labels: Volume
    split: str = ""
    mask: Volume | None = None


@dataclass(frozen=True)
class PairFiles:
    """An image and its labels, as files, and their split.

    Parameters
    ----------
    image, label : str
        Absolute paths; the channel files of one image are separated by ``|``.
    split : {"train", "val", ""}
        Empty if training decides.
    mask : str
        Absolute path of a mask; empty if there is none.
    """

    image: str
    label: str
    split: Literal["train", "val", ""] = ""
    mask: str = ""


def find_pairs(images: Sequence[str], labels: Sequence[str], kind: str = "labels") -> list[tuple[str, str]]:
    """Pair images with labels, or with masks, by name.

    Parameters
    ----------
    images, labels : sequence of str
        Files, channel files separated by ``|``, or folders, for all readable images in them, sorted. Names match if
        they differ only in the ending and in words as in "a_seg", "mask_a", "image_a". One image and one file of labels
        are a pair whatever their names are.
    kind : str
        What the labels are, for messages.

    Returns
    -------
    list of (str, str)
        Image and labels, in the order of the images.

    Raises
    ------
    FileProblem
        If a file does not exist, or a folder holds no image.
    DataProblem
        If the numbers differ, a file is on both sides, or files cannot be paired by name.
    """
    image_files, label_files = ([file for entry in entries for file in _expand(entry)] for entries in (images, labels))
    if len(image_files) != len(label_files):
        raise DataProblem(
            f"There are {len(image_files)} images but {len(label_files)} {kind}; give one file of {kind} each."
        )
    if shared := sorted(set(image_files) & set(label_files)):
        raise DataProblem(f"{shared[0]} is given both as image and as {kind}; give different files.")
    candidates = [_partners(label, image_files) for label in label_files]
    matched = [indices[0] for indices in candidates if len(indices) == 1]
    if len(set(matched)) == len(label_files):
        return sorted(
            zip((image_files[i] for i in matched), label_files, strict=True),
            key=lambda pair: image_files.index(pair[0]),
        )
    if len(image_files) == 1:
        return [(image_files[0], label_files[0])]
    free = [paths_of(image)[0].name for i, image in enumerate(image_files) if matched.count(i) != 1]
    unpaired = [
        paths_of(label)[0].name
        for label, indices in zip(label_files, candidates, strict=True)
        if len(indices) != 1 or matched.count(indices[0]) > 1
    ]
    raise DataProblem(
        f"These images and {kind} cannot be paired by name: {_some(free)} and {_some(unpaired)}. Name {kind} like "
        "their images (a.tif and a_labels.tif), or list the files in a CSV file of pairs (--pairs)."
    )


def read_pairs_csv(path: str | Path) -> list[PairFiles]:
    """Read a table of pairs.

    Parameters
    ----------
    path : str or Path
        CSV file with the columns image, label and, optionally, split and mask. Paths are relative to its folder.

    Returns
    -------
    list of PairFiles

    Raises
    ------
    FileProblem
        If the file is missing, empty, not text, or lacks a column.
    DataProblem
        If a row lacks a path or has another split than train, val or none.
    """
    path = existing(Path(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        delimiter = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
        table = csv.reader(lines, delimiter=delimiter)
        header = [name.strip().lower() for name in next(table, [])]
        rows = [(table.line_num, dict(zip(header, map(str.strip, row), strict=False))) for row in table if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise FileProblem(f"{path} is not a CSV table ({error}); save it as text in UTF-8.") from error
    if missing := {"image", "label"} - set(header):
        raise FileProblem(f"{path} has no column {' and no column '.join(sorted(missing))}; its first row names them.")
    if not rows:
        raise FileProblem(f"{path} lists no pairs; add a row with an image and a label file.")
    return [_pair(row, f"{path}, row {number}", path.parent) for number, row in rows]


def resolve(source: str, folder: Path) -> str:
    """Make the paths of a source absolute.

    Parameters
    ----------
    source : str
        One file or several, separated by ``|``.
    folder : Path
        Base of relative paths.

    Returns
    -------
    str
    """
    return "|".join(str(folder.absolute() / path) for path in paths_of(source))


def _pair(row: dict[str, str], position: str, folder: Path) -> PairFiles:
    """Check one row of a table of pairs."""
    split = row.get("split", "").lower()
    if not row.get("image") or not row.get("label"):
        raise DataProblem(f"{position}: image or label is empty; give both files.")
    if split not in {"train", "val", ""}:
        raise DataProblem(f"{position}: split is {split!r}; write train or val, or leave it empty.")
    mask = resolve(row["mask"], folder) if row.get("mask") else ""
    files = resolve(row["image"], folder), resolve(row["label"], folder)
    return PairFiles(*files, split=cast("Literal['train', 'val', '']", split), mask=mask)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _expand(entry: str) -> list[str]:
    """List the images of a folder; a file stands for itself."""
    folder = Path(entry).expanduser()
    if not is_folder(folder):
        return ["|".join(str(existing(path)) for path in paths_of(entry))]
    files = sorted(
        f for f in folder.iterdir() if f.name.lower().endswith(endings()) and f.name[0] != "." and not is_folder(f)
    )
    if not files:
        raise FileProblem(f"Folder {folder} holds no image; expected files ending in {listed(endings())}.")
    return [str(file) for file in files]


def _partners(label: str, images: list[str]) -> list[int]:
    """Find the images with the name of a label file: the same name, else the same without added words."""
    stems = [{stem_of(path) for path in paths_of(image)} for image in images]
    stem = stem_of(Path(label))
    exact = [i for i, names in enumerate(stems) if stem in names]
    return exact or [i for i, names in enumerate(stems) if _identity(stem) in map(_identity, names)]


def _identity(stem: str) -> str:
    """Leave out all words around the name of a subject."""
    shorter = AFFIX.sub("", stem)
    return stem if shorter == stem else _identity(shorter)
