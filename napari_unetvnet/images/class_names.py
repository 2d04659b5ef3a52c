"""Names of classes in label files: inside the file where its format has room, and as tables that viewers load.

A NIfTI file has no place for names that ITK-SNAP or 3D Slicer would read, so the two tables that they load are written
beside it: label descriptions for ITK-SNAP, a colour table for 3D Slicer, which is that of FreeSurfer, too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from napari_unetvnet.files import writing
from napari_unetvnet.images.sources import stem_of
from napari_unetvnet.images.written import delivering, is_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["KEY", "ClassNames", "channel_names", "from_json", "tables_beside", "to_json", "write_tables"]

ClassNames = tuple[tuple[int, str], ...]
"""Label values with the name of each."""
KEY = "napari-unetvnet class names"
"""What the names are called in a file."""
HEADER = f"# Color table file of {KEY}"
ITK_SNAP, SLICER = "_itksnap.txt", "_slicer.ctbl"
COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (188, 189, 34), (23, 190, 207), (127, 127, 127),
)  # fmt: skip


def to_json(names: ClassNames) -> str:
    """Write names as text that `from_json` reads."""
    return json.dumps({KEY: {str(value): name for value, name in names}}, ensure_ascii=False)


def from_json(text: str) -> ClassNames:
    """Read names from text.

    Returns
    -------
    tuple of (value, name)
        Empty if the text is something else.
    """
    try:
        stored = json.loads(text)[KEY]
        return tuple((int(value), str(name)) for value, name in stored.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def channel_names(names: ClassNames, shape: Sequence[int]) -> list[str]:
    """Give the name of each channel of a result of shape (K, Z, Y, X); empty for any other."""
    return [name for _, name in names] if len(shape) > 3 and len(names) == shape[0] else []


def tables_beside(path: Path) -> tuple[Path, Path]:
    """Return the paths of the tables of a label file, for ITK-SNAP and for 3D Slicer."""
    return path.with_name(stem_of(path) + ITK_SNAP), path.with_name(stem_of(path) + SLICER)


def write_tables(path: Path, names: ClassNames) -> None:
    """Write the tables of a label file, or remove those of an earlier result if there are no names.

    Raises
    ------
    FileProblem
        If a table cannot be written.
    """
    for table, rows in zip(tables_beside(path), (_itk_snap_rows(names), _slicer_rows(names)), strict=True):
        if names:
            with writing(table), delivering(table) as (temporary,):
                temporary.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
        elif table.is_file() and is_unchanged(table):
            table.unlink()


def _colour(value: int) -> tuple[int, int, int]:
    return COLOURS[(value - 1) % len(COLOURS)] if value else (0, 0, 0)


def _itk_snap_rows(names: ClassNames) -> Iterator[str]:
    """Format value, colour, opacity, two switches for what is shown, and name."""
    for value, name in names:
        visible = int(value > 0)
        yield f'{value} {" ".join(map(str, _colour(value)))} {visible} {visible} {visible} "{name}"'


def _slicer_rows(names: ClassNames) -> Iterator[str]:
    """Format value, name without spaces, colour and opacity."""
    for value, name in names:
        yield f"{value} {'_'.join(name.split())} {' '.join(map(str, _colour(value)))} {255 * int(value > 0)}"
