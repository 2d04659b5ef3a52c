"""The time points of series as images of their own, each with the labels of its time point."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.formats import format_of
from napari_unetvnet.images.io import opened_labels
from napari_unetvnet.images.series import opened
from napari_unetvnet.images.sources import at_time, paths_of, split_dataset, split_time
from napari_unetvnet.images.time_axis import chosen_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import PairFiles

__all__ = ["paired_points", "time_points_of"]


def time_points_of(files: Sequence[PairFiles], times: Sequence[str], axes: str) -> list[PairFiles]:
    """Replace each pair of series by the pairs of its chosen time points.

    Parameters
    ----------
    files : sequence of PairFiles
    times : sequence of str
        Such as "0", "3" or "0:10:2"; without any the pairs stay as they are.
    axes : str
        Of the arrays in the files, if they are named.

    Returns
    -------
    list of PairFiles

    Raises
    ------
    FileProblem
        If a file is missing or cannot be read.
    DataProblem
        If there are no such time points, or labels or mask are of others.
    """
    if not times:
        return list(files)
    return [each for pair in files for each in _points_of(pair, times, axes)]


def _points_of(pair: PairFiles, times: Sequence[str], axes: str) -> list[PairFiles]:
    if split_time(paths_of(pair.image)[0])[1] is not None:
        return [pair]  # one that is named
    image = opened(pair.image, axes)
    points = image.points(times)
    if not points or image.time is None:
        return [pair]
    labels = _at_points(pair.label, axes, points, image.time.points, image.name)
    if labels is None and len(points) > 1:
        name = paths_of(pair.label)[0].name
        raise DataProblem(
            f"{name} holds labels of a single time point, but {len(points)} of {image.name} are chosen; name the one "
            "that they belong to (--time 3), or give labels of each."
        )
    masks = _at_points(pair.mask, axes, points, image.time.points, image.name) if pair.mask else None
    label_of, mask_of = labels or [pair.label] * len(points), masks or [pair.mask] * len(points)
    found = zip(points, label_of, mask_of, strict=True)
    return [replace(pair, image=at_time(pair.image, t), label=label, mask=mask) for t, label, mask in found]


def _at_points(source: str, axes: str, points: Sequence[int], count: int, image: str) -> list[str] | None:
    """Name the chosen time points of labels or a mask; None if they are of a single one."""
    labels = opened_labels(source, axes)
    if labels.time is None:
        return None
    if labels.time.points != count:
        raise DataProblem(
            f"{labels.name} holds {labels.time.points} time points, and {image} {count}; give labels of each time "
            f"point, or name the pairs one by one ({image}@t=0 and {labels.name}@t=0) in a table (--pairs)."
        )
    return [at_time(source, point) for point in points]


def paired_points(prediction: str, truth: str, axes: str) -> list[tuple[str, str]]:
    """Pair the time points of two series of labels.

    Returns
    -------
    list of (str, str)
        Prediction and truth of each time point; the two files themselves if they are no series.

    Raises
    ------
    FileProblem
        If a file is missing or cannot be read.
    DataProblem
        If only one is a series, or they hold other numbers of time points.
    """
    sources = prediction, truth
    if not all(_is_cheap(source, axes) for source in sources):
        return [sources]
    first, second = (opened_labels(source, axes) for source in sources)
    counts = [1 if each.time is None else each.time.points for each in (first, second)]
    if counts[0] != counts[1]:
        raise DataProblem(
            f"{first.name} holds {counts[0]} time point(s) and {second.name} {counts[1]}; name those that belong "
            f"together, such as {(first if counts[0] > 1 else second).name}@t=0."
        )
    if first.time is None:
        return [sources]
    return [(at_time(prediction, t), at_time(truth, t)) for t in chosen_points((":",), counts[0], first.name)]


def _is_cheap(source: str, axes: str) -> bool:
    """Whether a source may be a series, and is not read as a whole to find that out."""
    path = paths_of(source)[0]
    if split_time(path)[1] is not None:
        return False
    kind = format_of(split_dataset(path)[0])
    return "t" in axes or (kind is not None and kind.any_axes and path.name.lower().endswith(kind.in_parts))
