"""Segment in a run folder: read the image, label it slab by slab, deliver the results.

Events files, stopping and child processes are handled by `running`, which consumes the events one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Event, Notice, SlabDone
from napari_unetvnet.images.same_file import same_or_inside
from napari_unetvnet.images.written import claimed, refuse_foreign
from napari_unetvnet.json_files import read_sealed, write_sealed
from napari_unetvnet.runs.clean import finish
from napari_unetvnet.runs.folder import FALLBACK, LABELS, SETTLED
from napari_unetvnet.runs.models import find_model
from napari_unetvnet.runs.objects import settle_objects
from napari_unetvnet.runs.outputs import outputs_of
from napari_unetvnet.runs.region import find_region
from napari_unetvnet.runs.results import Results, open_labels
from napari_unetvnet.runs.segment_inputs import OneInput, SegmentInputs
from napari_unetvnet.runs.whole_chunks import whole_chunks

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference import Slab
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentJob

__all__ = ["segment"]

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class _Settled:
    """Normalisation and precision of a run: shift and scale of each channel, as of `Intensity`."""

    device: str
    precision: Literal["fp32", "bf16", "fp16"]
    shift: tuple[Finite, ...]
    scale: tuple[Finite, ...]
    clipped: bool


def segment(folder: Path, job: SegmentJob, *, finished: int) -> Generator[Event]:
    """Segment in a run folder; the results are written slab by slab.

    Parameters
    ----------
    finished : int
        Number of planes that an interrupted run of the folder has finished.

    Yields
    ------
    Event
    """
    _check_outputs(job)
    with claimed(path for path in (job.output, job.probabilities, job.uncertainty) if path) as unrecorded:
        if unrecorded:
            yield Notice(unrecorded)
        yield from _segment(folder, job, finished=finished)


def _segment(folder: Path, job: SegmentJob, *, finished: int) -> Generator[Event]:
    """Segment to outputs that no other run writes, a time series time point by time point."""
    from napari_unetvnet.model.device import autotuned_convolutions, keep_freed_memory
    from napari_unetvnet.runs.loaded import loaded_model

    path = find_model(job.model)
    model = loaded_model(path, job, job.option)
    inputs = SegmentInputs(job, model.card)
    yield from map(Notice, inputs.notices)
    first = inputs.at(0)
    job, notices = _completed(inputs.job, model.card, first.volume)
    _keep_files(folder, job, path)
    _check(model, job, first.volume)
    yield from map(Notice, (*first.notices, *notices, *_of_image(model, job, first.volume)))
    results = Results(folder, job, model.card, first.volume)
    depth = first.volume.shape[0]
    done = yield from _begin(results, finished, depth * inputs.count)
    with keep_freed_memory(), autotuned_convolutions(model.device):
        for number in range(done // depth, inputs.count):
            yield from _segment_one(folder, job, model, inputs, number, results, done - number * depth)
    if not job.postprocessed:
        yield from results.deliver()
        return
    yield Notice("All planes are labelled. Cleaning the labels.")
    yield from results.deliver(finish(folder, job, open_labels(folder / LABELS, writable=True), first.volume))


def _segment_one(
    folder: Path, job: SegmentJob, model: Model, inputs: SegmentInputs, number: int, results: Results, done: int
) -> Generator[Event]:
    """Segment the image, or a time point of a series, from a plane on."""
    from napari_unetvnet import inference

    image, first = inputs.at(number), max(0, done)
    whole, volume, depth = image.whole, image.volume, image.volume.shape[0]

    def store(item: Slab | Notice) -> SlabDone | Notice:
        return item if isinstance(item, Notice) else results.write(item, number)

    if number and not first:
        yield Notice(f"Time point {inputs.points[number]}.")
    mask = yield from find_region(folder, job, whole, image.mask, again=bool(first))
    found = image._replace(mask=mask)
    scale = yield from _settled(folder / SETTLED, model, found, job, again=bool(first), later=number > 0)
    fallback = inference.FallbackSteps(model, volume, job, folder / FALLBACK)
    slabs = fallback.steps(first_plane=first, probabilities=job.probabilities is not None, mask=mask, scale=scale)
    yield from inference.finish_in_background(store, whole_chunks(slabs, results.planes, depth))


def _check(model: Model, job: SegmentJob, volume: Volume) -> None:
    """Raise early if the model does not fit the image, or the outputs the result."""
    from napari_unetvnet import inference

    inference.check_fits(model, volume, job)
    _check_sizes(job, model.card, volume)


def _of_image(model: Model, job: SegmentJob, volume: Volume) -> list[str]:
    """Say what is done about a small image, and about its place."""
    from napari_unetvnet import inference

    small = inference.small_image_notice(model, inference.resample_for(model.card, volume, job), job.view)
    return [text for text in (small, *_of_space(job, volume)) if text]


def _begin(results: Results, finished: int, depth: int) -> Generator[Event, None, int]:
    """Create the results, or resume those of an interrupted run, and give the first plane to label."""
    first = results.resume(finished)
    if first:
        yield Notice(f"Resuming from plane {first}.")
        return first
    if finished:
        yield SlabDone(0, 0, depth)  # resets the progress of the earlier run
    results.create()
    return first


def _completed(job: SegmentJob, card: ModelCard, volume: Volume) -> tuple[SegmentJob, list[str]]:
    """Choose what the job leaves open; notices say what is not as it may be expected."""
    if job.uncertainty is not None and job.uncertainty_kind is None:
        job = job.model_copy(update={"uncertainty_kind": "entropy"})
    job, divided = settle_objects(job, card, volume)
    return job, [text for text in (card.one_stage if job.cascade else "", divided) if text]


def _settled(
    path: Path, model: Model, image: OneInput, job: SegmentJob, *, again: bool, later: bool
) -> Generator[Notice, None, Intensity]:
    """Choose normalisation and precision; a resumed run reuses them unless the device type has changed.

    Each time point of a series is normalised by itself; a later one is computed in the number format of the one before.

    Yields
    ------
    Notice

    Returns
    -------
    Intensity
    """
    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.inference import choose_precision, scale_notices
    from napari_unetvnet.model.normalisation import measured_normalisation

    volume, mask, stored = image.volume, image.mask, None
    try:
        stored = _read(path, volume.channels) if again or later else None
    except FileProblem as problem:
        yield Notice(str(problem))
    if stored is not None and again:
        shift, factor = np.array(stored.shift, np.float32), np.array(stored.scale, np.float32)
        scale = Intensity(shift, factor, clipped=stored.clipped)
    else:
        hides_all = job.region_model is not None and not any(mask[0, z].any() for z in range(volume.shape[0]))
        scale = measured_normalisation(volume, model.card, None if hides_all else mask)
        for text in scale_notices(model.card, scale, volume.name, masked=mask is not None, missing=image.missing):
            yield Notice(text)
    if stored is not None and stored.device == model.device.type and job.precision == "auto":
        model.move_to(model.device, stored.precision)
    elif job.precision == "auto" and (text := choose_precision(model, volume, job, scale)):
        yield Notice(text)
    facts: dict[str, Any] = {"device": model.device.type, "precision": model.precision}
    facts |= {"shift": scale.shift.tolist(), "scale": scale.scale.tolist(), "clipped": scale.clipped}
    write_sealed(path, facts)
    return scale


def _read(path: Path, channels: int) -> _Settled:
    """Read the normalisation and precision that an earlier run chose."""
    advice = "normalisation and precision are chosen again"
    stored = read_sealed(path, _Settled, advice)
    if {len(stored.shift), len(stored.scale)} != {channels}:
        raise FileProblem(f"{path} is of an image with another number of channels than {channels}; {advice}.")
    return stored


def _check_outputs(job: SegmentJob) -> None:
    """Raise early if an output cannot be written."""
    from napari_unetvnet.images.io import check_writable

    if job.output is not None:
        check_writable(job.output, "labels")
    if job.probabilities is not None:
        check_writable(job.probabilities, "probabilities")
    if job.uncertainty is not None:
        check_writable(job.uncertainty, "uncertainty")


def _keep_files(folder: Path, job: SegmentJob, model: Path) -> None:
    """Refuse results, and tables beside them, in the place of what is read, or of what someone else has written."""
    from napari_unetvnet.images.outputs import refuse_replacing

    models = (model, find_model(job.region_model)) if job.region_model else (model,)
    refuse_replacing(outputs_of(job), (job.image, *([job.mask] if job.mask else []), *models))
    outside = [path for path in outputs_of(job) if not same_or_inside(path, folder)]  # the run folder is its own
    refuse_foreign(outside, overwrite=job.overwrite)


def _of_space(job: SegmentJob, volume: Volume) -> list[str]:
    """Say which voxel size is not used, and which outputs cannot hold where the image lies."""
    from napari_unetvnet.images.outputs import place_not_kept
    from napari_unetvnet.runs.inputs import spacing_notice

    paths = [path for path in (job.output, job.probabilities, job.uncertainty) if path is not None]
    texts = spacing_notice([(volume.name, volume.geometry)], job), *(place_not_kept(path, volume) for path in paths)
    return [text for text in texts if text]


def _check_sizes(job: SegmentJob, card: ModelCard, volume: Volume) -> None:
    """Raise early if the format of an output cannot hold the result; the number of objects is not known yet."""
    from napari_unetvnet.images.outputs import check_fits

    masks, points = (len(card.values), *volume.shape), 1 if volume.time is None else volume.time.points
    if job.output is not None:
        shape = masks if card.overlapping and not job.postprocessed else volume.shape
        check_fits(job.output, "labels", shape, max(card.values), points=points)
    if job.probabilities is not None:
        check_fits(job.probabilities, "probabilities", masks, points=points)
    if job.uncertainty is not None:
        check_fits(job.uncertainty, "uncertainty", volume.shape, points=points)
