"""The convert command: make one HDF5 set of the files of many subjects.

Each subject is cropped to what is not zero in any of its files, turned to the canonical axes and, if wanted, resized.
No more than one is in memory: all are kept in files first, because the set begins with their sizes and statistics.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem, UserError
from napari_unetvnet.files import replacing, writing
from napari_unetvnet.images.channels import distinct_names, names_in
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.formats import ending_of, endings
from napari_unetvnet.images.geometry import Geometry, step_of_resize, step_to
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.layouts.cases import labelled_cases
from napari_unetvnet.images.orientation import canonical, orientation_of
from napari_unetvnet.images.outputs import check_place, refuse_replacing
from napari_unetvnet.images.pairs import MOST_NAMED, shortened
from napari_unetvnet.images.resample import Resampled
from napari_unetvnet.images.room import check_room
from napari_unetvnet.images.same_grid import brought_onto, difference
from napari_unetvnet.images.sources import is_folder, joined, paths_of, stem_of
from napari_unetvnet.images.stored_geometry import as_geometry, as_text
from napari_unetvnet.images.subjects import AXES
from napari_unetvnet.images.volume import Box
from napari_unetvnet.images.written import claimed, delivering, refuse_foreign, target
from napari_unetvnet.temporary import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import ConvertJob

__all__ = ["convert"]

FOREGROUND = 1e-5
"""Voxels with a greater absolute value in any file are foreground."""
MARGIN = 1
"""Voxels by which the box around the foreground is enlarged."""
CHUNK = 64
KEY_LENGTH = 32
"""Characters of the names under which subjects are kept."""


class _Files(NamedTuple):
    """The files of a subject: one for each modality, and that of the labels or none."""

    name: str
    images: tuple[Path, ...]
    labels: Path | None


class _Set(NamedTuple):
    """The subjects of a folder, the names of their channels, what it says of their labels, and sentences on both."""

    subjects: list[_Files]
    modalities: tuple[str, ...]
    settings: Mapping[str, Any]
    notices: list[str]


@dataclass(frozen=True, eq=False)
class _Origin:
    """Where the voxels of a subject come from, and the affine that they have in the set."""

    box: Box
    shape: Triple
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]
    geometry: Geometry
    new_affine: NDArray[np.float64]


class _Subject(NamedTuple):
    """A subject as it is stored: image (C, Z, Y, X), labels (1, Z, Y, X) or None, and what was done to its files."""

    image: NDArray[np.float32]
    labels: NDArray[Any] | None
    origin: _Origin
    notices: tuple[str, ...]


class _Measured(NamedTuple):
    """Shape of an image, mean and standard deviation of each channel, the highest label, and what was done."""

    shape: tuple[int, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    highest: int
    origin: _Origin
    notices: tuple[str, ...]


def convert(job: ConvertJob) -> Iterator[str]:
    """Make a set.

    Each subject is kept beside the output until the set is complete, so that the same job goes on where it was
    interrupted; what was read of files that have changed since is not used.

    Yields
    ------
    str
        A sentence on what is resumed, and on the set.

    Raises
    ------
    FileProblem
        If the folder holds no subject, or the output cannot be written, or is a file of someone else.
    DataProblem
        If a subject lacks a file, its files have different grids, or it holds only zeros; one line each.
    """
    check_place(job.output)
    refuse_foreign([job.output], overwrite=job.overwrite)
    with claimed([job.output]) as unrecorded:
        if unrecorded:
            yield unrecorded
        yield from _convert(job, _found(job))


def _convert(job: ConvertJob, found: _Set) -> Iterator[str]:
    yield from found.notices
    refuse_replacing([job.output], [path for each in found.subjects for path in _paths(each)])
    subjects, folder = found.subjects, job.output.with_name(f"{job.output.name}.partial")
    stored = [folder / f"{_key(files, job)}.npz" for files in subjects]
    if kept := sum(path.exists() for path in stored):
        yield f"Resuming: {kept} of {len(subjects)} subjects are in {folder} already."
    _check_room(subjects, job)
    _keep_all(subjects, stored, folder, job)
    measured = [_measured(_kept(path)) for path in stored]
    yield from shortened([line for each in measured for line in each.notices], MOST_NAMED)
    _check_alike(subjects, measured)
    with writing(job.output), delivering(job.output) as (part,):
        _write(part, found, stored, measured, job)
    yield from _remove_kept(folder)
    yield f"Set of {len(subjects)} subject(s): {job.output}"


def _check_room(subjects: Sequence[_Files], job: ConvertJob) -> None:
    """Refuse a set that the disk cannot hold; its files, which are mostly compressed like it, tell how large it is."""
    files = [path for each in subjects for path in _paths(each) if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    check_room({target(job.output).parent: size}, "choose another folder for the set")


def _check_alike(subjects: Sequence[_Files], measured: Sequence[_Measured]) -> None:
    """Refuse subjects of different units, or numbers of channels."""
    if len({each.origin.geometry.unit for each in measured}) > 1:
        raise DataProblem("The subjects have voxel sizes in different units; save all of them in millimetres.")
    first, count = subjects[0].name, measured[0].shape[0]
    for files, each in zip(subjects, measured, strict=True):
        if each.shape[0] != count:
            raise DataProblem(
                f"{files.name} has {each.shape[0]} channel(s), {first} has {count}; give the same channels of each."
            )


def _remove_kept(folder: Path) -> Iterator[str]:
    """Remove the subjects that were kept, also by conversions that were killed, and their folder if it is empty then.

    Yields
    ------
    str
        What could not be removed.
    """
    try:
        for path in folder.glob("*.npz"):
            if len(path.stem) == KEY_LENGTH or path.name.startswith(TEMPORARY):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        yield f"{folder} is needed no more and could not be removed ({error.strerror or error}); remove it."


def _paths(files: _Files) -> list[Path]:
    """List all files of a subject."""
    return [path for path in (*files.images, files.labels) if path is not None]


def _key(files: _Files, job: ConvertJob) -> str:
    """Give a subject a name by its files as they are now, and by what is made of them."""
    states = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in _paths(files)]
    return hashlib.sha256(repr((states, files.labels is not None, job.size)).encode()).hexdigest()[:KEY_LENGTH]


def _keep_all(subjects: Sequence[_Files], stored: Sequence[Path], folder: Path, job: ConvertJob) -> None:
    """Read the subjects that are not there yet, and refuse all that cannot be read together."""
    lines = list[str]()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for files, path in zip(subjects, stored, strict=True):
        if path.exists():
            continue
        try:
            subject = _load(files, job)
        except DataProblem as problem:
            lines += problem.lines
            continue
        with writing(path), replacing(path) as part:
            _keep(part, subject)
    if lines:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise DataProblem(*lines)


def _keep(path: Path, subject: _Subject) -> None:
    """Write a subject to a file."""
    origin = subject.origin
    arrays: dict[str, Any] = {"start": origin.box.start, "stop": origin.box.stop, "shape": origin.shape}
    arrays |= {name: getattr(origin, name) for name in ("affine", "orientation", "new_affine")}
    arrays |= {"geometry": as_text(origin.geometry), "notices": np.array(subject.notices, str)}
    arrays |= {} if subject.labels is None else {"labels": subject.labels}
    np.savez_compressed(path, image=subject.image, **arrays)


def _kept(path: Path) -> _Subject:
    """Read a subject that was written."""
    with reading(path), np.load(path) as file:
        arrays: dict[str, Any] = dict(file)
    box = Box(tuple(arrays["start"].tolist()), tuple(arrays["stop"].tolist()))
    shape, geometry = tuple(arrays["shape"].tolist()), as_geometry(str(arrays["geometry"]))
    origin = _Origin(box, shape, arrays["affine"], arrays["orientation"], geometry, arrays["new_affine"])
    return _Subject(arrays["image"], arrays.get("labels"), origin, tuple(arrays["notices"].tolist()))


def _found(job: ConvertJob) -> _Set:
    """Find the subjects: those with the files that were named, or all of a data set of a known kind."""
    if job.modalities:
        return _Set(_find(job), job.modalities, {}, [])
    cases = labelled_cases(job.folder, job.label_kind) if job.folder.is_dir() else None
    if cases is None:
        raise FileProblem(
            f"{job.folder} is no data set with labels of a known kind, such as FOLDER/ID/ID_t1.nii.gz and "
            "ID_seg.nii.gz; say what is in the folders of its subjects with --modalities and --labels."
        )
    subjects = [_Files(case.name, tuple(paths_of(case.image)), Path(case.label)) for case in cases.cases]
    notices = [cases.sentence]
    if any(case.mask for case in cases.cases):
        notices.append("Masks of the field of view are not in the set; give them to train and segment by --mask.")
    names = cases.channel_names or distinct_names(names_in(cases.cases[0].image))
    return _Set(subjects, names, cases.settings, notices)


def _find(job: ConvertJob) -> list[_Files]:
    """Find the files of each subject."""
    folders = [path for path in sorted(job.folder.iterdir()) if is_folder(path)] if job.folder.is_dir() else []
    if not folders:
        raise FileProblem(
            f"{job.folder} holds no folders of subjects; expected FOLDER/ID/ID_{job.modalities[0]}.nii.gz."
        )
    subjects, lines = list[_Files](), list[str]()
    for folder in folders:
        images = tuple(_file(folder, name, lines) for name in job.modalities)
        labels = _file(folder, job.labels, lines) if job.labels else None
        subjects.append(_Files(folder.name, images, labels))
    if lines:
        raise DataProblem(*lines)
    return subjects


def _file(folder: Path, ending: str, lines: list[str]) -> Path:
    """Find the file of a subject whose name is, or ends with, a modality; append what is wrong to ``lines``."""
    last = ending.casefold()
    readable = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(endings())]
    names = {path: stem_of(path).casefold() for path in readable if not path.name.startswith(".")}
    found = [
        path for path, name in names.items() if name == last or name.endswith(("_" + last, "-" + last, "." + last))
    ]
    if len(found) != 1:
        several = f"{len(found)} files ({', '.join(path.name for path in found)})" if found else "no file"
        lines.append(f"{folder.name} has {several} of {ending}; expected one, such as {folder.name}_{ending}.nii.gz.")
    return found[0] if found else folder


def _load(files: _Files, job: ConvertJob) -> _Subject:
    """Read a subject, crop it to its foreground, turn it and resize it."""
    try:
        notices = list[str]()
        volume = read_volume(joined(files.images), notices=notices)
        image = np.asarray(volume.data, np.float32)
        labels = None if files.labels is None else _labels(files.labels, volume, notices)
        box = _foreground([image] if labels is None else [image, labels])
    except UserError as problem:
        raise DataProblem(*(f"{files.name}: {line}" for line in problem.lines)) from problem
    affine = np.diag([*volume.spacing[::-1], 1.0]) if volume.affine is None else volume.affine
    start = step_to(start=box.start[::-1])
    orientation = orientation_of(affine)
    cut, new_affine = canonical(image[(slice(None), *box.slices)], affine @ start, orientation)
    cut_labels = None if labels is None else canonical(labels[(slice(None), *box.slices)], affine, orientation)[0]
    if job.size is not None and job.size != cut.shape[1:]:
        new_affine = new_affine @ step_of_resize(cut.shape[1:], job.size)
        cut = Resampled(cut, job.size, "linear")[:]
        cut_labels = None if cut_labels is None else Resampled(cut_labels, job.size, "nearest")[:]
    origin = _Origin(box, volume.shape, affine, orientation, volume.geometry, new_affine)
    return _Subject(cut, cut_labels, origin, tuple(f"{files.name}: {text}" for text in notices))


def _labels(path: Path, image: Volume, notices: list[str]) -> NDArray[Any]:
    """Read the labels of a subject, (1, Z, Y, X); append what was done to ``notices``."""
    stored = read_labels(path)
    labels = brought_onto(stored, image.grid)
    if labels is not stored:
        notices.append(f"{path.name} is stored along other axes than {image.name}, and was turned to them.")
    if found := difference(image.grid, labels.grid, "the image"):
        raise DataProblem(f"{path.name} {found.text}; resample it to the grid of the image (nearest neighbour).")
    return np.asarray(labels.data)


def _foreground(arrays: Sequence[NDArray[Any]]) -> Box:
    """Give the box around what is not zero in any array (C, Z, Y, X), enlarged by the margin."""
    inside = np.any([(np.abs(array) > FOREGROUND).any(axis=0) for array in arrays], axis=0)
    if not inside.any():
        raise DataProblem("all files hold only zeros; leave this subject out.")
    start, stop = [], []
    for axis in range(3):
        places = np.flatnonzero(inside.any(axis=tuple(i for i in range(3) if i != axis)))
        start.append(max(0, int(places[0]) - MARGIN))
        stop.append(min(inside.shape[axis], int(places[-1]) + 1 + MARGIN))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _measured(subject: _Subject) -> _Measured:
    image, labels, origin, notices = subject
    voxels = image.reshape(len(image), -1).astype(np.float64)
    highest = 0 if labels is None else int(labels.max())
    return _Measured(image.shape, voxels.mean(axis=1), voxels.std(axis=1), highest, origin, notices)


def _write(path: Path, found: _Set, stored: Sequence[Path], measured: Sequence[_Measured], job: ConvertJob) -> None:
    """Write all subjects: as one array if their sizes agree, else each as a group."""
    import h5py

    # Means of the means and of the standard deviations of the images, not of all voxels together.
    mean, std = (np.mean([getattr(each, name) for each in measured], axis=0) for name in ("mean", "std"))
    shapes, dtype = {each.shape for each in measured}, np.min_scalar_type(max(each.highest for each in measured))
    with h5py.File(path, "w") as file:
        _write_facts(file, found.subjects, [each.origin for each in measured])
        file.attrs.update({"axes": AXES, "modalities": list(found.modalities), "mean": mean, "std": std})
        file.attrs["settings"] = json.dumps(dict(found.settings))
        file.attrs["standardised"] = job.standardise
        for i, files in enumerate(found.subjects):
            image, labels, *_ = _kept(stored[i])
            if job.standardise:
                columns = (-1, 1, 1, 1)
                image = (image - mean.reshape(columns)) / np.where(std > 0, std, 1).reshape(columns)
            arrays = {"data": image.astype(np.float32)} | ({} if labels is None else {"truth": labels.astype(dtype)})
            for name, array in arrays.items():
                if len(shapes) > 1:
                    _dataset(file, f"subjects/{files.name}/{name}", array.shape, array.dtype)[:] = array
                    continue
                if not i:
                    _dataset(file, name, (len(found.subjects), *array.shape), array.dtype)
                file[name][i] = array


def _write_facts(file: Any, subjects: Sequence[_Files], origins: Sequence[_Origin]) -> None:
    """Write where each subject comes from, so that results can be put back."""
    import h5py

    texts = {
        "subject_ids": [files.name for files in subjects],
        "original_geometry": [as_text(each.geometry) for each in origins],
        "original_ending": [ending_of(files.images[0]) for files in subjects],
    }
    for name, rows in texts.items():
        file.create_dataset(name, data=rows, dtype=h5py.string_dtype())
    file["affine"] = np.stack([each.new_affine for each in origins]).astype(np.float32)
    file["crop_start"] = np.array([each.box.start for each in origins])
    file["crop_stop"] = np.array([each.box.stop for each in origins])
    file["original_shape"] = np.array([each.shape for each in origins])
    file["original_affine"] = np.stack([each.affine for each in origins])
    file["orientation"] = np.stack([each.orientation for each in origins])
    file.attrs["unit"] = origins[0].geometry.unit


def _dataset(file: Any, name: str, shape: Sequence[int], dtype: Any) -> Any:
    """Create a compressed dataset, chunk by chunk of a single image and channel."""
    chunks = (*(1,) * (len(shape) - 3), *(min(CHUNK, n) for n in shape[-3:]))
    return file.create_dataset(name, tuple(shape), dtype, chunks=chunks, compression="gzip", shuffle=True)
