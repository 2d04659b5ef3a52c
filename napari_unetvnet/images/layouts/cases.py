"""All images of a folder or a set, each with the name of its result, and with its labels where they are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.formats import endings, listed
from napari_unetvnet.images.layouts import LAYOUTS, bids, nnunet, subfolders, subjects
from napari_unetvnet.images.names import channel_of
from napari_unetvnet.images.pairs import files_in, joined_channels, shortened
from napari_unetvnet.images.sources import is_folder, paths_of, stem_of
from napari_unetvnet.images.subjects import subject_ids, subjects_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_unetvnet.images.layouts.layout import Layout

__all__ = ["Case", "Cases", "case_names", "cases_of", "labelled_cases"]

FIRST_CHANNEL = "0000"


@dataclass(frozen=True)
class Case:
    """An image of many.

    Parameters
    ----------
    name : str
        Of its result, without ending; no other of them has it, in whatever letter case.
    image : str
        Channel files are separated by ``|``.
    label, mask : str
        Empty if there are none.
    """

    name: str
    image: str
    label: str = ""
    mask: str = ""


@dataclass(frozen=True)
class Cases:
    """The images of a folder or a set, what it was taken for, its channels, and what it says of its labels."""

    cases: tuple[Case, ...]
    sentence: str
    channel_names: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def cases_of(source: str, *, join_channels: bool = True) -> Cases:
    """List the images of a folder, of a data set of a known kind, or of an HDF5 set.

    Parameters
    ----------
    join_channels : bool
        Whether files of a plain folder that are named like channels (a_t1, a_t2) are one image.

    Returns
    -------
    Cases
        Labels, and masks beside them, are no images.

    Raises
    ------
    FileProblem
        If it is no set and no folder, or a folder holds no image.
    DataProblem
        If its images or labels cannot be told apart.
    """
    if rows := subjects_of(source):
        names = subject_ids(source) or [stem_of(Path(image)) for image, _ in rows]
        cases = [Case(name, *row) for name, row in zip(names, rows, strict=True)]
        return Cases(_unique(cases), f"{Path(source).name} is a set of {len(rows)} images.")
    folder = Path(source).expanduser()
    if not is_folder(folder):
        raise FileProblem(f"{source} is no folder of images, and no set of them.")
    found = _nnunet(folder) or _subjects(folder) or labelled_cases(folder, bids.ANY_KIND)
    return found or _plain(folder, join_channels=join_channels)


def labelled_cases(folder: Path, label_kind: str = "") -> Cases | None:
    """List the images with labels of a data set of a known kind.

    Parameters
    ----------
    label_kind : str
        Which labels, where a BIDS folder has several kinds.

    Returns
    -------
    Cases or None
        None for a folder of another kind.

    Raises
    ------
    DataProblem
        If something lacks in it.
    """
    own = bids.recognise(folder, label_kind) if label_kind else None
    layout = own or next((found for _, read in LAYOUTS if (found := read(folder)) is not None), None)
    if layout is None:
        return None
    return Cases(_of_layout(layout), layout.sentence, layout.channel_names, layout.settings)


def case_names(images: Sequence[str]) -> list[str]:
    """Name images after their files without ending and number of channel, or after their folders if these repeat."""
    stems = [_stem(image) for image in images]
    parents = [paths_of(image)[0].parent.name for image in images]
    both = [f"{parent}_{stem}" for parent, stem in zip(parents, stems, strict=True)]
    return next((names for names in (stems, parents, both) if not _repeated(names)), stems)


def _stem(image: str) -> str:
    """Name one image: what its channel files share, or their folder."""
    files = paths_of(image)
    splits = [channel_of(stem_of(path)) for path in files]
    if len(files) == 1:
        split = splits[0]
        return split[0] if split and split[1] == FIRST_CHANNEL else stem_of(files[0])
    shared = {split[0] if split else "" for split in splits}
    return shared.pop() if len(shared) == 1 and "" not in shared else files[0].parent.name


def _of_layout(layout: Layout) -> tuple[Case, ...]:
    names = case_names([pair.image for pair in layout.pairs])
    rows = zip(names, layout.pairs, strict=True)
    return _unique([Case(name, pair.image, pair.label, pair.mask) for name, pair in rows])


def _nnunet(folder: Path) -> Cases | None:
    """Add the images for tests, which have no labels, to those of a raw folder of nnU-Net."""
    layout = nnunet.recognise(folder)
    if layout is None:
        return None
    tests, cases = folder / nnunet.TESTS, list(_of_layout(layout))
    if tests.is_dir() and (images := joined_channels(files_in(tests))):
        cases += [Case(name, image) for name, image in zip(case_names(images), images, strict=True)]
        sentence = f"{layout.sentence} {tests.name} has {len(images)} more images."
        return Cases(_unique(cases), sentence, layout.channel_names, layout.settings)
    return Cases(tuple(cases), layout.sentence, layout.channel_names, layout.settings)


def _subjects(folder: Path) -> Cases | None:
    """List the subjects of a folder, also those without labels."""
    if (
        files_in(folder)
        or nnunet.recognise(folder)
        or bids.recognise(folder, bids.ANY_KIND)
        or subfolders.recognise(folder)
    ):
        return None
    rows = subjects.images_in(folder)
    if not rows:
        return None
    cases = [Case(row.folder.name, row.image, row.labels[0] if len(row.labels) == 1 else "") for row in rows]
    return Cases(_unique(cases), f"{folder.name} is a folder of {len(cases)} subjects.")


def _plain(folder: Path, *, join_channels: bool) -> Cases:
    files = files_in(folder)
    if not files:
        raise FileProblem(f"Folder {folder} holds no image; expected files ending in {listed(endings())}.")
    images = joined_channels(files) if join_channels else files
    joined = f", of {len(files)} channel files" if len(images) < len(files) else ""
    cases = [Case(name, image) for name, image in zip(case_names(images), images, strict=True)]
    return Cases(_distinct(cases), f"{folder.name} is a folder of {len(images)} images{joined}.")


def _distinct(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Tell files of a folder that differ in their ending alone (a.tif, a.png) apart by it."""
    repeated = _repeated(case.name for case in cases)
    endings_of = (paths_of(case.image)[0].suffix.lstrip(".") for case in cases)
    rows = zip(cases, endings_of, strict=True)
    return _unique([replace(c, name=f"{c.name}_{end}") if c.name.casefold() in repeated else c for c, end in rows])


def _unique(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Refuse names that are equal, because one result would replace another."""
    if repeated := _repeated(case.name for case in cases):
        same = sorted(case.image for case in cases if case.name.casefold() in repeated)
        raise DataProblem(
            f"Several images have the same name, so their results would have, too: {listed(shortened(same, 6))}; "
            "rename them."
        )
    return tuple(cases)


def _repeated(names: Iterable[str]) -> set[str]:
    counted = Counter(name.casefold() for name in names)
    return {name for name, count in counted.items() if count > 1}
