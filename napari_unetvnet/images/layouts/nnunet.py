"""Raw folders of nnU-Net and of the Medical Segmentation Decathlon: dataset.json, imagesTr and labelsTr."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.layouts.layout import Layout, pair_files
from napari_unetvnet.images.names import channel_of
from napari_unetvnet.images.pairs import files_in, find_pairs
from napari_unetvnet.images.sources import paths_of, stem_of
from napari_unetvnet.json_files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["recognise"]

DESCRIPTION, IMAGES, LABELS, TESTS = "dataset.json", "imagesTr", "labelsTr", "imagesTs"
IGNORED = "ignore"


def recognise(folder: Path) -> Layout | None:
    """Read a raw folder of nnU-Net.

    Returns
    -------
    Layout or None

    Raises
    ------
    DataProblem
        If images have no labels, or other channels than the description names.
    """
    if not all((folder / name).exists() for name in (DESCRIPTION, IMAGES, LABELS)):
        return None
    described = read_json(folder / DESCRIPTION, dict, "repair it, or give --image and --label")
    ending = str(described.get("file_ending", ""))
    images, labels = ([f for f in files_in(folder / name) if f.endswith(ending)] for name in (IMAGES, LABELS))
    if not images or not labels:
        raise DataProblem(f"{folder} has no files {ending or 'of a known format'} in {IMAGES} or in {LABELS}.")
    pairs, channels = find_pairs(images, labels), _channels(described)
    _check_channels(pairs[0][0], channels)
    settings, words = _labels(described.get("labels"))
    said = [f"channels {', '.join(channels)}"] * bool(channels) + words
    sentence = f"{folder.name} is a raw folder of nnU-Net with {len(pairs)} cases in {IMAGES} and {LABELS}"
    return Layout(pair_files(pairs), f"{sentence}: {'; '.join(said)}." if said else f"{sentence}.", channels, settings)


def _channels(described: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the names of the channels in order, of either version of the format."""
    named = described.get("channel_names", described.get("modality", {}))
    names = tuple(str(named[key]) for key in sorted(named, key=int)) if isinstance(named, dict) else ()
    return names if len({name.casefold() for name in names}) == len(names) else ()


def _check_channels(image: str, channels: tuple[str, ...]) -> None:
    """Refuse files of other channels than described; a single file without a number may hold all of them."""
    files = paths_of(image)
    numbered = channel_of(stem_of(files[0]))
    if channels and len(files) != len(channels) and (len(files) > 1 or (numbered and numbered[1] == "0000")):
        raise DataProblem(
            f"{DESCRIPTION} names {len(channels)} channels ({', '.join(channels)}), but {files[0].name} is one of "
            f"{len(files)} files of its image; give each image a file for each channel."
        )


def _labels(described: Any) -> tuple[dict[str, Any], list[str]]:
    """Turn the labels of either version of the format into settings, and into words."""
    if not isinstance(described, dict) or not described:
        return {}, []
    if all(str(key).isdecimal() for key in described):
        described = {str(name): int(key) for key, name in described.items()}
    sets = {_name(name): value if isinstance(value, list) else [value] for name, value in described.items()}
    ignored = sets.pop(IGNORED, [])
    settings: dict[str, Any] = {"ignore_value": int(ignored[0])} if ignored else {}
    said = [f"{ignored[0]} is ignored"] if ignored else []
    if any(len(values) > 1 for values in sets.values()):
        regions = {re.sub(r"\W+", "_", name): values for name, values in sets.items() if values != [0]}
        settings["regions"] = [f"{name}={'+'.join(map(str, values))}" for name, values in regions.items()]
        return settings, [f"regions {', '.join(settings['regions'])}", *said]
    settings["class_names"] = [f"{values[0]}={name}" for name, values in sets.items()]
    return settings, [f"classes {', '.join(settings['class_names'])}", *said]


def _name(text: Any) -> str:
    """Leave out of a name what the name of a class cannot have."""
    return " ".join(re.sub(r"[^\w .-]", " ", str(text)).split())
