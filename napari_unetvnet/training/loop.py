"""The training loop: take steps, score the hold-out after each epoch, save the best model, yield events."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from napari_unetvnet.data.prepare import prepare_data, resample_pairs
from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.events import CheckpointSaved, EpochDone, Event, Notice, SplitMade, StepDone
from napari_unetvnet.images.resample import place_back
from napari_unetvnet.model.device import choose_device
from napari_unetvnet.training.batch_norm import OF_EACH_PROCESS, has_batch_norm
from napari_unetvnet.training.build import build_run
from napari_unetvnet.training.checkpoint import load_last, save_last
from napari_unetvnet.training.distillation import teacher_of
from napari_unetvnet.training.fallback import begin_fallback
from napari_unetvnet.training.final_fit import final_fit
from napari_unetvnet.training.forward import learner
from napari_unetvnet.training.output import score_output
from napari_unetvnet.training.plateau import FLAT
from napari_unetvnet.training.prefetch import Prefetcher
from napari_unetvnet.training.preview import TrainingPreview
from napari_unetvnet.training.processes import SINGLE, ProcessGroup
from napari_unetvnet.training.resume import check_card, check_data, check_settings, read_saved, rescore
from napari_unetvnet.training.score import part_to_score
from napari_unetvnet.training.step import draw, fitting_step
from napari_unetvnet.training.validation import adapt, finish, score_parent, score_whole_hold_out, validate

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import TrainingData
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.images.volume import Box, Volume
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.files import TrainingFiles
    from napari_unetvnet.training.resume import SavedState
    from napari_unetvnet.training.run import Run

__all__ = ["steps"]


def steps(
    pairs: Sequence[Pair],
    settings: TrainSettings,
    files: TrainingFiles,
    *,
    resume: bool = False,
    group: ProcessGroup = SINGLE,
) -> Generator[Event]:
    """Train a model, as a generator of events.

    Model and state are saved when the generator is closed.

    Parameters
    ----------
    pairs : sequence of Pair
        Images (C, Z, Y, X) with labels (1, Z, Y, X).
    resume : bool
        Continue from the saved state, if there is one.
    group : ProcessGroup
        Connected processes that take the same steps, each with its share of the patches.

    Yields
    ------
    Event
        Notice, SplitMade, StartScored, OutputScored, StepDone after each step, EpochDone and CheckpointSaved after each
        epoch, and sometimes PreviewReady.

    Raises
    ------
    DataProblem
        If images or labels cannot be used.
    SettingsProblem
        If the settings do not fit the classes, or the batch has fewer patches than there are processes.
    ModelProblem
        If the model to start from is of another kind.
    OutOfMemory
        If one patch of the smallest size does not fit on the device.
    RunProblem
        If the training diverges, or the state to resume from is cut off.
    """
    run, preview = yield from _begin(pairs, settings, files, resume=resume, group=group)
    settings, schedule, losses = run.settings, run.schedule, list[float]()
    clock = time.monotonic() - schedule.seconds
    try:
        while not schedule.over and not _stops_early(run):
            losses.append((yield from fitting_step(run)))
            schedule.seconds = time.monotonic() - clock
            epoch = schedule.epoch(settings.steps_per_epoch)
            epoch_ended = schedule.step % settings.steps_per_epoch == 0 or schedule.over
            was_flat = schedule.flat
            # Validate before yielding: a run that is stopped at this event has the score of an uninterrupted run.
            dice, saved = validate(run) if epoch_ended else (None, False)
            schedule.seconds = group.broadcast(time.monotonic() - clock)
            times = schedule.seconds, schedule.seconds_left
            yield StepDone(schedule.taken, schedule.planned, epoch, losses[-1], *times, schedule.first)
            if group.is_first and preview.due(schedule.seconds):
                yield from preview.show()
            if not epoch_ended:
                continue
            loss, losses = sum(losses) / len(losses), []
            yield EpochDone(epoch, schedule.taken, loss, dice, *times)
            if schedule.flat and not was_flat:
                yield Notice(FLAT)
            if saved:
                yield CheckpointSaved(str(files.model), schedule.taken, dice)
            save_last(run)
        yield from _end(run, pairs)
    finally:
        run.prefetcher.close()
        finish(run)


def _end(run: Run, pairs: Sequence[Pair]) -> Iterator[Event]:
    """Choose the model on the whole hold-out, and give it the final fit."""
    yield from score_whole_hold_out(run)
    if run.final is not None and run.scored != run.data.hold_out:
        yield from score_output(run, run.data.hold_out)
    yield from final_fit(run, pairs)
    yield from adapt(run)


def _begin(
    pairs: Sequence[Pair], settings: TrainSettings, files: TrainingFiles, *, resume: bool, group: ProcessGroup
) -> Generator[Event, None, tuple[Run, TrainingPreview]]:
    """Prepare the data, build the model or load the saved state, and yield notices."""
    saved = read_saved(files) if resume and files.state.exists() else None
    settings, patch = _shared(settings, group), settings.planned_patch
    if saved is not None:
        yield from map(Notice, check_settings(saved, settings))
    shapes, pairs = [pair.image.shape for pair in pairs], resample_pairs(pairs, settings)
    data = prepare_data(pairs, settings, patch, None if saved is None else saved.known)
    yield from map(Notice, data.notices)
    for i, (pair, shape) in enumerate(zip(pairs, shapes, strict=True)):
        yield _split(data, i, pair.image, shape)
    run, notices = _build(pairs, data, settings, files, saved)
    run.group = group
    # Flips would exchange unequal margins, so patches have the larger one on both sides.
    z, y, x = (max(sides) for sides in run.model.margin)
    run.prefetcher = Prefetcher(partial(draw, data, settings, (z, y, x)))
    run.scored = part_to_score(data, settings)
    notices += begin_fallback(run.fallback) if saved is None else _restore(run, saved)
    if group.distributed and run.model.device.type == "cpu" and has_batch_norm(run.model.network):
        notices.append(OF_EACH_PROCESS)
    yield from map(Notice, notices)
    if saved is None:
        yield from score_parent(run)
    yield from score_output(run, run.scored)
    teacher, told = teacher_of(run)
    yield from map(Notice, told)
    if teacher is not None:
        run.model.card = teacher.noted_in(run.model.card)
    run.learn = learner(run.model, run.criterion, group, teacher)
    return run, TrainingPreview(pairs[0], run, shapes[0])


def _build(
    pairs: Sequence[Pair],
    data: TrainingData,
    settings: TrainSettings,
    files: TrainingFiles,
    saved: SavedState | None,
) -> tuple[Run, list[str]]:
    """Build the run; a saved state replaces the weights to start from, whose file need not be there any more."""
    if saved is None:
        return build_run(pairs, data, settings, files, settings.planned_patch)
    check_data(saved, data)
    started = settings.model_copy(update={"start_from": None})
    run, notices = build_run(pairs, data, started, files, settings.planned_patch)
    check_card(saved, run.model.card)
    run.settings = settings
    return run, notices


def _split(data: TrainingData, number: int, image: Volume, shape: Triple) -> SplitMade:
    """Report how an image is split, in voxels of its original grid."""

    def on_original_grid(boxes: Sequence[Box]) -> tuple[tuple[int, ...], ...]:
        return tuple((*place_back(b.start, image.shape, shape), *place_back(b.stop, image.shape, shape)) for b in boxes)

    train, hold_out = data.parts(number)
    return SplitMade(number, image.name, on_original_grid(train), on_original_grid(hold_out))


def _restore(run: Run, saved: SavedState) -> list[str]:
    """Load the saved state of the run; return notices."""
    load_last(run)
    flat = [FLAT] if run.schedule.flat and not run.schedule.over else []
    return [f"Resuming after step {run.schedule.taken}.", *flat, *rescore(run, saved)]


def _shared(settings: TrainSettings, group: ProcessGroup) -> TrainSettings:
    """Check that each process has a patch, and use the number format of rank 0 in all."""
    if not group.distributed:
        return settings
    if settings.batch < group.size:
        raise SettingsProblem(
            f"Batch {settings.batch} is too small for {group.size} processes, which share the patches of a step; use "
            f"a batch of at least {group.size}, or start fewer processes."
        )
    if settings.precision != "auto":
        return settings
    # Which format is faster is measured, so processes could disagree.
    bf16 = group.broadcast(choose_device(settings)[1] == "bf16")
    return settings.model_copy(update={"precision": "bf16" if bf16 else "fp32"})


def _stops_early(run: Run) -> bool:
    """Whether early stopping applies: no better validation score for as many epochs as the settings allow."""
    patience, best = run.settings.patience, run.best
    if patience is None or best.dice is None:
        return False
    return run.schedule.step - best.reached >= patience * run.settings.steps_per_epoch
