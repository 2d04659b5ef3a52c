"""Show the training targets of the labels as layers on the grid of their image.

They are computed in a thread by the functions that training uses. Of a large volume only the planes around the current
one are shown.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap, label_colormap
from qtpy.QtCore import QObject, Signal

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import (
    find_classes,
    label_margin,
    loss_target,
    make_target,
    needed_maps,
    target_margin,
)
from napari_unetvnet.data.targets.lines import SIZES
from napari_unetvnet.errors import DataProblem, UserError
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.widgets.layer_axes import axes_of, shown_point
from napari_unetvnet.widgets.layers import as_shown, place_of, whole_place
from napari_unetvnet.widgets.pickers import METADATA_KEY
from napari_unetvnet.widgets.question import with_meaning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.data.targets import Classes, TargetMap
    from napari_unetvnet.settings import TrainJob, TrainSettings
    from napari_unetvnet.widgets.layers import Channel, Snapshot

__all__ = ["Preview", "TargetLayer", "targets_of"]

MOST_VOXELS = 64 * 2**20
SOFT_COSTS = 8
"""Factor of memory: soft targets are float32 instead of uint8, and have one layer for each class."""
GREY = (0.5, 0.5, 0.5, 0.6)
_BUSY: set[Preview] = set()


@dataclass(frozen=True, eq=False)
class TargetLayer:
    """Data of a layer: name, values (Z, Y, X), kind, range of values, and whether any voxel is ignored."""

    name: str
    data: NDArray[Any]
    kind: Literal["classes", "shares", "weights"]
    top: float = 1.0
    ignored: bool = False
    low: float = 0.0


def targets_of(
    inputs: Snapshot, settings: TrainSettings, planes: slice, part: Snapshot | None = None
) -> list[TargetLayer]:
    """Compute the training targets of some planes, of a series those of one of its parts.

    Returns
    -------
    list of TargetLayer
        The maps that the loss needs, then class indices, or one channel for each output of the network.

    Raises
    ------
    UserError
        The same errors as in training.
    """
    inputs, every = part or inputs, inputs.parts
    labels = np.stack([_painted(channel) for channel in inputs.labels])
    others = [np.stack([_read(channel) for channel in each.labels]) for each in every if each.points != inputs.points]
    classes = find_classes([Volume(values, name=inputs.labels[0].name) for values in (labels, *others)], settings)
    maps = {name: row for name, row in needed_maps(settings).items() if row.preview}
    around = max((row.margin or 0 for row in maps.values()), default=0)
    margin = max(target_margin(classes, settings)[0], label_margin(settings) + around)
    first = max(0, planes.start - margin)
    wider = slice(first, planes.stop + margin)
    mask = None if inputs.mask is None else _painted(inputs.mask)[wider]
    target = make_target(labels[:, wider], classes, settings, inputs.labels[0].name, mask)
    inner: Any = (..., slice(planes.start - first, planes.stop - first), slice(None), slice(None))
    shown: list[TargetLayer] = []
    for name, row in maps.items():
        shown += _map(name, row, row.compute(labels[:, wider], target, settings, inputs.spacing)[inner], target[inner])
    training_target = loss_target(target, classes, settings)[inner]
    if training_target.ndim == 3:
        return [*shown, _channel("target", training_target, len(classes) - 1)]
    names = list(_names(classes, [label.name for label in inputs.labels]))[-len(training_target) :]
    return shown + [_channel(name, channel) for name, channel in zip(names, training_target, strict=True)]


def _read(channel: Channel) -> NDArray[Any]:
    """Read labels as (Z, Y, X)."""
    values: NDArray[Any] = channel.read((slice(None),) * len(channel.shape))
    return values[None] if values.ndim == 2 else values


def _painted(channel: Channel) -> NDArray[Any]:
    """Read labels as (Z, Y, X), and refuse empty ones."""
    values = _read(channel)
    if not values.any():
        raise DataProblem(f"Nothing is painted on {channel.name}; paint some labels first.")
    return values


def _part_to_show(inputs: Snapshot, point: int | None) -> Snapshot:
    """Choose the time point that is shown, if it is one of those that are chosen and painted, else the first such."""
    if not inputs.points:
        return inputs
    parts = sorted(inputs.parts, key=lambda part: part.points != (point,))
    return next((part for part in parts if any(_read(each).any() for each in part.labels)), parts[0])


def _names(classes: Classes, masks: Sequence[str]) -> Iterator[str]:
    """Name each output of the network."""
    kinds = ["line" if i in classes.lines else "label" for i in range(len(classes))]
    rows = zip(kinds, classes.values, classes.output_values, strict=True)
    names = [f"{kind} {value}" if output_value else "background" for kind, value, output_value in rows]
    for i, name in enumerate(classes.names or (masks if len(masks) > 1 else names)):
        yield f"target: {name}"
        if i in classes.lines:
            yield from (f"target: {name}, blurred by {size}" for size in SIZES)


def _map(name: str, row: TargetMap, values: NDArray[np.float32], target: NDArray[np.uint8]) -> list[TargetLayer]:
    """Show a map, or each of its channels, on the scale that its row names."""
    ignored = (target == IGNORE).reshape(-1, *target.shape[-3:]).all(axis=0)
    title = f"{name} weights" if row.use == "weight" else f"target: {name}"
    titles = [title] if values.ndim == 3 else [f"{title} {k + 1}" for k in range(len(values))]
    layers = []
    for each, channel in zip(titles, values.reshape(-1, *values.shape[-3:]), strict=True):
        if row.preview == "shares":
            shares = np.where(ignored, np.float32(np.nan), channel)
            layers.append(TargetLayer(each, shares, "shares", ignored=bool(ignored.any())))
        else:
            low, top = min(0.0, float(channel.min())), float(channel.max())
            layers.append(TargetLayer(each, channel, "weights", top if top > low else 1.0, low=low))
    return layers


def _channel(name: str, channel: NDArray[Any], top: int = 1) -> TargetLayer:
    """Describe hard targets as labels, and soft targets as an image with NaN at ignored voxels."""
    ignored = channel == IGNORE
    if channel.dtype == np.uint8:
        return TargetLayer(name, channel, "classes", top, bool(ignored.any()))
    shares = np.where(ignored, np.float32(np.nan), channel)
    return TargetLayer(name, shares, "shares", ignored=bool(ignored.any()))


class Preview(QObject):  # type: ignore[misc]
    """Shows targets in a viewer without blocking it."""

    finished = Signal(str)
    """Status text."""
    failed = Signal(object)
    """Error messages, tuple of str."""
    _computed = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Any = None
        self._planes, self._depth, self._points = slice(0, 1), 1, tuple[int, ...]()
        self._computed.connect(self._show_all)

    @property
    def busy(self) -> bool:
        """Whether targets are being computed."""
        return self in _BUSY

    def start(self, image: Any, inputs: Snapshot, settings: TrainJob) -> None:
        """Compute targets in a thread and show them.

        Parameters
        ----------
        image : napari Image layer
            Defines the grid of the targets.
        """
        if self.busy:
            return
        _BUSY.add(self)
        part = _part_to_show(inputs, shown_point(self._viewer, image))
        shape, self._points = part.labels[0].shape, part.points
        most = MOST_VOXELS // (SOFT_COSTS if settings.label_blur or settings.lines else 1)
        self._image, self._planes = image, _planes(self._viewer, image, shape, most)
        self._depth = shape[0] if len(shape) == 3 else 1
        arguments = (inputs, settings, self._planes, part)
        threading.Thread(target=self._compute, args=arguments, name="napari-unetvnet-preview", daemon=True).start()

    def _compute(self, inputs: Snapshot, settings: TrainJob, planes: slice, part: Snapshot) -> None:
        """Compute targets in the worker thread and emit them, or error messages."""
        result: list[TargetLayer] | tuple[str, ...]
        try:
            result = targets_of(inputs, with_meaning(inputs, settings), planes, part)
        except UserError as problem:
            result = problem.lines
        except Exception as error:  # noqa: BLE001 (on any error the button must be enabled again)
            result = (f"The targets could not be computed: {type(error).__name__}: {error}",)
        self._computed.emit(result)

    def _show_all(self, result: list[TargetLayer] | tuple[str, ...]) -> None:
        _BUSY.discard(self)
        if isinstance(result, tuple):
            self.failed.emit(result)
            return
        active = self._viewer.layers.selection.active
        old = {layer.name: layer for layer in self._viewer.layers if "targets" in layer.metadata.get(METADATA_KEY, {})}
        shares = [shown for shown in result if shown.kind == "shares"]
        foreground = next((shown for shown in shares if not shown.name.endswith("background")), None)
        for shown in result:
            self._show(shown, old, visible=shown.kind != "shares" or shown is foreground)
        for layer in old.values():
            self._viewer.layers.remove(layer)
        self._viewer.layers.selection.active = active  # so that the user can continue painting
        self.finished.emit(self._sentence(result))

    def _show(self, shown: TargetLayer, old: dict[str, Any], *, visible: bool) -> None:
        """Update the values of an existing layer, or replace it; of the soft targets only one is visible."""
        point = self._points[0] if self._points else None
        data = as_shown(shown.data, self._image, point)
        layer = _layer(shown, data, place_of(self._image, (self._planes.start, 0, 0), point=point))
        existing = old.pop(shown.name, None)
        if existing is not None and _alike(existing, layer):
            existing.data = data
            if shown.kind == "classes":
                existing.colormap = layer.colormap  # there may be new classes
            return
        if existing is not None:
            self._viewer.layers.remove(existing)
        layer.visible = visible
        self._viewer.add_layer(layer)

    def _sentence(self, targets: Sequence[TargetLayer]) -> str:
        count, first = self._planes.stop - self._planes.start, self._planes.start
        part = "" if count == self._depth else f" for planes {first} to {first + count - 1}"
        part += f" at time point {self._points[0]}" if self._points else ""
        ignored = ""
        if any(shown.ignored for shown in targets):
            soft = any(shown.kind == "shares" for shown in targets)
            ignored = f" {'Empty' if soft else f'Grey, label {IGNORE}'}: ignored in training."
        return f"{len(targets)} target layer{'s' if len(targets) > 1 else ''} shown{part}.{ignored}"


def _planes(viewer: Any, image: Any, shape: Sequence[int], most: int) -> slice:
    """Choose the planes to show: all, or up to ``most`` voxels around the current plane."""
    if len(shape) == 2 or math.prod(shape) <= most:
        return slice(0, 1 if len(shape) == 2 else shape[0])
    count = max(1, most // math.prod(shape[1:]))
    current = round(float(image.world_to_data(viewer.dims.point)[axes_of(image, series=True).z or 0]))
    first = min(max(0, current - count // 2), shape[0] - count)
    return slice(first, first + count)


def _layer(shown: TargetLayer, data: NDArray[Any], place: dict[str, Any]) -> Any:
    """Create a layer: classes in their colours, ignored voxels grey, soft targets and weights in a colormap."""
    options = {"name": shown.name, "metadata": {METADATA_KEY: {"preview": True, "targets": True}}, **place}
    if shown.kind == "classes":
        colours = {value: label_colormap().map(value) for value in range(1, int(shown.top) + 1)}
        colormap = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", IGNORE: GREY} | colours)
        return Labels(data, colormap=colormap, opacity=0.6, **options)
    colormap = "magma" if shown.kind == "shares" else "viridis"
    limits = (shown.low, shown.top)
    return Image(data, colormap=colormap, contrast_limits=limits, blending="translucent", **options)


def _alike(layer: Any, other: Any) -> bool:
    """Whether two layers are the same except for their values."""
    places = [whole_place(each) for each in (layer, other)]
    axes = all(places[0][name] == places[1][name] for name in ("units", "axis_labels"))
    return (
        type(layer) is type(other)
        and layer.data.shape == other.data.shape
        and axes
        and all(
            np.allclose(np.asarray(places[0][name]), np.asarray(places[1][name]))
            for name in ("scale", "translate", "rotate", "shear", "affine")
        )
    )
