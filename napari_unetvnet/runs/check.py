"""The check command: report errors and anomalies in the files of a training job."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unetvnet.data.checks import Finding, Report, examine, table
from napari_unetvnet.errors import DataProblem, UserError
from napari_unetvnet.images.sources import paths_of, stem_of
from napari_unetvnet.runs.inputs import pair_files, read_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainJob

__all__ = ["as_text", "check_files"]


def check_files(job: TrainJob) -> Report:
    """Examine the images and labels of a training job.

    Returns
    -------
    Report
        Unreadable files are listed as errors.

    Raises
    ------
    FileProblem
        If a file or the table is missing.
    DataProblem
        If files cannot be paired, or none can be read; one line per mistake.
    """
    problems: list[str] = []
    report = examine(_readable(job, problems), job)
    if not report.images:
        raise DataProblem(*problems)
    unreadable = [Finding("error", f"unreadable-{i}", "", line) for i, line in enumerate(problems, 1)]
    return replace(report, findings=(*unreadable, *report.findings))


def _readable(job: TrainJob, problems: list[str]) -> Iterator[Pair]:
    """Yield the readable pairs one by one and append the errors of the others to ``problems``."""
    listed = pair_files(job)
    count = Counter(stem_of(paths_of(files.image)[0]) for files in listed)
    for files in listed:
        try:
            pair = read_pair(files, job)
        except UserError as problem:
            problems += problem.lines
            continue
        if count[pair.image.name] > 1:  # the same name in several folders
            image, labels = (f"{paths_of(file)[0].parent.name}/" for file in (files.image, files.label))
            pair = replace(
                pair,
                image=replace(pair.image, name=image + pair.image.name),
                labels=replace(pair.labels, name=labels + pair.labels.name),
            )
        yield pair


def as_text(report: Report, *, as_json: bool) -> str:
    """Format a report as a table or as JSON.

    Returns
    -------
    str
        Without a line break at the end.
    """
    return json.dumps(report.as_dict(), indent=2, allow_nan=False) if as_json else table(report)
