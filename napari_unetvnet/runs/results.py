"""The results of a segmentation: allocated, written slab by slab, and delivered to the output paths.

A result is written to a file in the run folder and copied to its output path at the end. Only a zarr output is written
to a temporary folder beside its output path and renamed at the end, so that it is never stored twice (see `places`).
Planes that are reported as finished are on disk, in whole chunks.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.events import Event, Notice, SlabDone
from napari_unetvnet.files import writing
from napari_unetvnet.images.arrays import FileArray
from napari_unetvnet.images.class_names import tables_beside
from napari_unetvnet.images.formats import format_of
from napari_unetvnet.images.formats.ome_zarr import CHUNK_PLANES
from napari_unetvnet.images.io import write_labels, write_probabilities, write_uncertainty
from napari_unetvnet.images.refusals import times
from napari_unetvnet.images.room import check_room
from napari_unetvnet.images.subjects import placement_of
from napari_unetvnet.images.written import deliver as put_results
from napari_unetvnet.images.written import target
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.delivery import deliver_model
from napari_unetvnet.runs.folder import CLEANED, LABELS, MODEL, OBJECTS, PROBABILITIES, UNCERTAINTY
from napari_unetvnet.runs.inspect import maps_in
from napari_unetvnet.runs.outputs import lines_beside, table_beside
from napari_unetvnet.runs.places import DELIVERED, check_own, growing, labels_in, load_tags, new_tag, save_tags
from napari_unetvnet.runs.repeat import options_to_repeat
from napari_unetvnet.temporary import remove

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference import Slab
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.settings import Job, SegmentJob, TrainJob

__all__ = ["Delivery", "Results", "deliver", "labels_in", "open_labels"]

FILES = {"labels": LABELS, "probabilities": PROBABILITIES, "uncertainty": UNCERTAINTY}
"""The arrays of a slab and their files in the run folder."""
PLAIN = (".npy", ".nii")
"""Endings of formats that are not compressed."""
WRITE: dict[str, Callable[[Path, Any, Volume], None]] = {
    "labels": write_labels,
    "probabilities": write_probabilities,
    "uncertainty": write_uncertainty,
}


@dataclass(frozen=True, eq=False)
class _Spec:
    """Type, shape and output path of a result, and whether it is written beside that path."""

    dtype: Any
    shape: tuple[int, ...]
    output: Path | None
    beside: bool

    @property
    def size(self) -> int:
        """Its bytes, without compression."""
        return int(self.dtype.itemsize * prod(self.shape))


class Results:
    """The results of one run.

    Parameters
    ----------
    folder : Path
        The run folder.
    volume : Volume
        The image.
    """

    def __init__(self, folder: Path, job: SegmentJob, card: ModelCard, volume: Volume) -> None:
        self._folder, self._placement = folder, placement_of(job.image)
        self._volume = replace(volume, class_names=() if job.object_rule else card.names_by_value)
        self._points = () if volume.time is None else (volume.time.points,)
        self._specs = _specs(job, card, volume, grows=self._placement is None)
        # The slabs of a 2D network are one batch thick; thicker chunks would delay progress until a chunk is full.
        batch = (job.tile or (job.batch,))[0] if card.dims == 2 else CHUNK_PLANES
        self._chunk = 2 ** (min(batch, CHUNK_PLANES).bit_length() - 1)
        self._arrays: dict[str, Any] = {}
        for place in self._growing().values():
            check_own(place)

    @property
    def planes(self) -> int:
        """Planes per chunk: slabs must end at multiples of it, except the last one."""
        return max((array.chunks[-3] for array in self._arrays.values() if hasattr(array, "chunks")), default=1)

    def resume(self, finished: int) -> int:
        """Open the results of an interrupted run if all exist with the expected type and shape.

        Parameters
        ----------
        finished : int
            Number of planes that the run reported as finished, counted through all time points.

        Returns
        -------
        int
            Number of planes that need not be computed again; if 0, call `create`.
        """
        if not finished or not all(self._restored(kind, place) for kind, place in self._growing().items()):
            return 0
        paths = self._paths()
        try:
            arrays = {kind: _opened(paths[kind]) for kind in self._specs}
        except (OSError, ValueError, KeyError):
            return 0  # missing or truncated
        facts = {kind: (array.dtype, tuple(array.shape)) for kind, array in arrays.items()}
        depth = self._volume.shape[0]  # of each time point, whose last chunk may be incomplete
        beyond = finished > depth * prod(self._points)
        if beyond or facts != {kind: (spec.dtype, spec.shape) for kind, spec in self._specs.items()}:
            return 0
        self._arrays = arrays
        return finished // depth * depth + finished % depth // self.planes * self.planes

    def _restored(self, kind: str, place: Path) -> bool:
        """Write the metadata of a growing result anew, if its voxels are those of this run."""
        spec = self._specs[kind]
        with self._writing(kind):
            restore = _format_function(place, "restore")
            return bool(place.is_dir() and restore(place, spec.shape, spec.dtype, self._volume, self._chunk))

    def create(self) -> None:
        """Create empty results and remove those of an earlier run; if one cannot be created, none is left."""
        for path in self._growing().values():
            remove(path)
        with ExitStack() as undo:
            undo.callback(save_tags, self._folder, {})
            growing = {kind for kind, spec in self._specs.items() if spec.output and spec.beside}
            save_tags(self._folder, {kind: new_tag() for kind in growing})
            paths = self._growing()
            check_room(self._needs(paths), "choose other folders for the run and the output")
            for kind, spec in self._specs.items():
                path = paths.get(kind, self._folder / FILES[kind])
                undo.callback(remove, path)
                with self._writing(kind):
                    self._arrays[kind] = (
                        _format_function(path, "create")(path, spec.shape, spec.dtype, self._volume, self._chunk)
                        if kind in paths
                        else FileArray.create(path, spec.shape, spec.dtype)
                    )
            undo.pop_all()

    def _writing(self, kind: str) -> AbstractContextManager[None]:
        """Turn a failure to write a result into a sentence."""
        spec = self._specs[kind]
        path = spec.output if spec.beside and spec.output else self._folder / FILES[kind]
        return writing(path, "choose other folders for the run and the output", spec.size)

    def _needs(self, beside_output: Collection[str]) -> dict[Path, int]:
        """Give the bytes that are written to each folder; how small a compressed copy will be is not known."""
        needs = {self._folder: 0}
        for kind, spec in self._specs.items():
            if kind not in beside_output:
                needs[self._folder] += spec.size
            if spec.output is not None and kind not in beside_output and _is_plain(spec.output):
                folder = target(spec.output).parent
                needs[folder] = needs.get(folder, 0) + spec.size
        return needs

    def write(self, slab: Slab, number: int = 0) -> SlabDone:
        """Write finished planes of the image, or of a time point.

        Parameters
        ----------
        number : int
            Of the time point, among those that are written.

        Returns
        -------
        SlabDone
            Planes are counted through all time points.
        """
        stop, depth = slab.start + slab.labels.shape[-3], self._volume.shape[0]
        place = (number,) if self._points else ()
        for kind, array in self._arrays.items():
            with self._writing(kind):
                array[(*place, ..., slice(slab.start, stop), slice(None), slice(None))] = getattr(slab, kind)
        return SlabDone(number * depth + slab.start, number * depth + stop, depth * (self._points or (1,))[0])

    def deliver(self, labels: Any = None) -> Iterator[Event]:
        """Write all results to their output paths; results beside their output path are renamed last, all at once.

        Parameters
        ----------
        labels : array, optional
            Cleaned labels, written instead of those of the network.

        Yields
        ------
        Event
            Without data: the delivery may be stopped there and repeated.

        Raises
        ------
        FileProblem
            If a result cannot be written.
        """
        growing_places = self._growing()
        for kind, spec in self._specs.items():
            if place := growing_places.get(kind):
                yield from (Event() for _ in _format_function(place, "completing")(place))
            elif spec.output and not spec.beside:
                array = self._arrays[kind] if labels is None or kind != "labels" else labels
                like = self._volume
                if kind == "labels" and self._placement is not None:
                    array, like = self._placement.put_back(array[:], like)
                    yield Notice(
                        f"The labels are on the grid of the original image, {times(like.shape)} voxels (z y x)."
                    )
                self._write(kind, spec.output, array, like, cleaned=labels is not None)
        for kind, place in growing_places.items():
            if (output := self._specs[kind].output) is not None:
                _move(place, output)
                save_tags(self._folder, load_tags(self._folder) | {kind: DELIVERED})

    def _write(self, kind: str, output: Path, array: Any, like: Volume, *, cleaned: bool) -> None:
        """Write a result to its output; where that fails, say where the result is."""
        try:
            WRITE[kind](output, array, like)
        except (FileProblem, DataProblem) as problem:
            kept = self._folder / (CLEANED if cleaned and kind == "labels" else FILES[kind])
            raise type(problem)(*problem.lines, f"The result is complete in {kept}.") from problem

    def _places(self) -> dict[str, tuple[str, Path]]:
        """Return tag and path of each result that grows beside its output or was renamed to it."""
        return {
            kind: (tag, growing(output, tag))
            for kind, tag in load_tags(self._folder).items()
            if kind in self._specs and self._specs[kind].beside and (output := self._specs[kind].output)
        }

    def _growing(self) -> dict[str, Path]:
        """Return the path of each result that grows beside its output."""
        return {kind: place for kind, (tag, place) in self._places().items() if tag != DELIVERED}

    def _paths(self) -> dict[str, Path]:
        """Return the current path of each result."""
        outside = {kind: place for kind, (_, place) in self._places().items()}
        return {kind: self._folder / FILES[kind] for kind in self._specs} | outside


def _specs(job: SegmentJob, card: ModelCard, volume: Volume, *, grows: bool) -> dict[str, _Spec]:
    """Describe all results that a job asks for."""
    points = () if volume.time is None else (volume.time.points,)
    dtype, probabilities = np.dtype(np.float16), (*points, len(card.values), *volume.shape)
    labels = probabilities if card.overlapping else (*points, *volume.shape)
    specs = {
        "labels": _spec(job.output, np.min_scalar_type(max(card.values)), labels, grows=grows and not job.postprocessed)
    }
    if job.probabilities is not None:
        specs["probabilities"] = _spec(job.probabilities, dtype, probabilities)
    if job.uncertainty is not None:
        specs["uncertainty"] = _spec(job.uncertainty, dtype, (*points, *volume.shape))
    return specs


def _is_plain(output: Path) -> bool:
    """Whether a format keeps its voxels as they are, so that the size of a file is known."""
    return output.name.lower().endswith(PLAIN)


def _spec(output: Path | None, dtype: Any, shape: tuple[int, ...], *, grows: bool = True) -> _Spec:
    file_format = format_of(output) if output is not None else None
    return _Spec(np.dtype(dtype), shape, output, grows and file_format is not None and file_format.grows)


def _format_function(path: Path, name: str) -> Callable[..., Any]:
    """Import a function of the format of ``path``: "create", "restore", "open_image" or "completing"."""
    file_format = format_of(path)
    if file_format is None or not file_format.grows:
        raise ValueError(f"{path} is not of a format that can be written slab by slab")
    return file_format.function(name)


def _opened(path: Path) -> Any:
    return (
        FileArray.to_fill(path) if path.suffix == ".npy" else _format_function(path, "open_image")(path, writable=True)
    )


def _move(result: Path, output: Path) -> None:
    try:
        put_results([result], [output])
    except OSError as error:
        reason = error.strerror or error
        raise FileProblem(f"{output} cannot be replaced ({reason}); the result is {result}.") from error


def open_labels(path: Path, *, writable: bool = False) -> Any:
    """Open labels at a path from `labels_in` without reading them.

    Parameters
    ----------
    writable : bool
        Whether values can be changed in memory (copy-on-write; the file stays unchanged). Has no effect on zarr.

    Returns
    -------
    array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class; of a time series with T before these axes
    """
    if path.suffix != ".npy":
        return _format_function(path, "open_image")(path)
    return np.load(path, mmap_mode="c" if writable else "r")


class Delivery(NamedTuple):
    """The paths of the results, and what is to be said about them."""

    results: dict[str, str]
    notices: tuple[str, ...] = ()


def deliver(folder: Path, job: Job) -> Delivery:
    """Copy a model to its output path and return the paths of the results.

    Returns
    -------
    Delivery
        With "model", "steps" and "repeat" (the options that repeat the training); or "labels" and, if they were
        divided, "objects", or thinned, "lines", and tables of "class names"; or "maps"; empty if there is no result.

    Raises
    ------
    FileProblem
        If the model cannot be copied; it stays in the run folder.
    """
    from napari_unetvnet.settings import InspectJob, TrainJob

    if isinstance(job, InspectJob):
        return Delivery({"maps": str(maps)} if (maps := maps_in(folder, job)) else {})
    if isinstance(job, TrainJob):
        return _deliver_model(folder, job) if (folder / MODEL).exists() else Delivery({})
    labels = labels_in(folder, job)
    paths = {"labels": str((labels.suffix == ".npy" and job.output) or labels)} if labels.exists() else {}
    if job.output and (tables := _tables(job.output)):
        paths["class names"] = ", ".join(tables)
    if (folder / OBJECTS).exists():
        paths["objects"] = str(table_beside(job.output) if job.output else folder / OBJECTS)
    if labels.exists() and job.thin:
        paths["lines"] = ", ".join(str(lines_beside(job.output or folder / CLEANED, value)) for value in job.thin)
    return Delivery(paths)


def _tables(output: Path) -> list[str]:
    """List the tables of class names that were written beside a label file."""
    file_format = format_of(output)
    beside_it = tables_beside(output) if file_format and file_format.tables else ()
    return [str(table) for table in beside_it if table.exists()]


def _deliver_model(folder: Path, job: TrainJob) -> Delivery:
    card, path, notices = read_card(folder / MODEL), folder / MODEL, list[str]()
    steps, parent = card.steps - card.parent_steps, card.parent.partition(",")[0]
    if card.unchanged:
        notices.append(
            f"None of the {steps} steps scored better on the hold-out than {job.start_from or parent} (Dice "
            f"{card.scores['hold_out_dice']:.3f}), so the result is that model, unchanged."
        )
    if job.output is not None:
        path, others = deliver_model(folder, job.output)
        notices += others
    results = {"model": str(path), "steps": str(steps), "repeat": options_to_repeat(folder, job, steps)}
    return Delivery(results, tuple(notices))
