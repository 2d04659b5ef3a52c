"""Write layers to the files of a run folder, and add labels as a layer on the grid of their image.

Colours become channels, and only the finest level of a multiscale image is used. Several Image layers are the channels
of one image, several Labels layers are masks of overlapping classes, and lines of a Shapes layer are rasterised. Axes
of length 1 are left out, and are there again in results.
`snapshot` validates the layers in the thread of the viewer; `write` copies the voxels block by block in a worker
thread, so that arrays larger than memory can be copied.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Shapes
from napari.utils.transforms import Affine

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.files import writing
from napari_unetvnet.images.arrays import new_file
from napari_unetvnet.widgets.channel import Channel
from napari_unetvnet.widgets.drawn import rasterise_shapes
from napari_unetvnet.widgets.layer_axes import CHANNEL_AXES, axes_of, reshaped, share_names, whole
from napari_unetvnet.widgets.layer_geometry import check_same_grid, geometry_of, turned_onto, whole_affine
from napari_unetvnet.widgets.snapshot import IMAGES, LABELS, MASKS, Files, Snapshot

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = [
    "Channel", "Files", "Snapshot", "add_labels_layer", "as_shown", "is_time_series", "on_grid", "place_of", "shape_of",
    "snapshot", "whole_place", "write",
]  # fmt: skip

BLOCK_BYTES = 64 * 2**20
ADVICE = "set NAPARI_UNETVNET_RUNS to another folder"
COPIED_BYTES = 256 * 2**20
"""Labels up to this size are copied when the button is pressed, so that further painting cannot change them."""


def snapshot(
    images: Sequence[Any],
    labels: Sequence[Any] = (),
    *,
    mask: Any = None,
    view: str | None = None,
    painted: bool = True,
) -> Snapshot:
    """Take a snapshot of the chosen layers after validation.

    Parameters
    ----------
    images : sequence of napari Image layers
        Several are the channels of one image.
    labels : sequence of napari Labels or Shapes layers
        Several are masks of classes that may overlap.
    mask : napari Labels layer, optional
        Voxels are ignored where it is 0.
    view : {"2d", "2.5d", "3d"}, optional
        View of the network; None if it is chosen from the data.
    painted : bool
        Whether labels are required.

    Returns
    -------
    Snapshot

    Raises
    ------
    DataProblem
        If a layer is missing or of the wrong kind, or the layers are not on the same grid.
    """
    if not images:
        raise DataProblem("There is no image layer; open an image first.")
    for layer in images:
        _check_image(layer, view)
    first = images[0]
    share_names(first, [*images[1:], *labels, *([] if mask is None else [mask])])
    others = [_on_grid(layer, first, "choose channels of one image") for layer in images[1:]]
    if painted and not labels:
        raise DataProblem("There is no labels layer; add one (new labels layer button) and paint on it.")
    channels = (*_channels(first), *itertools.chain(*others))
    label_channels = tuple(_labels(layer, first) for layer in labels) if painted else ()
    mask_channel = None if mask is None else _labels(mask, first)
    geometry = geometry_of(first)
    return Snapshot(channels, label_channels, geometry.spacing, geometry.unit, mask_channel)


def is_time_series(layer: Any) -> bool:
    """Return whether an image has time points, so that its planes are not neighbours in space."""
    return axes_of(layer, series=True).time is not None


def shape_of(layer: Any) -> tuple[int, ...]:
    """Return the shape of a layer in voxels: (Y, X) or (Z, Y, X), at the finest level, without colours and time."""
    channel = _channels(layer)[0]
    return channel.shape[1:] if channel.is_series else channel.shape


def _check_image(layer: Any, view: str | None) -> None:
    if not isinstance(layer, Image):
        raise DataProblem(f"{layer.name} is a {type(layer).__name__} layer; choose an Image layer.")
    named = [axis for axis in range(layer.ndim - 2) if str(layer.axis_labels[axis]).lower() in CHANNEL_AXES]
    if any(whole(layer).shape[axis] > 1 for axis in named):
        raise DataProblem(
            f"The first axis of {layer.name} is {layer.axis_labels[named[0]]}; split it with Split Stack in the "
            "layer's menu and choose the channels one by one."
        )
    axes = axes_of(layer, series=True)
    if axes.z is None and view not in {None, "2d"}:
        what = f"{layer.name} is a 2D image"
        if axes.time is not None:
            name = layer.axis_labels[axes.time]
            what = f"The first axis of {layer.name} is {name}, so it is a series of 2D images"
        raise DataProblem(f"{what}; choose view 2d, or a model of that view, instead of {view}.")


def _labels(labels: Any, image: Any) -> Channel:
    """Copy the current labels, or rasterise the current lines."""
    if isinstance(labels, Shapes):
        return Channel(rasterise_shapes(image, shape_of(image), labels), name=labels.name)
    if not isinstance(labels, Labels):
        raise DataProblem(f"{labels.name} is a {type(labels).__name__} layer; choose a Labels layer.")
    return _copied(_on_grid(labels, image, "paint on a labels layer that was added to this image")[0])


def _on_grid(layer: Any, image: Any, advice: str) -> list[Channel]:
    """Give the channels of a layer on the grid of an image, mirrored or with other axes if that is all; else refuse."""
    channels, shapes = _channels(layer), (shape_of(image), shape_of(layer))
    if getattr(layer, "rgb", False) or len(shapes[0]) != len(shapes[1]) or channels[0].is_series:
        check_same_grid(image, layer, shapes, advice)
        return channels
    data = channels[0].data
    if (turned := turned_onto(image, layer, shapes, data, channels[0].axes)) is not data:
        return [Channel(turned, name=layer.name)]
    check_same_grid(image, layer, shapes, advice)
    return channels


def _channels(layer: Any) -> list[Channel]:
    """Return the channels of a layer at its finest level: one for each colour, without alpha and axes of length 1."""
    data, axes = whole(layer), axes_of(layer, series=True)
    picks = tuple(None if axis in axes.kept else 0 for axis in range(layer.ndim))
    if getattr(layer, "rgb", False):
        colours = range(min(3, int(data.shape[-1])))
        return [Channel(data, layer.name, (*picks, colour), axes.time is not None) for colour in colours]
    return [Channel(data, layer.name, picks, axes.time is not None)]


def _copied(channel: Channel) -> Channel:
    if isinstance(channel.data, np.ndarray) and channel.data.nbytes <= COPIED_BYTES:
        return replace(channel, data=channel.data.copy())
    return channel


def write(inputs: Snapshot, folder: Path, cancelled: threading.Event) -> None:
    """Write the arrays to a run folder; of chosen time points a file for each.

    Parameters
    ----------
    folder : Path
        The run folder.
    cancelled : threading.Event
        Once set, writing stops and the files stay incomplete.

    Raises
    ------
    DataProblem
        If nothing is painted on a layer.
    FileProblem
        If the files cannot be written, for example because the disk is full.
    """
    painted = dict[str, bool]()
    with writing(folder, ADVICE):
        for subfolder in (IMAGES, LABELS, MASKS):
            (folder / subfolder).mkdir(parents=True, exist_ok=True)
        for part in inputs.parts:
            labels = (*part.labels, part.mask) if part.mask else part.labels
            names = [name for name in (*part.files.label.split("|"), part.files.mask) if name]
            for name, channel in zip(names, labels, strict=True):
                is_painted = _copy(channel, folder / name, cancelled)
                painted[channel.name] = painted.get(channel.name, False) or is_painted
        if (empty := [name for name, is_painted in painted.items() if not is_painted]) and not cancelled.is_set():
            points = f" at {inputs.points_text}" if inputs.points else ""
            raise DataProblem(f"Nothing is painted on {empty[0]}{points}; paint some labels first.")
        for part in inputs.parts:
            for name, channel in zip(part.files.image.split("|"), part.channels, strict=True):
                _copy(channel, folder / name, cancelled)


def _copy(channel: Channel, path: Path, cancelled: threading.Event) -> bool:
    """Copy an array block by block and return whether any value is not 0."""
    # Native byte order, because torch does not support the other one.
    dtype = np.dtype(channel.data.dtype).newbyteorder("=")
    target = new_file(path, channel.shape, dtype, ADVICE)
    nonzero = False
    for block in _blocks(channel):
        if cancelled.is_set():
            break
        values = channel.read(block)
        target[block] = values
        nonzero = nonzero or bool(values.any())
    return nonzero


def _blocks(channel: Channel) -> Iterator[tuple[slice, ...]]:
    """Divide an array along its chunks, or into rows of the first axis if it has none."""
    edges = _chunk_edges(channel)
    starts = [range(0, n, edge) for n, edge in zip(channel.shape, edges, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + edge, n)) for a, edge, n in zip(corner, edges, channel.shape, strict=True))


def _chunk_edges(channel: Channel) -> list[int]:
    """Return the block size: a chunk (the largest of dask, the shard of zarr), doubled while it is small."""
    shape, itemsize = channel.shape, np.dtype(channel.data.dtype).itemsize
    chunks = getattr(channel.data, "shards", None) or getattr(channel.data, "chunks", None)
    if not chunks:
        row = itemsize * int(np.prod(shape[1:], dtype=np.int64))
        return [max(1, min(shape[0], BLOCK_BYTES // max(1, row))), *shape[1:]]
    edges = [max(c) if isinstance(c, tuple) else int(c) for c in (chunks[axis] for axis in channel.axes)]
    for axis in reversed(range(len(shape))):
        while edges[axis] < shape[axis] and 2 * itemsize * int(np.prod(edges, dtype=np.int64)) <= BLOCK_BYTES:
            edges[axis] *= 2
    return [min(edge, n) for edge, n in zip(edges, shape, strict=True)]


def add_labels_layer(viewer: Any, data: Any, like: Any, name: str, metadata: dict[str, Any] | None = None) -> Any:
    """Add labels as a layer on the grid of their image.

    Parameters
    ----------
    data : integer array of shape (Z, Y, X), of a time series (T, Z, Y, X)
        Z is 1 for a 2D image.
    like : napari Image layer
        Scale, translation, rotation, shear, affine, units and axis labels are copied from it, and axes of length 1.
    name : str
        napari appends a number if the name exists.

    Returns
    -------
    napari Labels layer
    """
    layer = Labels(on_grid(data, like), name=name, metadata=metadata or {}, **whole_place(like))
    viewer.add_layer(layer)
    return layer


def on_grid(data: Any, like: Any) -> Any:
    """Give labels all axes of their image, if they are on its grid.

    Parameters
    ----------
    data : array of shape (Z, Y, X), of a time series (T, Z, Y, X)

    Returns
    -------
    array
        Of the shape of the layer, without colours.
    """
    return reshaped(data, axes_of(like, series=True).shape)


def whole_place(layer: Any) -> dict[str, Any]:
    """Return the arguments that put a layer with all axes on the grid of a layer."""
    own = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {name: getattr(layer, name) for name in own}


def place_of(
    layer: Any, start: Sequence[float] = (0, 0, 0), step: Sequence[int] = (1, 1, 1), point: int | None = None
) -> dict[str, Any]:
    """Return the arguments that put a new layer on the grid of a layer, at a time point, or at any.

    Parameters
    ----------
    start : 3 float
        Centre of the first voxel of the new layer, in voxels z, y, x of ``layer``; z is ignored in 2D.
    step : 3 int
        Voxel size of the new layer, in voxels z, y, x of ``layer``.
    point : int, optional
        The time point of a series at which it is shown.

    Returns
    -------
    dict
        For a layer with the axes that `as_shown` gives.
    """
    axes = axes_of(layer, series=True)
    first, edges = np.zeros(layer.ndim), np.ones(layer.ndim)
    first[-2:], edges[-2:] = start[1:], step[1:]
    if axes.z is not None:
        first[axes.z], edges[axes.z] = start[0], step[0]
    if point is not None and axes.time is not None:
        first[axes.time] = point
    elif len(axes.shown) < layer.ndim:  # napari shows a layer of fewer axes along the last ones
        rows = np.ix_((*axes.shown, layer.ndim), (*axes.shown, layer.ndim))
        first, edges = first[list(axes.shown)], edges[list(axes.shown)]
        matrix = whole_affine(layer)[rows] @ np.block([[np.diag(edges), first[:, None]], [np.zeros(len(first)), 1.0]])
        labels = tuple(layer.axis_labels[axis] for axis in axes.shown)
        return {"affine": matrix, "units": tuple(layer.units[axis] for axis in axes.shown), "axis_labels": labels}
    own = ("rotate", "shear", "affine", "units", "axis_labels")
    to_world = Affine(scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear)
    # Without a shift the translation is copied, because computing it would round it.
    translate = to_world(first) if first.any() else layer.translate
    return {name: getattr(layer, name) for name in own} | {"scale": layer.scale * edges, "translate": translate}


def as_shown(data: Any, like: Any, point: int | None = None) -> Any:
    """Give an array (Z, Y, X) the axes of a layer that `place_of` puts on the grid of its image, at a time point."""
    axes = axes_of(like, series=True)
    if point is None or axes.time is None:
        return axes.as_shown(data)
    shape = [1] * len(axes.shape)
    shape[-2:] = data.shape[-2:]
    if axes.z is not None:
        shape[axes.z] = len(data)
    return reshaped(data, tuple(shape))
