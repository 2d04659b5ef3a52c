"""HDF5 files: which dataset is the image, what its axes are, how large a voxel is. They are only read."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.axes import given_letters
from napari_unetvnet.images.containers import (
    StoredArray,
    image_of,
    listed_images,
    named_letters,
    only_image,
    with_letters,
)  # fmt: skip
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.declared import check_decoded
from napari_unetvnet.images.formats.hdf5_checks import ChunkedDataset, check_links
from napari_unetvnet.images.formats.hdf5_files import StoredDataset, opened
from napari_unetvnet.images.geometry import Geometry, spacing_of
from napari_unetvnet.images.sources import split_dataset
from napari_unetvnet.images.subjects import subject_number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.images.image_file import ImageFile

NUMBERED = re.compile(r"(?P<name>.+)\[(?P<number>\d+)\]")
"""An image of a dataset of many, such as data[3]."""
CHUNK_CACHE = {"rdcc_nbytes": 2**26, "rdcc_nslots": 10_007}
"""Unpacked chunks of a dataset of many images that are kept, bytes: those of one image, whose planes are looked at one
after the other. All images of a dataset share it."""


def read(path: Path, axes: str = "") -> ImageFile:
    """Open ``file.h5:/path``, or the only dataset of ``file.h5``."""
    file, inside = split_dataset(path)
    with reading(file):
        many = CHUNK_CACHE if NUMBERED.fullmatch(inside) else {}
        with opened(file, **many) as source:
            return _with_affine(image_of(_stored(source, file, inside, axes), file), source, inside)


def further_files(path: Path) -> list[Path]:
    """List the files to which external links and virtual datasets of a file lead, and those of data outside of it."""
    import h5py

    found = set[str]()

    def note(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                found.add(link.filename)
            elif isinstance(link, h5py.HardLink):
                item = group[name]
                if isinstance(item, h5py.Group):
                    note(item)
                elif isinstance(item, h5py.Dataset):
                    found.update(source.file_name for source in (item.virtual_sources() if item.is_virtual else ()))
                    found.update(name for name, *_ in item.external or ())

    with reading(path), h5py.File(path, "r") as file:
        note(file)
    return [path.parent / name for name in sorted(found - {"."})]


def _stored(file: Any, path: Path, inside: str, given: str) -> StoredArray:
    """Find a dataset; ``inside`` may be empty if it is the only one."""
    import h5py

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim > 1:
            datasets[f"/{name}"] = item

    datasets: dict[str, Any] = {}
    if match := NUMBERED.fullmatch(inside):
        return _one_of_many(file, path, match["name"], int(match["number"]))
    file.visititems(note)
    inside = inside or only_image(path, datasets, f"{path}:")
    check_links(path, file, inside)
    dataset = file.get(inside)
    if not isinstance(dataset, h5py.Dataset):
        raise FileProblem(f"{path.name} holds no dataset {inside}; it holds {listed_images(datasets)}.")
    sizes = np.ravel(dataset.attrs.get("element_size_um", ()))  # z, y, x, as Fiji writes it
    lengths = {letter: (float(size), "micrometer") for letter, size in zip("ZYX", sizes, strict=False)}
    names = _axis_names(dataset)
    axes = given_letters(given, dataset.shape, path.name) or with_letters(names, dataset.shape)
    guessed = not given and not named_letters(names, dataset.shape)
    return StoredArray(_sliced(dataset, path, inside), axes, lengths if len(sizes) == 3 else {}, guessed=guessed)


def _one_of_many(file: Any, path: Path, name: str, number: int) -> StoredArray:
    """Open an image (C, Z, Y, X) of a dataset (N, C, Z, Y, X)."""
    check_links(path, file, name)
    dataset = file.get(name)
    if getattr(dataset, "ndim", 0) != 5 or number >= dataset.shape[0]:
        raise FileProblem(f"{path.name} has no image {number} in a dataset {name} of five axes.")
    return StoredArray(_Part(_sliced(dataset, path, name, **CHUNK_CACHE), number), "CZYX", {})


def _sliced(dataset: Any, path: Path, name: str, **cache: int) -> Any:
    """Give what slices a dataset, whose chunks must fit into memory; zipped ones are checked before."""
    if dataset.chunks is not None:
        check_decoded(path, dataset.chunks, dataset.dtype, chunks=True)
    wrap = partial(ChunkedDataset, path=path) if dataset.compression == "gzip" else None
    return StoredDataset(dataset, path, name, wrap, **cache)


class _Part:
    """One image of a dataset (N, C, Z, Y, X)."""

    def __init__(self, dataset: Any, number: int) -> None:
        self._dataset, self._number = dataset, number
        self.shape, self.dtype = dataset.shape[1:], dataset.dtype
        self.chunks = dataset.chunks and dataset.chunks[1:]

    def __getitem__(self, key: Any) -> Any:
        return self._dataset[(self._number, *key)]


def _with_affine(image: ImageFile, file: Any, inside: str) -> ImageFile:
    """Add the affine that a set holds for each subject."""
    if (number := subject_number(file, inside)) is None:
        return image
    affine = np.asarray(file["affine"][number], np.float64)
    return image._replace(geometry=Geometry(spacing_of(affine), str(file.attrs["unit"]), affine))


def _axis_names(dataset: Any) -> Sequence[str] | None:
    """Give the axis names of a dataset: those of ilastik, or HDF5's own."""
    if (tags := dataset.attrs.get("axistags")) is not None:
        return [axis["key"] for axis in json.loads(tags)["axes"]]
    return [dimension.label for dimension in dataset.dims]
