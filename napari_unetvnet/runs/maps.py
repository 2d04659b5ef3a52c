"""The index of the maps of a run: for each file what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from napari_unetvnet.json_files import read_json
from napari_unetvnet.runs.folder import INDEX

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MapFile", "read_maps"]


@dataclass
class MapFile:
    """A part of an output: its file, what it shows, the names of its channels, and the range of its values."""

    file: Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]
    what: Annotated[str, Field(pattern="^(heatmaps|attention|levels|reconstruction)$")]
    name: str
    channels: tuple[str, ...]
    low: float = np.inf
    high: float = -np.inf
    meaning: str = ""


@dataclass(frozen=True)
class _Index:
    image: str
    model: str
    maps: tuple[MapFile, ...]


def read_maps(folder: Path) -> tuple[MapFile, ...]:
    """Read which maps are in a folder; names of files are those of files in it.

    Returns
    -------
    tuple of MapFile

    Raises
    ------
    FileProblem
        If the index is damaged.
    """
    return read_json(folder / INDEX, _Index, "inspect again").maps
