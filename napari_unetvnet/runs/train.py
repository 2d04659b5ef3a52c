"""Train in a run folder: read the images and labels, check and plan, then train.

Events files, stopping and child processes are handled by `running`, which consumes the events one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.events import Event, Notice
from napari_unetvnet.runs.folder import PLAN, PROVENANCE, training_files
from napari_unetvnet.training.processes import SINGLE, ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unetvnet.settings import TrainJob

__all__ = ["train"]


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
    from napari_unetvnet.data.checks import examine, notices
    from napari_unetvnet.images.io import check_writable
    from napari_unetvnet.model.device import choose_device, keep_freed_memory
    from napari_unetvnet.model.provenance import save_provenance
    from napari_unetvnet.runs.inputs import pair_files, read_pair
    from napari_unetvnet.training.loop import steps
    from napari_unetvnet.training.plan import load_plan, plan, save_plan

    if job.output is not None:
        check_writable(job.output, "model")
    files = pair_files(job)
    pairs = [read_pair(each, job) for each in files]
    if not group.is_first:
        group.barrier()  # wait until rank 0 has saved the plan
    planned = load_plan(job, folder / PLAN) if resume or not group.is_first else None
    if planned is None:
        planned = plan(pairs, job, choose_device(job)[0].type)
        save_plan(planned, folder / PLAN)
        for text in (*notices(examine(pairs, planned.settings)), planned.text):
            if text:
                yield Notice(text)
    if group.is_first:
        save_provenance(folder / PROVENANCE, files, *choose_device(job))
        group.barrier()
    with keep_freed_memory():
        yield from steps(pairs, planned.settings, training_files(folder, job.output), resume=resume, group=group)
