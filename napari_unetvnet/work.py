"""What a run does in its folder: read the inputs, train or segment, put the result where it was wanted.

Nothing here knows of events files, stopping or child processes; `job` asks for one event after the other.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from napari_unetvnet.card import find_model, read_card
from napari_unetvnet.cleaning import CLEANED, OBJECTS, finish, table_beside
from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Event, Notice, SlabDone
from napari_unetvnet.processes import ALONE, Team

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from napari_unetvnet.card import ModelCard
    from napari_unetvnet.inference import Slab
    from napari_unetvnet.settings import SegmentJob, TrainJob
    from napari_unetvnet.volume import Volume

__all__ = ["LABELS", "MODEL", "PLAN", "PROBABILITIES", "deliver", "labels_in", "segment", "train"]

MODEL, LABELS, PROBABILITIES, PLAN = "model.safetensors", "labels.npy", "probabilities.npy", "plan.json"


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
    """Segment in a run folder; ``labels.npy`` fills while it is computed.

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
    from napari_unetvnet.volume import intensity

    _check_outputs(job)
    path = find_model(job.model)
    volume = read_image(job.image, job)
    mask = None if job.mask is None else read_labels(job.mask, job.spacing).data
    model = load_model(path, job)
    arrays, first = _open(folder, _wanted(job, model.card, volume), finished)
    if first:
        yield Notice(f"Going on from plane {first}.")
    with own_memory(), of_one_size(model.device):
        scale = intensity(volume, model.card.normalise)
        if job.precision == "auto" and (text := inference.settle_precision(model, volume, job, scale)):
            yield Notice(text)
        likely = PROBABILITIES in arrays
        ladder = inference.Ladder(model, volume, job, folder)
        slabs = ladder.steps(first_plane=first, probabilities=likely, mask=mask, scale=scale)
        yield from _fill(arrays, slabs, volume.shape[0])
    if job.postprocessed:
        yield Notice("All planes are labelled; now the labels are cleaned.")
    arrays[LABELS] = finish(folder, job, arrays[LABELS], volume)
    _write_outputs(job, arrays, volume)


def _fill(arrays: dict[str, Any], slabs: Iterable[Slab | Notice], depth: int) -> Generator[SlabDone | Notice]:
    """Put slabs into the result files."""
    for slab in slabs:
        if isinstance(slab, Notice):
            yield slab
            continue
        stop = slab.start + slab.labels.shape[-3]
        arrays[LABELS][..., slab.start : stop, :, :] = slab.labels
        if slab.probabilities is not None:
            arrays[PROBABILITIES][:, slab.start : stop] = slab.probabilities
        for array in arrays.values():
            array.flush()
        yield SlabDone(slab.start, stop, depth)


def _check_outputs(job: SegmentJob) -> None:
    from napari_unetvnet.io import check_writable

    if job.output is not None:
        check_writable(job.output, "labels")
    if job.probabilities is not None:
        check_writable(job.probabilities, "probabilities")


def _write_outputs(job: SegmentJob, arrays: dict[str, Any], volume: Volume) -> None:
    from napari_unetvnet.io import write_labels, write_probabilities

    if job.output is not None:
        write_labels(job.output, arrays[LABELS], volume)
    if job.probabilities is not None:
        write_probabilities(job.probabilities, arrays[PROBABILITIES], volume)


def _wanted(job: SegmentJob, card: ModelCard, volume: Volume) -> dict[str, Any]:
    """Give type and shape of each result file."""
    import numpy as np

    shape = (len(card.values), *volume.shape) if card.overlapping else volume.shape
    wanted: dict[str, Any] = {LABELS: (np.min_scalar_type(max(card.values)), shape)}
    if job.probabilities is not None:
        wanted[PROBABILITIES] = (np.dtype(np.float16), (len(card.values), *volume.shape))
    return wanted


def _open(folder: Path, wanted: dict[str, Any], finished: int) -> tuple[dict[str, Any], int]:
    """Open the result files; those of an interrupted run only if all are what is wanted, else from the first plane."""
    from numpy.lib.format import open_memmap

    try:
        arrays = {name: open_memmap(folder / name, "r+") for name in wanted} if finished else {}
    except (OSError, ValueError):
        arrays = {}  # missing or cut off: made anew
    if arrays and all((arrays[name].dtype, arrays[name].shape) == wanted[name] for name in wanted):
        return arrays, finished
    return {name: open_memmap(folder / name, "w+", *kind) for name, kind in wanted.items()}, 0


def labels_in(folder: Path) -> Path:
    """Give the file with the labels of a run: the cleaned ones, if they are there.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
    """
    return folder / CLEANED if (folder / CLEANED).exists() else folder / LABELS


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
        found = {"labels": str(job.output or labels_in(folder))} if (folder / LABELS).exists() else {}
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
