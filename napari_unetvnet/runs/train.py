"""Train in a run folder: read the images and labels, check and plan, then train.

Events files, stopping and child processes are handled by `running`, which consumes the events one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Event, Notice
from napari_unetvnet.images.written import claimed
from napari_unetvnet.model.provenance import describe_input, read_inputs, save_provenance
from napari_unetvnet.runs.attempts import train_until_it_learns
from napari_unetvnet.runs.folder import JOB, PAIRS, PLAN, PROVENANCE, training_files
from napari_unetvnet.runs.resumed import changed_labels, original_order
from napari_unetvnet.training.processes import SINGLE, ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unetvnet.images.pairs import Pair, PairFiles
    from napari_unetvnet.model.provenance import Earlier, Input
    from napari_unetvnet.settings import TrainJob
    from napari_unetvnet.training.files import TrainingFiles

__all__ = ["train"]

BOTH_KEPT = "Of the two models none is lost: the one that is ready later gets a name of its own."


def train(folder: Path, job: TrainJob, *, resume: bool, group: ProcessGroup = SINGLE) -> Generator[Event]:
    """Train in a run folder.

    Parameters
    ----------
    group : ProcessGroup
        The processes of a distributed training; rank 0 plans.

    Yields
    ------
    Event
    """
    from napari_unetvnet.images.io import check_writable

    if job.output is not None:
        check_writable(job.output, "model")
    with claimed([job.output] if job.output is not None and group.is_first else [], shared=BOTH_KEPT) as told:
        if told:
            yield Notice(told)
        yield from _train(folder, job, resume=resume, group=group)


def _train(folder: Path, job: TrainJob, *, resume: bool, group: ProcessGroup) -> Generator[Event]:
    """Train to an output."""
    from napari_unetvnet.data.checks import examine, notices, refuse_contradictions
    from napari_unetvnet.images.pair_table import write_pairs_csv
    from napari_unetvnet.model.device import choose_device, keep_freed_memory
    from napari_unetvnet.training.loop import steps
    from napari_unetvnet.training.plan import load_plan, plan, save_plan

    files = training_files(folder, job.output)
    inputs = _read(folder, job, resume=resume)
    job = inputs.job
    if not group.is_first:
        group.barrier()  # wait until rank 0 has saved the plan
    if resume and files.state.exists():
        inputs = _compared(inputs, folder, files)
    yield from map(Notice, inputs.notices)
    planned = load_plan(job, folder / PLAN) if resume or not group.is_first else None
    if planned is None:
        planned = plan(inputs.pairs, job, choose_device(job)[0].type)
        report = examine(inputs.pairs, planned.settings)
        refuse_contradictions(report)
        save_plan(planned, folder / PLAN)
        texts = (*notices(report), planned.understood, planned.text)
        yield from (Notice(text) for text in texts if text)
    if group.is_first:
        write_pairs_csv(folder / PAIRS, inputs.files)
        save_provenance(folder / PROVENANCE, inputs.described, *choose_device(job), inputs.earlier)
        group.barrier()
    with keep_freed_memory():
        if group.distributed:
            yield from steps(inputs.pairs, planned.settings, files, resume=resume, group=group)
        else:
            yield from train_until_it_learns(folder, inputs.pairs, job, planned, files, resume=resume)


class _Inputs(NamedTuple):
    """The job with what its folder says of labels, images with labels, and what a resumed run was trained on before."""

    job: TrainJob
    files: list[PairFiles]
    pairs: list[Pair]
    described: list[Input]
    earlier: list[Earlier]
    notices: list[str]


def _read(folder: Path, job: TrainJob, *, resume: bool) -> _Inputs:
    """Read the images and labels of a job."""
    from napari_unetvnet.images.identity import content_hash
    from napari_unetvnet.runs.inputs import find_inputs, keep_inputs, read_pair, spacing_notice

    try:
        inputs = find_inputs(job)
        keep_inputs([job.output] if job.output else [], inputs)
        files, job, notices = inputs
        pairs = [read_pair(each, job, notices) for each in files]
    except FileProblem as problem:
        if not resume:
            raise
        raise FileProblem(
            *problem.lines, f"If it was moved, write its new place into {folder / JOB}, and resume the run again."
        ) from problem
    described = [describe_input(each, content_hash(pair.image)) for each, pair in zip(files, pairs, strict=True)]
    unused = spacing_notice([(pair.image.name, pair.image.geometry) for pair in pairs], job)
    return _Inputs(job, files, pairs, described, [], [*notices, unused] if unused else notices)


def _compared(inputs: _Inputs, folder: Path, files: TrainingFiles) -> _Inputs:
    """Bring the inputs of a resumed run into their first order, and name the labels that have changed."""
    from napari_unetvnet.training.resume import read_saved

    if not (folder / PROVENANCE).exists():
        return inputs
    try:
        old, earlier = read_inputs(folder / PROVENANCE)
    except FileProblem as problem:
        return inputs._replace(
            notices=[*inputs.notices, f"{problem} The images and labels could not be compared with those before."]
        )
    order = original_order(folder, inputs.described, old)
    listed, pairs = [inputs.files[i] for i in order], [inputs.pairs[i] for i in order]
    described = [inputs.described[i] for i in order]
    step = read_saved(files).step
    notices = changed_labels(described, old, step)
    earlier = [*earlier, {"until_step": step, "inputs": old}] if notices else earlier
    return _Inputs(inputs.job, listed, pairs, described, earlier, [*inputs.notices, *notices])
