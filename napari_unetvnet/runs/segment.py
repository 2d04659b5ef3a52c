"""Segment in a run folder: read the image, label it slab by slab, put the results where they are to be.

Nothing here knows of events files, stopping or child processes; `running` asks for one event after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Event, Notice, SlabDone
from napari_unetvnet.files import read_json, write_json
from napari_unetvnet.runs.clean import finish
from napari_unetvnet.runs.folder import FALLBACK, LABELS, SETTLED
from napari_unetvnet.runs.models import find_model
from napari_unetvnet.runs.results import Results, open_labels, whole_chunks

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unetvnet.images.volume import Intensity, Volume
    from napari_unetvnet.inference import Slab
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentJob

__all__ = ["segment"]


def segment(folder: Path, job: SegmentJob, *, finished: int) -> Generator[Event]:
    """Segment in a run folder; the results fill while they are computed.

    Parameters
    ----------
    folder : Path
    job : SegmentJob
    finished : int
        Planes that an interrupted run of the folder has done.

    Yields
    ------
    Event
    """
    from napari_unetvnet import inference
    from napari_unetvnet.images.io import read_labels
    from napari_unetvnet.model.device import autotuned_convolutions, keep_freed_memory
    from napari_unetvnet.model.model import load_model
    from napari_unetvnet.runs.inputs import read_image

    _check_outputs(job)
    path = find_model(job.model)
    volume = read_image(job.image, job)
    mask = None if job.mask is None else read_labels(job.mask, job.spacing).data
    if job.uncertainty is not None and job.uncertainty_kind is None:
        job = job.model_copy(update={"uncertainty_kind": "entropy"})
    model, depth = load_model(path, job), volume.shape[0]
    _check_sizes(job, model.card, volume)
    results = Results(folder, job, model.card, volume)
    first = results.go_on(finished)
    if first:
        yield Notice(f"Resuming from plane {first}.")
    elif finished:
        yield SlabDone(0, 0, depth)  # what an earlier run has said does not count any more
    if not first:
        results.begin()

    def told(found: Slab | Notice) -> SlabDone | Notice:
        return found if isinstance(found, Notice) else results.put(found)

    with keep_freed_memory(), autotuned_convolutions(model.device):
        scale = yield from _settled(folder / SETTLED, model, volume, job, again=bool(first))
        likely = job.probabilities is not None
        fitting = inference.FallbackSteps(model, volume, job, folder / FALLBACK)
        slabs = fitting.steps(first_plane=first, probabilities=likely, mask=mask, scale=scale)
        yield from inference.behind(told, whole_chunks(slabs, results.planes, depth))
    if not job.postprocessed:
        yield from results.deliver()
        return
    yield Notice("All planes are labelled; now the labels are cleaned.")
    yield from results.deliver(finish(folder, job, open_labels(folder / LABELS, writable=True), volume))


def _settled(
    path: Path, model: Model, volume: Volume, job: SegmentJob, *, again: bool
) -> Generator[Notice, None, Intensity]:
    """Choose normalisation and number format; a resumed run keeps to them, unless the device is of another kind."""
    from napari_unetvnet.images.volume import Intensity, intensity
    from napari_unetvnet.inference import choose_precision

    known: dict[str, Any] = {}
    try:
        known = _read(path) if again else {}
    except FileProblem as problem:
        yield Notice(str(problem))
    if known:
        scale = Intensity(np.array(known["shift"], np.float32), np.array(known["scale"], np.float32))
    else:
        scale = intensity(volume, model.card.normalise)
    if known.get("device") == model.device.type and job.precision == "auto":
        model.move_to(model.device, known["precision"])
    elif job.precision == "auto" and (text := choose_precision(model, volume, job, scale)):
        yield Notice(text)
    facts = {"device": model.device.type, "precision": model.precision}
    facts |= {"shift": scale.shift.tolist(), "scale": scale.scale.tolist()}
    write_json(path, facts)
    return scale


def _read(path: Path) -> dict[str, Any]:
    """Read what an earlier run has chosen."""
    advice = "normalisation and number format are chosen again"
    known = read_json(path, dict, advice)
    if missing := ", ".join(sorted({"device", "precision", "scale", "shift"} - set(known))):
        raise FileProblem(f"{path} holds no {missing}; {advice}.")
    return known


def _check_outputs(job: SegmentJob) -> None:
    """Refuse at once what cannot be written."""
    from napari_unetvnet.images.io import check_writable

    if job.output is not None:
        check_writable(job.output, "labels")
    if job.probabilities is not None:
        check_writable(job.probabilities, "probabilities")
    if job.uncertainty is not None:
        check_writable(job.uncertainty, "uncertainty")


def _check_sizes(job: SegmentJob, card: ModelCard, volume: Volume) -> None:
    """Refuse at once what the format of an output cannot hold; how many objects there will be is not known yet."""
    from napari_unetvnet.images.outputs import check_fits

    masks = (len(card.values), *volume.shape)
    if job.output is not None:
        shape = masks if card.overlapping and not job.postprocessed else volume.shape
        check_fits(job.output, "labels", shape, max(card.values))
    if job.probabilities is not None:
        check_fits(job.probabilities, "probabilities", masks)
    if job.uncertainty is not None:
        check_fits(job.uncertainty, "uncertainty", volume.shape)
