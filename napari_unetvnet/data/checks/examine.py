"""Check labelled images: measure each one once, run all checks on the measurements, collect the findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.checks import across, classes, constants, grids, intensities, kinds, meaning, strays, values
from napari_unetvnet.data.checks.findings import Finding, PairSummary, Report
from napari_unetvnet.data.checks.frequency import class_voxels, labelled_count, shares
from napari_unetvnet.data.checks.measure import measure
from napari_unetvnet.data.checks.suggestions import suggestions
from napari_unetvnet.data.meaning import MOST_IMAGES
from napari_unetvnet.data.targets import find_classes, loss_weights, make_target
from napari_unetvnet.errors import UserError
from napari_unetvnet.images.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from napari_unetvnet.data.checks.facts import LabelFacts, PairFacts
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["examine"]

PAIR_CHECKS: tuple[Callable[[PairFacts, TrainSettings], Iterator[Finding]], ...] = (
    grids.check_fit,
    kinds.check_types,
    intensities.check_finite,
    kinds.check_soft,
    intensities.check_is_labels,
    grids.check_turned,
    grids.check_place,
    grids.check_axes,
    classes.check_hidden,
    classes.check_unpainted,
    intensities.check_flat,
    intensities.check_clipped,
    grids.check_spacing,
    intensities.check_channels_alike,
)
DATA_CHECKS: tuple[Callable[[Sequence[PairFacts], TrainSettings], Iterator[Finding]], ...] = (
    classes.check_empty,
    meaning.check_meaning,
    across.check_channel_counts,
    classes.check_split,
    across.check_duplicates,
    kinds.check_ids,
    values.check_codes,
    strays.check_strays,
    strays.check_edge_values,
    grids.check_turned_all,
    classes.check_tiny,
    across.check_voxel_sizes,
    classes.check_lonely,
    across.check_ranges,
    constants.check_constants,
    across.check_patch,
    values.check_gaps,
)
"""In the order of importance."""

COVERED = {"negative", "soft-mask", "empty-labels", "not-in-training"}
"""Kinds of findings that already report what training refuses."""
SEVERITIES = ("error", "warning", "advice")


def examine(pairs: Iterable[Pair], settings: TrainSettings) -> Report:
    """Find problems of labelled images before training.

    Parameters
    ----------
    pairs : iterable of Pair
        Read one by one; none is kept.
    settings : TrainSettings
        Meaning of labels, view, patch and loss.

    Returns
    -------
    Report
    """
    facts = [measure(pair, settings, compared=i < MOST_IMAGES) for i, pair in enumerate(pairs)]
    usable = [pair for pair in facts if not pair.refused and pair.labels.fraction is None]
    findings = [finding for check in PAIR_CHECKS for pair in facts for finding in check(pair, settings)]
    findings += [finding for check in DATA_CHECKS for finding in check(usable, settings)] if usable else []
    findings += _refusals(usable, settings, findings)
    voxels = [class_voxels(pair.labels, settings) for pair in usable]
    classes_present = shares(voxels, sum(labelled_count(pair.labels, settings) for pair in usable))
    return Report(
        tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        tuple(_summary(pair, settings, usable=pair in usable) for pair in facts),
        classes_present,
        suggestions(classes_present, usable, settings),
    )


def _summary(pair: PairFacts, settings: TrainSettings, *, usable: bool) -> PairSummary:
    image, labels = pair.image, pair.labels
    labelled = labelled_count(labels, settings) if usable else 0
    total = int(np.prod(labels.grid.shape) * labels.read)
    return PairSummary(
        image.name,
        labels.name,
        image.grid.shape,
        image.channels,
        image.dtype,
        image.grid.unit,
        image.grid.spacing,
        pair.split,
        class_voxels(labels, settings) if usable else {},
        total - labelled if usable else 0,
        min(image.read, labels.read),
    )


def _refusals(pairs: Sequence[PairFacts], settings: TrainSettings, findings: Sequence[Finding]) -> list[Finding]:
    """Report what training would refuse, if no check has reported it already."""
    if not pairs or {finding.kind for finding in findings if finding.severity == "error"} & COVERED:
        return []
    training = [_values(pair.labels) for pair in pairs if pair.split != "val"]
    try:
        if not training:
            raise UserError("All pairs are marked val; mark at least one as train.")
        present = find_classes(training, settings)
        settings.head_for(len(present))
        counts = np.ones(len(present), np.int64)
        loss_weights(counts, 2 * counts, present, settings)
        for pair in pairs:
            labels = _values(pair.labels)
            make_target(np.asarray(labels.data), present, settings, labels.name)
    except UserError as problem:
        return [Finding("error", "refused", "", line) for line in problem.lines]
    return []


def _values(labels: LabelFacts) -> Volume:
    """Make labels with each value once, to which the rules of training apply as to the labels themselves."""
    length = max(1, *(len(count) for count in labels.counts))
    rows = [[*sorted(count), *[0] * length][:length] for count in labels.counts]
    if len(rows) == 1:
        rows = [sorted(labels.counts[0]) or [0]]
    return Volume(np.array(rows)[:, None, None], name=labels.name)
