"""Segment all images of a folder or a set, one after another, with a model that is loaded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem, DeviceProblem, SettingsProblem, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari_unetvnet.events import RunFinished
    from napari_unetvnet.settings import SegmentJob

__all__ = ["segment_cases"]


def segment_cases(
    job: SegmentJob, ending: str | None, run: Callable[[SegmentJob, str], RunFinished], tell: Callable[[str], None]
) -> bool:
    """Segment the images of a folder or a set.

    Parameters
    ----------
    ending : str or None
        Of the results; None for that of each image.
    run : callable
        Runs the job of an image, whose name it is also given.
    tell : callable
        Takes lines for the user.

    Returns
    -------
    bool
        False if the source is a single image, for which nothing was done.

    Raises
    ------
    DataProblem
        If images could not be segmented; the others have been.
    SettingsProblem
        If an ending is given for a single image.
    DeviceProblem
        If the GPU fails, so that no further image can be segmented.
    KeyboardInterrupt
        If the run was stopped.
    """
    from napari_unetvnet.runs.loaded import keeping_models
    from napari_unetvnet.runs.segment_cases import case_jobs

    cases = case_jobs(job, ending)
    if cases is None:
        if ending is not None:
            raise SettingsProblem("--ending is for the results of a folder; of one image, --output decides the format.")
        return False
    for text in cases.notices:
        tell(text)
    with keeping_models():
        failed = [line for lines in _each(cases.jobs, run, tell) for line in lines]
    if failed:
        raise DataProblem(*failed)
    return True


def _each(
    jobs: Mapping[str, SegmentJob], run: Callable[[SegmentJob, str], RunFinished], tell: Callable[[str], None]
) -> Iterator[list[str]]:
    """Run each job, and give what is wrong with those that fail."""
    for number, (name, job) in enumerate(jobs.items(), 1):
        try:
            finished = run(job, name)
        except DeviceProblem:
            raise
        except UserError as problem:
            tell(f"{number} of {len(jobs)}: {name} failed; the others go on.")
            yield [f"{name}: {line}" for line in problem.lines]
            continue
        if finished.state == "stopped":
            raise KeyboardInterrupt
        tell(f"{number} of {len(jobs)}: {finished.results['labels']}")
