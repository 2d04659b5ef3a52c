"""What a run does in its folder: read the inputs, train or segment, put the result where it was wanted.

Nothing here knows of events files, stopping or child processes; `job` asks for one event after the other.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.card import find_model, read_card
from napari_unetvnet.cleaning import OBJECTS, finish, table_beside
from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Event, Notice, SlabDone
from napari_unetvnet.processes import ALONE, Team
from napari_unetvnet.results import LABELS, PROBABILITIES, UNCERTAINTY, Results, labels_in, open_labels, whole_chunks

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unetvnet.inference import Slab
    from napari_unetvnet.model import Model
    from napari_unetvnet.settings import SegmentJob, TrainJob
    from napari_unetvnet.volume import Intensity, Volume

__all__ = [
    "LABELS",
    "MODEL",
    "PLAN",
    "PROBABILITIES",
    "SETTLED",
    "UNCERTAINTY",
    "deliver",
    "labels_in",
    "open_labels",
    "segment",
    "train",
]

MODEL, PLAN, SETTLED = "model.safetensors", "plan.json", "settled.json"


def train(folder: Path, job: TrainJob, *, resume: bool, team: Team = ALONE) -> Generator[Event]:
    """Train in a run folder.

    Parameters
    ----------
    folder : Path
    job : TrainJob
    resume : bool
    team : Team
        The processes that do it together; the first one plans.

    Yields
    ------
    Event
    """
    from napari_unetvnet import training
    from napari_unetvnet.checks import examine, notices
    from napari_unetvnet.compute import choose_device, own_memory
    from napari_unetvnet.inputs import pair_files, read_pair
    from napari_unetvnet.io import check_writable
    from napari_unetvnet.plan import load_plan, plan, save_plan
    from napari_unetvnet.record import save_record

    if job.output is not None:
        check_writable(job.output, "model")
    files = pair_files(job)
    pairs = [read_pair(each, job) for each in files]
    if not team.first:
        team.wait()  # for the plan
    made = load_plan(job, folder / PLAN) if resume or not team.first else None
    if made is None:
        made = plan(pairs, job, choose_device(job)[0].type)
        save_plan(made, folder / PLAN)
        for text in (*notices(examine(pairs, made.settings)), made.text):
            if text:
                yield Notice(text)
    if team.first:
        save_record(folder, files, *choose_device(job))
        team.wait()
    with own_memory():
        yield from training.steps(pairs, made.settings, folder, resume=resume, team=team)


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
    from napari_unetvnet.compute import of_one_size, own_memory
    from napari_unetvnet.inputs import read_image
    from napari_unetvnet.io import read_labels
    from napari_unetvnet.model import load_model

    _check_outputs(job)
    path = find_model(job.model)
    volume = read_image(job.image, job)
    mask = None if job.mask is None else read_labels(job.mask, job.spacing).data
    if job.uncertainty is not None and job.uncertainty_kind is None:
        job = job.model_copy(update={"uncertainty_kind": "entropy"})
    model, depth = load_model(path, job), volume.shape[0]
    results = Results(folder, job, model.card, volume)
    first = results.go_on(finished)
    if first:
        yield Notice(f"Going on from plane {first}.")
    elif finished:
        yield SlabDone(0, 0, depth)  # what an earlier run has said does not count any more
    if not first:
        results.begin()

    def told(found: Slab | Notice) -> SlabDone | Notice:
        return found if isinstance(found, Notice) else results.put(found)

    with own_memory(), of_one_size(model.device):
        scale = yield from _settled(folder / SETTLED, model, volume, job, again=bool(first))
        likely = job.probabilities is not None
        ladder = inference.Ladder(model, volume, job, folder)
        slabs = ladder.steps(first_plane=first, probabilities=likely, mask=mask, scale=scale)
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
    from napari_unetvnet.inference import settle_precision
    from napari_unetvnet.volume import Intensity, intensity

    known = _read(path) if again else {}
    if known:
        scale = Intensity(np.array(known["shift"], np.float32), np.array(known["scale"], np.float32))
    else:
        scale = intensity(volume, model.card.normalise)
    if known.get("device") == model.device.type and job.precision == "auto":
        model.move_to(model.device, known["precision"])
    elif job.precision == "auto" and (text := settle_precision(model, volume, job, scale)):
        yield Notice(text)
    facts = {"device": model.device.type, "precision": model.precision}
    facts |= {"shift": scale.shift.tolist(), "scale": scale.scale.tolist()}
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    part.replace(path)
    return scale


def _read(path: Path) -> dict[str, Any]:
    """Read a file with facts; empty if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _check_outputs(job: SegmentJob) -> None:
    """Refuse at once what cannot be written."""
    from napari_unetvnet.io import check_writable

    if job.output is not None:
        check_writable(job.output, "labels")
    if job.probabilities is not None:
        check_writable(job.probabilities, "probabilities")
    if job.uncertainty is not None:
        check_writable(job.uncertainty, "uncertainty")


def deliver(folder: Path, job: TrainJob | SegmentJob) -> dict[str, str]:
    """Put a model where it was wanted and say where the results are.

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
        found = {"labels": str((own.suffix == ".npy" and job.output) or own)} if own.exists() else {}
        if (folder / OBJECTS).exists():
            found["objects"] = str(table_beside(job.output) if job.output else folder / OBJECTS)
        return found
    if not (folder / MODEL).exists():
        return {}
    steps = str(read_card(folder / MODEL).steps)
    if job.output is None:
        return {"model": str(folder / MODEL), "steps": steps}
    part = job.output.with_name(job.output.name + ".part")
    try:
        shutil.copyfile(folder / MODEL, part)
        part.replace(job.output)
    except OSError as error:
        raise FileProblem(f"{job.output} cannot be written ({error}); the model is {folder / MODEL}.") from None
    return {"model": str(job.output), "steps": steps}
