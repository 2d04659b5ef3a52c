"""Pair images with labels by name, or in order where a person says so."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.formats import endings, listed
from napari_unetvnet.images.names import channel_of, image_forms, label_forms, of_other_modality
from napari_unetvnet.images.sources import existing, is_folder, joined, paths_of, stem_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.images.names import Words
    from napari_unetvnet.images.volume import Volume

__all__ = [
    "MOST_NAMED",
    "Pair",
    "PairFiles",
    "describe_pairs",
    "files_in",
    "find_pairs",
    "joined_channels",
    "names_of",
    "same_name",
    "shortened",
]

MOST_NAMED = 12
"""Files that a message names."""
FIRST_PLAIN = 3
"""The first form of a name without the words that only say what a file is."""


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
    turned : bool
        Whether labels or mask were stored along other axes than the image, and brought to them by their positions.
    """

    image: Volume
    labels: Volume
    split: str = ""
    mask: Volume | None = None
    turned: bool = False


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


def find_pairs(
    images: Sequence[str],
    labels: Sequence[str],
    kinds: tuple[str, str] = ("images", "labels"),
    *,
    in_order: bool = False,
    images_may_lack: bool = False,
) -> list[tuple[str, str]]:
    """Pair images with labels, or with masks, by name.

    Parameters
    ----------
    images, labels : sequence of str
        Files, channel files separated by ``|``, or folders, for all readable images in them. Names match as
        `images.names` reads them, and files in equally named folders are preferred. Files that are
        channels of an image (``a_0000``, ``a_0001``) are joined where the labels are of their common name. One image
        and one file of labels are a pair whatever their names are.
    kinds : tuple of (str, str)
        What both are, for messages.
    in_order : bool
        Pair the first image with the first labels and so on, whatever their names are.
    images_may_lack : bool
        Leave out images that no labels fit.

    Returns
    -------
    list of (str, str)
        Image and labels, in the order of the images.

    Raises
    ------
    FileProblem
        If a file does not exist, or a folder holds no image.
    DataProblem
        If a file is on both sides, or any image or labels have no partner, or more than one.
    """
    image_files, label_files = (
        [file for entry in entries for file in _expand(entry, by_number=in_order)] for entries in (images, labels)
    )
    if shared := sorted(set(image_files) & set(label_files)):
        raise DataProblem(f"{shared[0]} is given both as image and as {kinds[1]}; give different files.")
    if in_order:
        return _in_order(image_files, label_files, kinds)
    if len(image_files) == len(label_files) == 1:
        return [(image_files[0], label_files[0])]
    matched = _match(image_files, label_files, all_images=not images_may_lack)
    if not matched.complete and (groups := _channel_groups(image_files)):
        of_joined = _match(joined_channels(image_files), label_files, all_images=not images_may_lack)
        if of_joined.left_over < matched.left_over:
            _check_channels(groups)
            matched = of_joined
    if not matched.complete:
        raise DataProblem(*_left_over(matched, kinds))
    return [(image, matched.labels_of[image][0]) for image in matched.labels_of]


def same_name(image: str, labels: str) -> bool:
    """Whether labels are of an image by their names."""
    return _match([image], [labels]).complete


def files_in(folder: Path) -> list[str]:
    """List the images in a folder, sorted by name; not those of its folders."""
    files = [
        f
        for f in folder.iterdir()
        if (f.is_dir() or f.name.lower().endswith(endings())) and f.name[0] != "." and not is_folder(f)
    ]
    return [joined([file]) for file in sorted(files)]


def joined_channels(files: Sequence[str]) -> list[str]:
    """Join the files that are named as channels of one image (``a_0000``, ``a_0001``); those of one image are sorted.

    Returns
    -------
    list of str
        The files as they are if not all name a channel, or none shares its image with another.
    """
    groups = _channel_groups(files)
    return ["|".join(group[channel] for channel in sorted(group)) for group in groups.values()] or list(files)


def describe_pairs(pairs: Sequence[PairFiles], most: int = MOST_NAMED) -> str:
    """Write which labels each image has, a line each, or in one line if there is one.

    Parameters
    ----------
    most : int
        Pairs to write; of more, those in the middle are left out.

    Returns
    -------
    str
    """
    same = len({names_of(pair.image) for pair in pairs}) == len(pairs)
    name = names_of if same else _names_with_folder
    lines = [
        f"{name(pair.image)} <- {name(pair.label)}" + (f", mask {name(pair.mask)}" if pair.mask else "")
        for pair in pairs
    ]
    if len(lines) == 1:
        return f"Pair (image <- labels): {lines[0]}"
    return "\n  ".join([f"{len(pairs)} pairs (image <- labels):", *shortened(lines, most)])


def shortened(lines: Sequence[str], most: int, gap: str = "... {} more ...") -> list[str]:
    """Leave out those in the middle of a long list.

    Parameters
    ----------
    most : int
        Lines to keep.
    gap : str
        What stands in their place; ``{}`` is their number.

    Returns
    -------
    list of str
    """
    if len(lines) <= most:
        return list(lines)
    last = most // 2
    return [*lines[: most - last], gap.format(len(lines) - most), *lines[-last:]]


@dataclass(frozen=True)
class _Matches:
    """The labels that fit each image, the images that fit each of the labels, and whether these are pairs."""

    labels_of: Mapping[str, list[str]]
    images_of: Mapping[str, list[str]]

    @property
    def complete(self) -> bool:
        return all(len(found) == 1 for each in (self.labels_of, self.images_of) for found in each.values())

    @property
    def left_over(self) -> int:
        return sum(len(found) != 1 for each in (self.labels_of, self.images_of) for found in each.values())


def _match(images: Sequence[str], labels: Sequence[str], *, all_images: bool = True) -> _Matches:
    """Find the images that each of the labels fits, by the strictest form of its name that fits any."""
    named: dict[tuple[int, Words], list[str]] = defaultdict(list)
    for image in images:
        for i, form in enumerate(image_forms(image)):
            for words in form:
                named[i, words].append(image)
    found_of = {label: _candidates(label, named) for label in labels}
    fitting = {
        label: [each for each in found if not of_other_modality(each, label)] for label, found in found_of.items()
    }
    images_of = {label: _closest(label, found) for label, found in fitting.items()}
    labels_of: dict[str, list[str]] = {image: [] for image in images}
    for label, found in images_of.items():
        for image in found:
            labels_of[image].append(label)
    return _Matches({image: found for image, found in labels_of.items() if found or all_images}, images_of)


def _candidates(label: str, named: Mapping[tuple[int, Words], list[str]]) -> list[str]:
    """Find the images of a name, or of one that has a word more or less in the end, by the strictest form."""
    for i, form in enumerate(label_forms(label)):
        if found := [image for words in sorted(form) for image in named.get((i, words), ())]:
            return list(dict.fromkeys(found))
        if i >= FIRST_PLAIN and (found := [image for words in form for image in _extended(i, words, named)]):
            return found
    return []


def _extended(i: int, whole: Words, named: Mapping[tuple[int, Words], list[str]]) -> list[str]:
    """Find images of a name with words more or less: "a_nuclei" are labels of "a", but "a_2" are not."""
    for n in range(len(whole) - 1, 0, -1):
        if (i, whole[:n]) in named and not _numbered(whole[n:]):
            return named[i, whole[:n]]
    longer = [
        (words[len(whole) :], found) for (k, words), found in named.items() if k == i and words[: len(whole)] == whole
    ]
    return [image for rest, found in longer for image in found if whole and not _numbered(rest)]


def _numbered(words: Words) -> bool:
    return any(letter.isdigit() for word in words for letter in word)


def _closest(label: str, images: list[str]) -> list[str]:
    """Of several images of a name keep those in a folder of the same name, such as that of a subject."""
    folder = paths_of(label)[0].parent.name
    beside = [image for image in images if paths_of(image)[0].parent.name == folder]
    return beside if len(images) > 1 and len(beside) == 1 else images


def _channel_groups(images: Sequence[str]) -> dict[str, dict[str, str]]:
    """Group files that are numbered or named channels by their image; empty if any is none, or each is alone."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for image in images:
        path = paths_of(image)[0]
        split = channel_of(stem_of(path))
        if split is None or len(paths_of(image)) > 1:
            return {}
        groups[str(path.parent / split[0])][split[1]] = image
    return groups if len(groups) < len(images) else {}


def _check_channels(groups: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse images that lack a channel that another has."""
    channels = sorted({channel for group in groups.values() for channel in group})
    absent = {Path(name).name: sorted(set(channels) - group.keys()) for name, group in groups.items()}
    if lines := [f"{name} has no {listed(missing)}" for name, missing in absent.items() if missing]:
        raise DataProblem(
            f"The images have the channels {listed(channels)}, but {listed(shortened(lines, MOST_NAMED))}; give the "
            "same channels of each."
        )


def _in_order(images: Sequence[str], labels: Sequence[str], kinds: tuple[str, str]) -> list[tuple[str, str]]:
    if len(images) != len(labels):
        raise DataProblem(
            f"There are {len(images)} {kinds[0]} but {len(labels)} {kinds[1]}; in order, each needs its own file."
        )
    return list(zip(images, labels, strict=True))


def _left_over(matched: _Matches, kinds: tuple[str, str]) -> list[str]:
    """Name what has no partner, and what has several."""
    counts = len(matched.labels_of), len(matched.images_of)
    lines = [f"These {kinds[0]} ({counts[0]}) and {kinds[1]} ({counts[1]}) cannot be paired by name."]
    for (kind, others), each in zip((kinds, kinds[::-1]), (matched.labels_of, matched.images_of), strict=True):
        if alone := [names_of(source) for source, found in each.items() if not found]:
            lines.append(
                f"{kind.capitalize()} without {others} ({len(alone)}): {listed(shortened(alone, MOST_NAMED))}."
            )
    several = [
        f"{_names_with_folder(source)} fits {' and '.join(map(_names_with_folder, shortened(found, 4)))}"
        for each in (matched.labels_of, matched.images_of)
        for source, found in each.items()
        if len(found) > 1
    ]
    if several:
        lines.append(f"Not clear: {'; '.join(shortened(several, MOST_NAMED))}.")
    advice = (
        f"Name {kinds[1]} like their {kinds[0]} (a.tif and a_labels.tif), list them in a CSV file of pairs "
        "(--pairs), or, if both are in the same order, say so (--in-order)."
    )
    return [*lines, advice]


def names_of(source: str) -> str:
    """Name the file of an image, or its channel files."""
    return " + ".join(path.name for path in paths_of(source))


def _names_with_folder(source: str) -> str:
    return " + ".join(f"{path.parent.name}/{path.name}" for path in paths_of(source))


def _expand(entry: str, *, by_number: bool) -> list[str]:
    """List the images of a folder, sorted by name or by the numbers in it; a file stands for itself."""
    folder, *further = paths_of(entry)
    if further or not is_folder(folder):
        return [joined(existing(path) for path in (folder, *further))]
    files = files_in(folder)
    if not files:
        raise FileProblem(f"Folder {folder} holds no image; expected files ending in {listed(endings())}.")
    return sorted(files, key=_with_numbers) if by_number else files


def _with_numbers(file: str) -> list[tuple[int, str]]:
    """Sort "a10" after "a9"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", Path(file).name)]
