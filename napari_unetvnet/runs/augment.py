"""Export augmented training patches for inspection before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import writing
from napari_unetvnet.images.outputs import check_place
from napari_unetvnet.images.written import delivering, refuse_foreign

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.settings import TrainJob

__all__ = ["ENDINGS", "check_patches", "labels_beside", "training_patches", "write_patches"]

ENDINGS = (".npy", ".tif", ".tiff")


def check_patches(path: Path, job: TrainJob, *, overwrite: bool = False) -> None:
    """Refuse a file for patches that cannot be written, or that would replace a file of someone else, before any work.

    Parameters
    ----------
    overwrite : bool
        Whether files that this program did not write are replaced, too, but never an image or labels that are read.

    Raises
    ------
    FileProblem
    """
    from napari_unetvnet.runs.inputs import find_inputs, keep_inputs

    if path.suffix.lower() not in ENDINGS:
        raise FileProblem(f"Patches cannot be written to {path.name}; choose a name that ends in {', '.join(ENDINGS)}.")
    check_place(path)
    keep_inputs([path, labels_beside(path)], find_inputs(job))
    refuse_foreign([path, labels_beside(path)], overwrite=overwrite)


def training_patches(job: TrainJob, count: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Draw patches of a job's images and augment them at full strength.

    Parameters
    ----------
    job : TrainJob
        Unset settings are planned from the data, as in training.
    count : int
        Number of patches, N.

    Returns
    -------
    images : array of float32, shape (N, C, Z, Y, X)
        Normalised intensities.
    target : array of shape (N, Z, Y, X) or (N, K, Z, Y, X)
        Target of the loss; IGNORE at ignored voxels.
    """
    import torch

    from napari_unetvnet.data.augment import augment, drop_channels, recipe
    from napari_unetvnet.data.prepare import prepare_data, resample_pairs
    from napari_unetvnet.model.device import choose_device
    from napari_unetvnet.runs.inputs import find_inputs, read_pair
    from napari_unetvnet.training.plan import plan

    listed, job, _ = find_inputs(job)
    pairs = [read_pair(files, job, []) for files in listed]
    settings = plan(pairs, job, choose_device(job)[0].type).settings
    pairs, patch = resample_pairs(pairs, settings), settings.planned_patch
    rng = np.random.default_rng(settings.seed)
    drawn = prepare_data(pairs, settings, patch).batch(rng, count, patch, (0, 0, 0))
    fitted = recipe(
        settings.augment, view=settings.view, spacing=pairs[0].image.spacing, mirror=settings.mirror_axes, patch=patch
    )
    images, target = torch.from_numpy(drawn.images), torch.from_numpy(drawn.target)
    images, target, _ = augment(images, target, {}, rng, fitted)
    images = drop_channels(images, settings.channel_dropout, rng)
    return images.numpy(), target.numpy()


def labels_beside(path: Path) -> Path:
    """Return the path of the labels file that belongs to a file of patches.

    Parameters
    ----------
    path : Path
        File of the patches.

    Returns
    -------
    Path
    """
    return path.with_name(f"{path.stem}_labels{path.suffix}")


def write_patches(path: Path, images: NDArray[np.float32], target: NDArray[Any]) -> None:
    """Write patches to a file and their labels to a second file beside it.

    Parameters
    ----------
    path : Path
        As `check_patches` takes it.
    images, target : array
        From `training_patches`.

    Raises
    ------
    FileProblem
        If a file cannot be written.
    """
    from tifffile import imwrite

    with writing(path), delivering(path, labels_beside(path)) as temporary_paths:
        for temporary, array in zip(temporary_paths, (images, target), strict=True):
            with temporary.open("wb") as file:
                np.save(file, array) if path.suffix.lower() == ".npy" else imwrite(file, array)
