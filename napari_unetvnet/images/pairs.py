"""Which labels belong to which image: by name, in order, or from a table."""

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

# Words around a name that tell images from labels, as in "a_seg", "mask-a", "a.labels".
WORDS = r"labels?|masks?|seg(mentation|mented)?|gt|truth|pred(iction)?|result|annotations?|objects|images?|img|raw"
AFFIX = re.compile(rf"^({WORDS})[ _.-]+|[ _.-]+({WORDS})$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Pair:
    """An image with its labels.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X), or (K, Z, Y, X) with a mask for each class
    split : {"", "train", "val"}
        Where the user wants it; "" leaves it to `prepare_data`.
    mask : Volume, data of shape (1, Z, Y, X), or None
        Voxels are ignored where it is 0.
    """

    image: Volume
    labels: Volume
    split: str = ""
    mask: Volume | None = None


@dataclass(frozen=True)
class PairFiles:
    """An image and its labels, as files, and where the pair belongs.

    Parameters
    ----------
    image, label : str
        Absolute paths; the channel files of one image are separated by ``|``.
    split : {"train", "val", ""}
        Empty where training decides.
    mask : str
        Absolute path of a mask; empty if there is none.
    """

    image: str
    label: str
    split: Literal["train", "val", ""] = ""
    mask: str = ""


def find_pairs(images: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str]]:
    """Pair images with labels, by name where names match, else in the given order.

    Parameters
    ----------
    images, labels : sequence of str
        Files, channel files separated by ``|``, or folders, which stand for all readable images in them, sorted.
        Names match if they are equal but for the ending and words such as in "a_seg", "mask_a", "image_a".

    Returns
    -------
    list of (str, str)
        Image and labels, in the order of the images.

    Raises
    ------
    FileProblem
        If a file does not exist, or a folder holds no image.
    DataProblem
        If the numbers differ, a file is on both sides, or a folder's files cannot be paired by name.
    """
    left, right = ([file for entry in entries for file in _expand(entry)] for entries in (images, labels))
    if len(left) != len(right):
        raise DataProblem(f"There are {len(left)} images but {len(right)} labels; give one label file for each image.")
    if both := sorted(set(left) & set(right)):
        raise DataProblem(f"{both[0]} is given both as image and as labels; keep images and labels apart.")
    hits = [_partners(label, left) for label in right]
    found = [hit[0] for hit in hits if len(hit) == 1]
    if len(set(found)) == len(right):
        return sorted(zip((left[i] for i in found), right, strict=True), key=lambda pair: left.index(pair[0]))
    if len(left) > 1 and any(is_folder(Path(entry)) for entry in (*images, *labels)):
        lost = [Path(label).name for label, hit in zip(right, hits, strict=True) if len(hit) != 1]
        lost += [paths_of(image)[0].name for i, image in enumerate(left) if found.count(i) != 1]
        raise DataProblem(
            f"These files cannot be paired by name: {', '.join(lost[:8])}{', ...' if len(lost) > 8 else ''}. "
            "Name labels like their images (a.tif and a_labels.tif), or list the files in a CSV file of pairs."
        )
    return list(zip(left, right, strict=True))


def read_pairs_csv(path: str | Path) -> list[PairFiles]:
    """Read a table of pairs.

    Parameters
    ----------
    path : str or Path
        CSV file with the columns image, label and, if wanted, split and mask. Paths are relative to its folder.

    Returns
    -------
    list of PairFiles

    Raises
    ------
    FileProblem
        If the file is missing, empty, no text, or lacks a column.
    DataProblem
        If a row lacks a path or has another split than train, val or none.
    """
    path = existing(Path(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        mark = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
        table = csv.reader(lines, delimiter=mark)
        header = [name.strip().lower() for name in next(table, [])]
        rows = [(table.line_num, dict(zip(header, map(str.strip, row), strict=False))) for row in table if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise FileProblem(f"{path} is no CSV table ({error}); save it as text in UTF-8.") from error
    if missing := {"image", "label"} - set(header):
        raise FileProblem(f"{path} has no column {' and no column '.join(sorted(missing))}; its first row names them.")
    if not rows:
        raise FileProblem(f"{path} lists no pairs; add a row with an image and a label file.")
    return [_pair(row, f"{path}, row {number}", path.parent) for number, row in rows]


def resolve(source: str, folder: Path) -> str:
    """Make each file of a source absolute.

    Parameters
    ----------
    source : str
        One file or several, separated by ``|``.
    folder : Path
        What relative paths start from.

    Returns
    -------
    str
    """
    return "|".join(str(folder.absolute() / path) for path in paths_of(source))


def _pair(row: dict[str, str], place: str, folder: Path) -> PairFiles:
    """Check one row of a table of pairs."""
    split = row.get("split", "").lower()
    if not row.get("image") or not row.get("label"):
        raise DataProblem(f"{place}: image or label is empty; give both files.")
    if split not in {"train", "val", ""}:
        raise DataProblem(f"{place}: split is {split!r}; write train or val, or leave it empty.")
    mask = resolve(row["mask"], folder) if row.get("mask") else ""
    files = resolve(row["image"], folder), resolve(row["label"], folder)
    return PairFiles(*files, split=cast("Literal['train', 'val', '']", split), mask=mask)


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
    """Find the images with the name of a label file: the very same, else the same but for added words."""
    stems = [{stem_of(path) for path in paths_of(image)} for image in images]
    stem = stem_of(Path(label))
    same = [i for i, names in enumerate(stems) if stem in names]
    return same or [i for i, names in enumerate(stems) if AFFIX.sub("", stem) in {AFFIX.sub("", n) for n in names}]
