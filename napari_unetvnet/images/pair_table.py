"""Tables of pairs: CSV files with the columns image, label and, optionally, split and mask."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.files import replacing, writing
from napari_unetvnet.images.pairs import PairFiles
from napari_unetvnet.images.sources import existing, joined, paths_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_pairs_csv", "resolve", "write_pairs_csv"]

COLUMNS = ("image", "label", "split", "mask")


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


def write_pairs_csv(path: Path, pairs: Sequence[PairFiles]) -> None:
    """Write a table of pairs, which `read_pairs_csv` reads.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    """
    with writing(path), replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([getattr(pair, name) for name in COLUMNS] for pair in pairs)


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
    return joined(folder.absolute() / path for path in paths_of(source))


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
