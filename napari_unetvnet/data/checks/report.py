"""The report as text: a table for a terminal, and a few notices before training."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from napari_unetvnet.data.checks.findings import Finding, Report, Severity, name_list, percent
from napari_unetvnet.data.checks.meaning import is_of_meaning
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.refusals import times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.findings import PairSummary

__all__ = ["notices", "refuse_contradictions", "table"]

WIDTH = 110
MOST_IMAGES = 12
MOST_CLASSES = 8
MOST_VALUES = 64
MOST_NOTICES = 5
TITLES: dict[Severity, str] = {
    "error": "Errors: training refuses these",
    "warning": "Warnings: probably mistakes",
    "advice": "Good to know",
}


def notices(report: Report) -> list[str]:
    """Give the warnings as a few short notices, the most important first.

    Returns
    -------
    list of str
        At most 5; the last one counts those left out.
    """
    lines = []
    for group in _grouped(report.of("warning")):
        first, others = group[0], len({finding.about for finding in group}) - 1
        name = f"{first.about} and {others} more" if others else first.about
        lines.append(": ".join(part for part in (name, f"{first.found} {first.remedy}".rstrip()) if part))
    if len(lines) <= MOST_NOTICES:
        return lines
    left_out = len(lines) - MOST_NOTICES + 1
    return [*lines[: MOST_NOTICES - 1], f"There are {left_out} more warnings; the check command lists all."]


def refuse_contradictions(report: Report) -> None:
    """Refuse labels that contradict the meaning set for them.

    Raises
    ------
    DataProblem
        One line for each contradiction that would make a training senseless.
    """
    found = [finding for finding in report.of("error") if is_of_meaning(finding)]
    if found:
        raise DataProblem(*(": ".join(filter(None, (each.about, each.text))) for each in found))


def table(report: Report) -> str:
    """Format a report for a terminal.

    Returns
    -------
    str
        Without a line break at the end.
    """
    parts = [*_images(report.images), *_classes(report)]
    for severity, title in TITLES.items():
        groups = _grouped(report.of(severity))
        if groups:
            parts += ["", title, *(line for group in groups for line in _item(group))]
    if report.suggestions:
        parts += ["", "Suggestions", *(line for text in report.suggestions for line in _wrapped(text))]
    count = {severity: len(report.of(severity)) for severity in ("error", "warning")}
    return "\n".join([*parts, "", _summary(count["error"], count["warning"])])


def _summary(errors: int, warnings: int) -> str:
    if errors:
        return f"{errors} error{'s' * (errors > 1)}: fix them first."
    if warnings:
        return f"No errors, {warnings} warning{'s' * (warnings > 1)}: training is possible; check them first."
    return "No errors, no warnings."


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Group findings by kind, in their order."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.kind, []).append(finding)
    return list(groups.values())


def _item(group: Sequence[Finding]) -> list[str]:
    """Format the first finding of a group, and the names of the others."""
    first, others = group[0], list(dict.fromkeys(finding.about for finding in group if finding.about))[1:]
    text = ": ".join(part for part in (first.about, first.text) if part)
    return _wrapped(f"{text} ({_likewise(others)}.)" if others else text)


def _likewise(others: list[str]) -> str:
    return f"Likewise {name_list(others)}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _images(images: Sequence[PairSummary]) -> Iterator[str]:
    """Describe the images: all in one line, then each if they are few."""
    sizes = [image.shape for image in images]
    size = times(sizes[0]) if len(set(sizes)) == 1 else f"{times(min(sizes))} to {times(max(sizes))}"
    kinds = ", ".join(sorted({f"{image.channels} channel(s) of {image.dtype}" for image in images}))
    yield f"{len(images)} image(s) with labels, {size} voxels (z y x), {kinds}"
    if any(image.read < 1 for image in images):
        least = min(image.read for image in images)
        yield f"Large images were sampled evenly: at least {percent(least)} of each was read."
    names = [name for image in images for name in image.voxels]
    if not 1 < len(images) <= MOST_IMAGES or len(dict.fromkeys(names)) > MOST_CLASSES:
        return
    width = max(len(image.image) for image in images)
    yield ""
    for image in images:
        total = max(1, sum(image.voxels.values()))
        parts = ", ".join(f"{name} {percent(n / total)}" for name, n in image.voxels.items())
        yield f"  {image.image:<{width}}  {times(image.shape)}  {parts}"


def _classes(report: Report) -> Iterator[str]:
    """Format the class frequencies."""
    if not report.classes:
        return
    width = max(5, *(len(share.name) for share in report.classes))
    yield from ("", f"  {'class':<{width}}  {'voxels':>14}  {'share':>7}  in images")
    if len(report.classes) > MOST_VALUES:
        yield f"  ... {len(report.classes)} values; --json lists them."
        return
    for share in report.classes:
        yield f"  {share.name:<{width}}  {share.voxels:>14,}  {percent(share.share):>7}  {share.images}"
