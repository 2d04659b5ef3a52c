"""The check command: report errors and anomalies in the files of a training job."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from napari_unetvnet.data.checks import SEVERITIES, Finding, Report, examine, is_of_meaning, table
from napari_unetvnet.data.meaning import MOST_IMAGES, UnclearLabels, understand
from napari_unetvnet.errors import DataProblem, UserError
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.sources import paths_of, stem_of
from napari_unetvnet.runs.inputs import read_pair, spacing_notice
from napari_unetvnet.settings import TrainJob, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unetvnet.images.pairs import Pair, PairFiles
    from napari_unetvnet.runs.inputs import Inputs

__all__ = ["as_text", "check_files"]


def check_files(inputs: Inputs) -> Report:
    """Examine the images and labels of a training job.

    Parameters
    ----------
    inputs : Inputs
        As `runs.inputs.find_inputs` gives them for a job.

    Returns
    -------
    Report
        Unreadable files are listed as errors.

    Raises
    ------
    DataProblem
        If none can be read; one line per mistake.
    """
    problems, regridded = list[str](), list[str]()
    job, understood = _with_meaning(inputs.job, inputs.files)
    report = examine(_readable(inputs.files, job, problems, regridded), job)
    if not report.images:
        raise DataProblem(*problems)
    if any(finding.kind == "unclear-meaning" for finding in understood):  # with the same advice
        report = replace(report, findings=tuple(each for each in report.findings if not is_of_meaning(each)))
    unused = spacing_notice([(each.image, Geometry(each.spacing, each.unit)) for each in report.images], job)
    understood += [Finding("warning", "spacing-not-used", "", unused)] if unused else []
    unreadable = [Finding("error", f"unreadable-{i}", "", line) for i, line in enumerate(problems, 1)]
    resampled = [Finding("advice", f"regridded-{i}", "", line) for i, line in enumerate(regridded, 1)]
    found = [*unreadable, *understood, *resampled, *report.findings]
    return replace(report, findings=tuple(sorted(found, key=_order)))


def _order(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def _with_meaning(job: TrainJob, listed: list[PairFiles]) -> tuple[TrainJob, list[Finding]]:
    """Choose the meaning of label 0 as a training does, if it is left open, and tell it."""
    if not job.unlabelled_is_open:
        return job, []
    some = listed[:: max(1, -(-len(listed) // MOST_IMAGES))]
    try:
        found = understand([read_pair(files, job, []) for files in some], job)
    except UnclearLabels as problem:
        asked = [Finding("error", "unclear-meaning", "", line) for line in problem.lines]
        return _set(job, {"unlabelled": "background"}), asked
    except UserError:
        return _set(job, {"unlabelled": "background"}), []  # each file is reported on its own
    if job.multilabel or job.label_values == "objects":
        return _set(job, {"unlabelled": found.unlabelled}), []
    told = Finding("advice", "meaning", "", f"Label 0 was taken as background: {found.why_unlabelled}.", "",
                   "To say otherwise, add --unlabelled ignore --background VALUE.")  # fmt: skip
    if found.unlabelled == "ignore":
        name = f"label {found.background} as background" if found.background else "no value as background"
        told = Finding(
            "advice", "meaning", "",
            f"Label 0 was taken as not painted, and {name}: {found.why_unlabelled}; {found.why_background}.", "",
            "To say otherwise, add --unlabelled background, or --background VALUE.",
        )  # fmt: skip
    return _set(job, {"unlabelled": found.unlabelled, "background": found.background}), [told]


def _set(job: TrainJob, values: dict[str, Any]) -> TrainJob:
    """Set values that the job leaves open."""
    chosen = {name: getattr(job, name) for name in job.model_fields_set}
    return checked(TrainJob, values | {name: value for name, value in chosen.items() if name not in values or value})


def _readable(listed: list[PairFiles], job: TrainJob, problems: list[str], regridded: list[str]) -> Iterator[Pair]:
    """Yield the readable pairs one by one; append the errors of the others, and what was brought to another grid."""
    count = Counter(stem_of(paths_of(files.image)[0]) for files in listed)
    for files in listed:
        try:
            pair = read_pair(files, job, regridded)
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


def as_text(report: Report, inputs: Inputs, *, as_json: bool) -> str:
    """Format a report, with the files of each pair, as a table or as JSON.

    Parameters
    ----------
    inputs : Inputs
        That were checked.

    Returns
    -------
    str
        Without a line break at the end.
    """
    if as_json:
        files = [asdict(each) for each in inputs.files]
        return json.dumps({"notices": inputs.notices, "pairs": files, **report.as_dict()}, indent=2, allow_nan=False)
    return "\n".join([*inputs.notices, "", table(report)])
