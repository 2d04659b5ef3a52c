"""Examine labelled images: measure each once, let every check look at the numbers, gather what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.checks import across, classes, grids, intensities, kinds, strays, values
from napari_unetvnet.data.checks.findings import Examined, Finding, Report
from napari_unetvnet.data.checks.frequency import class_voxels, labelled_voxels, shares
from napari_unetvnet.data.checks.measure import measure
from napari_unetvnet.data.checks.suggestions import suggestions
from napari_unetvnet.data.targets import find_classes, loss_weights, make_target
from napari_unetvnet.errors import UserError
from napari_unetvnet.images.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from napari_unetvnet.data.checks.facts import LabelFacts, PairFacts
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["examine"]

OF_A_PAIR: tuple[Callable[[PairFacts, TrainSettings], Iterator[Finding]], ...] = (
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
OF_ALL: tuple[Callable[[Sequence[PairFacts], TrainSettings], Iterator[Finding]], ...] = (
    classes.check_empty,
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
    across.check_patch,
    values.check_gaps,
)
"""In the order of importance."""

SAID = {"negative", "soft-mask", "empty-labels", "not-in-training"}
"""Errors that training would refuse in other words."""
SEVERITIES = ("error", "warning", "advice")


def examine(pairs: Iterable[Pair], settings: TrainSettings) -> Report:
    """Say what is wrong or odd about labelled images before they are trained on.

    Parameters
    ----------
    pairs : iterable of Pair
        Looked at one after the other; none is kept.
    settings : TrainSettings
        What labels mean, the view, the patch, the loss.

    Returns
    -------
    Report
    """
    facts = [measure(pair, settings) for pair in pairs]
    usable = [pair for pair in facts if not pair.refused and pair.labels.fraction is None]
    found = [finding for check in OF_A_PAIR for pair in facts for finding in check(pair, settings)]
    found += [finding for check in OF_ALL for finding in check(usable, settings)] if usable else []
    found += _refusals(usable, settings, found)
    voxels = [class_voxels(pair.labels, settings) for pair in usable]
    every = shares(voxels, sum(labelled_voxels(pair.labels, settings) for pair in usable))
    return Report(
        tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))),
        tuple(_examined(pair, settings, usable=pair in usable) for pair in facts),
        every,
        suggestions(every, usable, settings),
    )


def _examined(pair: PairFacts, settings: TrainSettings, *, usable: bool) -> Examined:
    image, labels = pair.image, pair.labels
    known = labelled_voxels(labels, settings) if usable else 0
    everything = int(np.prod(labels.grid.shape) * labels.read)
    return Examined(
        image.name,
        labels.name,
        image.grid.shape,
        image.channels,
        image.dtype,
        image.grid.unit,
        image.grid.spacing,
        pair.split,
        class_voxels(labels, settings) if usable else {},
        everything - known if usable else 0,
        min(image.read, labels.read),
    )


def _refusals(pairs: Sequence[PairFacts], settings: TrainSettings, found: Sequence[Finding]) -> list[Finding]:
    """Say what training would refuse, if no check has said it already."""
    if not pairs or {finding.kind for finding in found if finding.severity == "error"} & SAID:
        return []
    learnt = [_values(pair.labels) for pair in pairs if pair.split != "val"]
    try:
        if not learnt:
            raise UserError("All pairs are marked val; mark at least one as train.")
        classes_found = find_classes(learnt, settings)
        settings.head_for(len(classes_found))
        counts = np.ones(len(classes_found), np.int64)
        loss_weights(counts, 2 * counts, classes_found, settings)
        for pair in pairs:
            held = _values(pair.labels)
            make_target(np.asarray(held.data), classes_found, settings, held.name)
    except UserError as problem:
        return [Finding("error", "refused", "", line) for line in problem.lines]
    return []


def _values(labels: LabelFacts) -> Volume:
    """Make labels that hold each value once, for which training's own rules say the same as for the labels."""
    length = max(1, *(len(count) for count in labels.counts))
    rows = [[*sorted(count), *[0] * length][:length] for count in labels.counts]
    if len(rows) == 1:
        rows = [sorted(labels.counts[0]) or [0]]
    return Volume(np.array(rows)[:, None, None], name=labels.name)
