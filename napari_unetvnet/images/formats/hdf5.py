"""HDF5 files: which dataset is the image, what its axes are, how large a voxel is. They are only read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.axes import given_letters
from napari_unetvnet.images.containers import StoredArray, image_of, listed_images, only_image, with_letters
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.sources import split_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.images.image_file import ImageFile


def read(path: Path, axes: str = "") -> ImageFile:
    """Open ``file.h5:/path``, or the only dataset of ``file.h5``."""
    file, inside = split_dataset(path)
    with reading(file):
        return image_of(_open(file, inside, axes), file)


def _open(path: Path, inside: str, given: str) -> StoredArray:
    """Open a dataset; ``inside`` may be empty if it is the only one."""
    import h5py

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim > 1:
            datasets[f"/{name}"] = item

    datasets: dict[str, Any] = {}
    file = h5py.File(path, "r")
    file.visititems(note)
    dataset = file.get(inside) if inside else datasets[only_image(path, datasets, f"{path}:")]
    if not isinstance(dataset, h5py.Dataset):
        raise FileProblem(f"{path.name} holds no dataset {inside}; it holds {listed_images(datasets)}.")
    sizes = np.ravel(dataset.attrs.get("element_size_um", ()))  # z, y, x, as Fiji writes it
    lengths = {letter: (float(size), "micrometer") for letter, size in zip("ZYX", sizes, strict=False)}
    axes = given_letters(given, dataset.shape, path.name) or with_letters(_axis_names(dataset), dataset.ndim)
    return StoredArray(dataset, axes, lengths if len(sizes) == 3 else {})


def _axis_names(dataset: Any) -> Sequence[str] | None:
    """Give the axis names of a dataset: those of ilastik, or HDF5's own."""
    if (tags := dataset.attrs.get("axistags")) is not None:
        return [axis["key"] for axis in json.loads(tags)["axes"]]
    return [dimension.label for dimension in dataset.dims]
