"""Images with labels in a folder, and what is common to all kinds of folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unetvnet.images.pairs import PairFiles, files_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Layout", "all_files", "folders_in", "pair_files"]


@dataclass(frozen=True)
class Layout:
    """Images with labels in a folder of a known kind.

    Parameters
    ----------
    pairs : tuple of PairFiles
    sentence : str
        What the folder was taken for.
    channel_names : tuple of str
        Of the channel files of each image, in order; may be empty.
    settings : mapping
        What the folder says of its labels, as settings of a training.
    """

    pairs: tuple[PairFiles, ...]
    sentence: str
    channel_names: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder that are not hidden, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def all_files(folders: Iterable[Path]) -> list[str]:
    """List the images in folders and in all folders within them, sorted."""
    inside = [within for folder in folders for within in (folder, *sorted(folder.rglob("*")))]
    return [file for each in inside if each.is_dir() for file in files_in(each)]


def pair_files(pairs: Sequence[tuple[str, str]], masks: Mapping[str, str] | None = None) -> tuple[PairFiles, ...]:
    """Turn images with labels into pairs, with the masks of some."""
    return tuple(PairFiles(image, label, mask=(masks or {}).get(image, "")) for image, label in pairs)
