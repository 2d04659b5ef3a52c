"""The results of a segmentation: where they lie, how they are filled, and how they get to their destination.

A result grows in a file of the run folder and is copied to its place in the end; but one whose output is a zarr
folder grows beside its place, with a name of its own, and is only renamed, so that there never are two of it.
``results.json`` in the run folder says where such a one is. What is said to be finished is on the disk, in whole
chunks.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Event, Notice, SlabDone
from napari_unetvnet.files import beside, put_in_place, read_json, remove, replacing, write_json, writing
from napari_unetvnet.images.arrays import FileArray
from napari_unetvnet.images.formats import format_of
from napari_unetvnet.images.formats.ome_zarr import CHUNK_PLANES
from napari_unetvnet.images.io import write_labels, write_probabilities, write_uncertainty
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.clean import table_beside
from napari_unetvnet.runs.folder import CLEANED, LABELS, MODEL, OBJECTS, PLACES, PROBABILITIES, UNCERTAINTY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference import Slab
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.settings import SegmentJob, TrainJob

__all__ = ["Results", "deliver", "labels_in", "open_labels", "whole_chunks"]

FILES = {"labels": LABELS, "probabilities": PROBABILITIES, "uncertainty": UNCERTAINTY}
"""The parts of a slab, and their files in the run folder."""
WRITE: dict[str, Callable[[Path, Any, Volume], None]] = {
    "labels": write_labels,
    "probabilities": write_probabilities,
    "uncertainty": write_uncertainty,
}


@dataclass(frozen=True, eq=False)
class _ResultPlan:
    """Type and shape of a result, its output, and whether it grows beside that."""

    dtype: Any
    shape: tuple[int, ...]
    output: Path | None
    beside: bool


class Results:
    """The results of one run.

    Parameters
    ----------
    folder : Path
        The run's.
    job : SegmentJob
    card : ModelCard
    volume : Volume
        The image.
    """

    def __init__(self, folder: Path, job: SegmentJob, card: ModelCard, volume: Volume) -> None:
        self._folder, self._volume = folder, volume
        self._plans = _plans(job, card, volume)
        # Of a network of planes a slab is a batch; were chunks thicker, nothing would be said until one is full.
        batch = (job.tile or (job.batch,))[0] if card.dims == 2 else CHUNK_PLANES
        self._chunk = 2 ** (min(batch, CHUNK_PLANES).bit_length() - 1)
        self._arrays: dict[str, Any] = {}

    @property
    def planes(self) -> int:
        """By how many planes results must be filled, but for the last ones."""
        return max((array.chunks[-3] for array in self._arrays.values() if hasattr(array, "chunks")), default=1)

    def go_on(self, finished: int) -> int:
        """Open what an interrupted run has left, if it is complete and of the right type and shape.

        Parameters
        ----------
        finished : int
            Planes that were said to be done.

        Returns
        -------
        int
            Planes that need not be computed again; if 0, the results are yet to be made.
        """
        places = self._places()
        try:
            arrays = {kind: _opened(places[kind]) for kind in self._plans} if finished else {}
        except (OSError, ValueError, KeyError):
            return 0  # missing or cut off
        facts = {kind: (array.dtype, tuple(array.shape)) for kind, array in arrays.items()}
        if facts != {kind: (plan.dtype, plan.shape) for kind, plan in self._plans.items()}:
            return 0
        self._arrays = arrays
        return finished if finished == self._volume.shape[0] else finished // self.planes * self.planes

    def begin(self) -> None:
        """Make the results anew."""
        for kind, place in self._places().items():
            if self._plans[kind].beside and place != self._plans[kind].output:
                remove(place)
        places = {
            kind: beside(plan.output, "part-")
            for kind, plan in self._plans.items()
            if plan.output is not None and plan.beside
        }
        _note_places(self._folder, places)
        for kind, plan in self._plans.items():
            if kind in places:
                self._arrays[kind] = _format_function(places[kind], "create")(
                    places[kind], plan.shape, plan.dtype, self._volume, self._chunk
                )
            else:
                self._arrays[kind] = FileArray.create(self._folder / FILES[kind], plan.shape, plan.dtype)

    def put(self, slab: Slab) -> SlabDone:
        """Write finished planes.

        Parameters
        ----------
        slab : Slab

        Returns
        -------
        SlabDone
        """
        stop = slab.start + slab.labels.shape[-3]
        for kind, array in self._arrays.items():
            array[..., slab.start : stop, :, :] = getattr(slab, kind)
        return SlabDone(slab.start, stop, self._volume.shape[0])

    def deliver(self, labels: Any = None) -> Iterator[Event]:
        """Write or move all results to their outputs; those that grew beside their output are moved last, all at once.

        Parameters
        ----------
        labels : array, optional
            What is made of the labels, to be written in their stead.

        Yields
        ------
        Event
            That says nothing: it may be left at that, and begun again.

        Raises
        ------
        FileProblem
            If one cannot be written.
        """
        places, moves = self._places(), {}
        for kind, plan in self._plans.items():
            if plan.beside and plan.output and places[kind] != plan.output:
                yield from (Event() for _ in _format_function(places[kind], "completing")(places[kind]))
                moves[kind] = plan.output
            elif plan.output and not plan.beside:
                own = self._arrays[kind]
                WRITE[kind](plan.output, own if labels is None or kind != "labels" else labels, self._volume)
        for kind, output in moves.items():
            _move(places[kind], output)
            _note_places(self._folder, _noted_places(self._folder) | {kind: output})

    def _places(self) -> dict[str, Path]:
        """Give where each result grows, or is, if that is noted."""
        return {kind: self._folder / FILES[kind] for kind in self._plans} | {
            kind: place for kind, place in _noted_places(self._folder).items() if kind in self._plans
        }


def _plans(job: SegmentJob, card: ModelCard, volume: Volume) -> dict[str, _ResultPlan]:
    """Give all results that a job is to have."""
    labels = (len(card.values), *volume.shape) if card.overlapping else volume.shape
    half, likely = np.dtype(np.float16), (len(card.values), *volume.shape)
    plans = {"labels": _place(job.output, np.min_scalar_type(max(card.values)), labels, grows=not job.postprocessed)}
    if job.probabilities is not None:
        plans["probabilities"] = _place(job.probabilities, half, likely)
    if job.uncertainty is not None:
        plans["uncertainty"] = _place(job.uncertainty, half, volume.shape)
    return plans


def _place(output: Path | None, dtype: Any, shape: tuple[int, ...], *, grows: bool = True) -> _ResultPlan:
    chosen = format_of(output) if output is not None else None
    return _ResultPlan(np.dtype(dtype), shape, output, grows and chosen is not None and chosen.grows)


def _format_function(place: Path, name: str) -> Callable[..., Any]:
    """Import what the format of a result that grows beside its place is made, opened or completed with."""
    chosen = format_of(place)
    if chosen is None or not chosen.grows:
        raise ValueError(f"{place} is not of a format in which results grow")
    return chosen.function(name)


def _opened(place: Path) -> Any:
    return FileArray(place) if place.suffix == ".npy" else _format_function(place, "open_image")(place, writable=True)


def _move(source: Path, output: Path) -> None:
    try:
        put_in_place([source], [output])
    except OSError as error:
        reason = error.strerror or error
        raise FileProblem(f"{output} cannot be replaced ({reason}); the result is {source}.") from error


def _note_places(folder: Path, places: dict[str, Path]) -> None:
    """Note where the results are that do not lie in the run folder."""
    if not places:
        (folder / PLACES).unlink(missing_ok=True)
        return
    write_json(folder / PLACES, {kind: str(place) for kind, place in places.items()})


def _noted_places(folder: Path) -> dict[str, Path]:
    """Give where the results are that do not lie in the run folder."""
    if not (folder / PLACES).exists():
        return {}
    advice = "start a new run, and remove the folders part-... beside the results"
    return {kind: Path(str(place)) for kind, place in read_json(folder / PLACES, dict, advice).items()}


def labels_in(folder: Path) -> Path:
    """Give the file or zarr folder with the labels of a run: the cleaned ones, if they are there.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
    """
    if (folder / CLEANED).exists():
        return folder / CLEANED
    return _noted_places(folder).get("labels", folder / LABELS)


def open_labels(path: Path, *, writable: bool = False) -> Any:
    """Open labels where `labels_in` says that they are, unread.

    Parameters
    ----------
    path : Path
    writable : bool
        Whether values may be changed, which does not change the file; of a zarr folder they may not.

    Returns
    -------
    array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
    """
    if path.suffix != ".npy":
        return _format_function(path, "open_image")(path)
    return np.load(path, mmap_mode="c" if writable else "r")


def whole_chunks(slabs: Iterable[Slab | Notice], planes: int, depth: int) -> Iterator[Slab | Notice]:
    """Cut slabs anew, so that each ends where a chunk does.

    Parameters
    ----------
    slabs : iterable of Slab or Notice
        Slabs in order and without gaps; the first begins where a chunk does. Notices go through.
    planes : int
        Of a chunk.
    depth : int
        Planes in all; where they end, no chunk need end.

    Yields
    ------
    Slab or Notice
        At most the planes of one chunk are held back.
    """
    rest: Slab | None = None  # planes of a chunk that is not full; a copy, so that what it was cut from can go
    for slab in slabs:
        if isinstance(slab, Notice):
            yield slab
            continue
        begin, stop = slab.start, slab.start + slab.labels.shape[-3]
        first = min(-(-begin // planes) * planes, stop)
        last = stop if stop == depth else max(first, stop // planes * planes)
        if begin < first:
            head = slab.cut(0, first - begin)
            rest = head.copied() if rest is None else rest.joined(head)
            if first % planes == 0 or first == depth:
                yield rest
                rest = None
        if first < last:
            yield slab.cut(first - begin, last - begin)
        if last < stop:
            rest = slab.cut(last - begin, stop - begin).copied()
        del slab


def deliver(folder: Path, job: TrainJob | SegmentJob) -> dict[str, str]:
    """Copy a model to its output, and say where the results are.

    Parameters
    ----------
    folder : Path
    job : TrainJob or SegmentJob

    Returns
    -------
    dict
        "model" and "steps", or "labels" and, if they were divided, "objects"; empty if there is no result.

    Raises
    ------
    FileProblem
        If the model cannot be copied; it is in the folder all the same.
    """
    from napari_unetvnet.settings import TrainJob

    if not isinstance(job, TrainJob):
        own = labels_in(folder)
        delivered = {"labels": str((own.suffix == ".npy" and job.output) or own)} if own.exists() else {}
        if (folder / OBJECTS).exists():
            delivered["objects"] = str(table_beside(job.output) if job.output else folder / OBJECTS)
        return delivered
    if not (folder / MODEL).exists():
        return {}
    steps = str(read_card(folder / MODEL).steps)
    if job.output is None:
        return {"model": str(folder / MODEL), "steps": steps}
    with writing(job.output, f"the model is {folder / MODEL}"), replacing(job.output) as part:
        shutil.copyfile(folder / MODEL, part)
    return {"model": str(job.output), "steps": steps}
