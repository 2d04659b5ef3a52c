"""Files to volumes and labels to files, geometry intact.

A reader a format turns one file into `_Image`: the array as (C, Z, Y, X) and what the file says of space. All else is
the same for every format: channel files are stacked, labels are checked, results are written beside their place and
moved there when they are complete. A library's complaint about a bad file becomes one sentence, and a file that is cut
off is refused even where the library would fill the gap with zeros.

Spacing comes from the zooms and unit of NIfTI ("mm" where the file names none), from ImageJ or OME metadata of TIFF,
and is unknown in PNG, JPEG and npy files. What NIfTI and TIFF cannot say is converted (nm to mm) or left out.
"""

from __future__ import annotations

import csv
import os
import re
import struct
import tokenize
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.volume import Volume

__all__ = [
    "PairFiles",
    "check_writable",
    "find_pairs",
    "read_labels",
    "read_pairs_csv",
    "read_volume",
    "resolve",
    "write_labels",
    "write_probabilities",
]

Spacing = tuple[float, float, float]
Kind = Literal["labels", "probabilities", "model"]

METRES = {"nm": 1e-9, "micrometer": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "inch": 0.0254}
NIFTI_UNITS = {1: "m", 2: "mm", 3: "micrometer"}
ALIASES = {"": "pixel", "pixels": "pixel", "in": "inch", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm"}
ALIASES |= {"meter": "m"} | dict.fromkeys(("um", "µm", "micron", "microns", "micrometers", "micrometre"), "micrometer")
ARRAYS = (".nii.gz", ".nii", ".tif", ".tiff", ".npy")
READABLE = (*ARRAYS, ".png", ".jpg", ".jpeg")
WRITABLE: dict[Kind, tuple[str, ...]] = {"labels": (*ARRAYS, ".png"), "probabilities": ARRAYS, "model": (".safetensors",)}

# What the libraries raise on a file that is cut off, damaged or of another kind.
BAD_FILE = (OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError)
BAD_FILE += (SyntaxError, struct.error, zlib.error, tokenize.TokenError)
# What tifffile only logs although pixels or metadata are missing.
INCOMPLETE = re.compile("invalid (page|value) offset|corrupt|zeroed|incompletely|missing data|OME series expected")
# Words around a name that tell images from labels, as in "a_seg", "mask-a", "a.labels".
WORDS = r"labels?|masks?|seg(mentation)?|gt|annotations?|objects|images?|img|raw"
AFFIX = re.compile(rf"^({WORDS})[ _.-]+|[ _.-]+({WORDS})$", re.IGNORECASE)


class _Image(NamedTuple):
    """What a file holds: data (C, Z, Y, X) and its place in space, spacing None where the file says nothing."""

    data: Any
    spacing: Spacing | None = None
    unit: str = "pixel"
    affine: NDArray[np.float64] | None = None
    palette: bool = False


@dataclass(frozen=True)
class PairFiles:
    """An image and its labels, as files, and where the pair belongs.

    Parameters
    ----------
    image, label : str
        Absolute paths; the channel files of one image are separated by ``|``.
    split : {"train", "val", ""}
        Empty where training decides.
    """

    image: str
    label: str
    split: Literal["train", "val", ""] = ""


def read_volume(source: str | Path, spacing: Spacing | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    source : str or Path
        One file, or the channel files of one image separated by ``|``. Colours become channels, alpha is dropped;
        the fourth axis of NIfTI is channels; npy is (Y, X), (Z, Y, X) or (C, Z, Y, X).
    spacing : tuple of 3 float, optional
        Voxel size (z, y, x) for files that carry none; their unit stays "pixel".

    Returns
    -------
    Volume, data of shape (C, Z, Y, X)
        Memory-mapped, copy on write, where the file allows. Named after the first file, without its ending.

    Raises
    ------
    FileProblem
        If a file is missing, cut off, damaged or of another kind.
    DataProblem
        If the channels differ in grid, or the axes are not those of one 2D or 3D image.
    """
    return _load(source, spacing, palette=False)


def read_labels(source: str | Path, spacing: Spacing | None = None) -> Volume:
    """Read labels: one whole number of 0 or more for each voxel.

    Parameters
    ----------
    source : str or Path
        One file. Floats are taken if all are whole numbers (to 1e-4, the noise of scaled NIfTI), colours if all
        channels are equal, the numbers behind the colours of a palette.
    spacing : tuple of 3 float, optional
        Voxel size (z, y, x) for a file that carries none.

    Returns
    -------
    Volume, data of integers of shape (1, Z, Y, X)

    Raises
    ------
    FileProblem
        If the file is missing, cut off, damaged or of another kind.
    DataProblem
        If values are fractional, negative, NaN or colours.
    """
    volume = _load(source, spacing, palette=True)
    data = volume.data
    if volume.channels > 1 and not all(np.array_equal(data[0], other) for other in data[1:]):
        raise DataProblem(
            f"{volume.name}: labels have {volume.channels} channels that differ, such as colours; "
            "save one channel with a whole number for each class or object."
        )
    return replace(volume, data=_whole_numbers(data[:1], volume.name))


def write_labels(path: str | Path, labels: NDArray[Any], like: Volume) -> None:
    """Write labels, complete or not at all, in the smallest unsigned type that holds them.

    Parameters
    ----------
    path : str or Path
        The ending decides the format: .nii.gz, .nii, .tif, .tiff, .npy, .png. NIfTI keeps affine, spacing and unit,
        TIFF spacing and unit. npy and TIFF are (Y, X) where Z is 1.
    labels : integer array of shape (Z, Y, X)
    like : Volume
        The image that the labels belong to.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    DataProblem
        If the labels are not on the grid of ``like``, not integers of 0 or more, or do not fit the format.
    """
    check_writable(path, "labels")
    _check_grid(labels, 3, like)
    if labels.dtype.kind not in "bui":
        raise DataProblem(f"Labels of type {labels.dtype} cannot be written; give whole numbers.")
    values = _whole_numbers(labels, like.name)
    _write(Path(path), values.astype(np.min_scalar_type(int(values.max())), copy=False), like)


def write_probabilities(path: str | Path, probabilities: NDArray[Any], like: Volume) -> None:
    """Write a probability for each class and voxel, complete or not at all.

    Parameters
    ----------
    path : str or Path
        Ending .nii.gz, .nii, .tif, .tiff (float32 all, classes as channels) or .npy (K, Z, Y, X).
    probabilities : array of float16 or float32 of shape (K, Z, Y, X)
    like : Volume
        The image that they belong to.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    DataProblem
        If they are not on the grid of ``like``, or no floats.
    """
    check_writable(path, "probabilities")
    _check_grid(probabilities, 4, like)
    if probabilities.dtype.kind != "f":
        raise DataProblem(f"Probabilities of type {probabilities.dtype} cannot be written; give float16 or float32.")
    is_npy = Path(path).suffix.lower() == ".npy"
    _write(Path(path), probabilities if is_npy else probabilities.astype(np.float32, copy=False), like)


def check_writable(path: str | Path, kind: Kind) -> None:
    """Refuse a place or ending that cannot be written, before any work is done.

    Parameters
    ----------
    path : str or Path
    kind : {"labels", "probabilities", "model"}

    Raises
    ------
    FileProblem
        If the ending is not one for this kind, the folder is missing or not writable, or the path is a folder.
    """
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE[kind]):
        reasons = {".jpg": "JPEG changes values", ".jpeg": "JPEG changes values", ".png": "PNG holds no fractions"}
        reason = reasons.get(path.suffix.lower(), "the ending decides the format")
        raise FileProblem(f"Cannot write {kind} to {path.name}: {reason}; use {', '.join(WRITABLE[kind])}.")
    if path.is_dir():
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise FileProblem(f"There is no folder {path.parent} to write {path.name} to; create it or choose another.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise FileProblem(f"Folder {path.parent} is write-protected; choose another for {path.name}.")


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
        If the numbers differ, or a folder's files cannot be paired by name.
    """
    left, right = ([file for entry in entries for file in _expand(entry)] for entries in (images, labels))
    if len(left) != len(right):
        raise DataProblem(f"There are {len(left)} images but {len(right)} labels; give one label file for each image.")
    hits = [_partners(label, left) for label in right]
    found = [hit[0] for hit in hits if len(hit) == 1]
    if len(set(found)) == len(right):
        return sorted(zip((left[i] for i in found), right, strict=True), key=lambda pair: left.index(pair[0]))
    if len(left) > 1 and any(Path(entry).is_dir() for entry in (*images, *labels)):
        lost = [Path(label).name for label, hit in zip(right, hits, strict=True) if len(hit) != 1]
        lost += [_paths(image)[0].name for i, image in enumerate(left) if found.count(i) != 1]
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
        CSV file with the columns image, label and, if wanted, split. Paths are relative to its folder.

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
    path = _existing(Path(path))
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
    return "|".join(str(folder.absolute() / path) for path in _paths(source))


def _pair(row: dict[str, str], place: str, folder: Path) -> PairFiles:
    """Check one row of a table of pairs."""
    split = row.get("split", "").lower()
    if not row.get("image") or not row.get("label"):
        raise DataProblem(f"{place}: image or label is empty; give both files.")
    if split not in {"train", "val", ""}:
        raise DataProblem(f"{place}: split is {split!r}; write train or val, or leave it empty.")
    files = resolve(row["image"], folder), resolve(row["label"], folder)
    return PairFiles(*files, split=cast("Literal['train', 'val', '']", split))


def _paths(source: str | Path) -> list[Path]:
    """Split a source into its channel files."""
    return [Path(part.strip()).expanduser() for part in str(source).split("|")]


def _existing(path: Path) -> Path:
    """Refuse what is not a file."""
    if path.is_dir():
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not path.is_file():
        raise FileProblem(f"There is no file {path}.")
    return path


def _expand(entry: str) -> list[str]:
    """List the images of a folder; a file stands for itself."""
    folder = Path(entry).expanduser()
    if not folder.is_dir():
        return ["|".join(str(_existing(path)) for path in _paths(entry))]
    files = sorted(f for f in folder.iterdir() if f.name.lower().endswith(READABLE) and f.name[0] != "." and f.is_file())
    if not files:
        raise FileProblem(f"Folder {folder} holds no image; expected files ending in {', '.join(READABLE)}.")
    return [str(file) for file in files]


def _stem(path: Path) -> str:
    """Name of a file without its ending."""
    return re.sub(r"(\.nii\.gz|\.ome\.tiff?|\.\w+)$", "", path.name, flags=re.IGNORECASE)


def _partners(label: str, images: list[str]) -> list[int]:
    """Find the images with the name of a label file: the very same, else the same but for added words."""
    stems = [{_stem(path) for path in _paths(image)} for image in images]
    stem = _stem(Path(label))
    same = [i for i, names in enumerate(stems) if stem in names]
    return same or [i for i, names in enumerate(stems) if AFFIX.sub("", stem) in {AFFIX.sub("", n) for n in names}]
