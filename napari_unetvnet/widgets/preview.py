"""What a loss would see of the labels, as layers on the grid of their image.

Computed in a thread by the functions that training uses. Of a volume that is too large to look at whole, only the
planes around the present one are shown.
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
from napari_unetvnet.data.targets import find_classes, loss_target, make_target, needed_maps, target_margin
from napari_unetvnet.data.targets.lines import SIZES
from napari_unetvnet.errors import DataProblem, UserError
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.widgets.layers import place_of
from napari_unetvnet.widgets.pickers import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.data.targets import Classes, TargetMap
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.widgets.layers import Channel, Snapshot

__all__ = ["Preview", "Shown", "targets_of"]

MOST_VOXELS = 64 * 2**20
SOFT_COSTS = 8
"""Shares need four times the memory of classes, and there are several of them."""
GREY = (0.5, 0.5, 0.5, 0.6)
_WORKING: set[Preview] = set()


@dataclass(frozen=True, eq=False)
class Shown:
    """A layer to be: name, values (Z, Y, X), how to draw them, between which values, and whether some are unknown."""

    name: str
    data: NDArray[Any]
    kind: Literal["classes", "shares", "weights"]
    top: float = 1.0
    unknown: bool = False
    low: float = 0.0


def targets_of(taken: Snapshot, settings: TrainSettings, planes: slice) -> list[Shown]:
    """Compute what a loss would see of some planes.

    Parameters
    ----------
    taken : Snapshot
    settings : TrainSettings
    planes : slice
        Which planes.

    Returns
    -------
    list of Shown
        The maps that the loss asks for, then class indices or a channel for each output of the network.

    Raises
    ------
    UserError
        As when training begins.
    """
    masks = [_painted(channel) for channel in taken.labels]
    labels = np.stack(masks) if len(masks) > 1 else masks[0][None]
    classes = find_classes([Volume(labels, name=taken.labels[0].name)], settings)
    maps = {name: row for name, row in needed_maps(settings).items() if row.preview}
    margin = max(target_margin(classes, settings)[0], *(row.margin or 0 for row in maps.values()), 0)
    first = max(0, planes.start - margin)
    wider = slice(first, planes.stop + margin)
    mask = None if taken.mask is None else _painted(taken.mask)[wider]
    target = make_target(labels[:, wider], classes, settings, taken.labels[0].name, mask)
    inner: Any = (..., slice(planes.start - first, planes.stop - first), slice(None), slice(None))
    shown: list[Shown] = []
    for name, row in maps.items():
        shown += _map(name, row, row.compute(labels[:, wider], target, settings)[inner], target[inner])
    learnt = loss_target(target, classes, settings)[inner]
    if learnt.ndim == 3:
        return [*shown, _channel("target", learnt, len(classes) - 1)]
    names = list(_names(classes, [label.name for label in taken.labels]))[-len(learnt) :]
    return shown + [_channel(name, channel) for name, channel in zip(names, learnt, strict=True)]


def _painted(channel: Channel) -> NDArray[Any]:
    """Read labels as (Z, Y, X)."""
    values = np.asarray(channel.data)
    if not values.any():
        raise DataProblem(f"Nothing is painted on {channel.name}; paint some labels first.")
    return values[None] if values.ndim == 2 else values


def _names(classes: Classes, masks: Sequence[str]) -> Iterator[str]:
    """Name each output of the network."""
    kinds = ["line" if i in classes.lines else "label" for i in range(len(classes))]
    both = zip(kinds, classes.values, classes.output_values, strict=True)
    names = [f"{kind} {value}" if written else "background" for kind, value, written in both]
    for i, name in enumerate(classes.names or (masks if len(masks) > 1 else names)):
        yield f"target: {name}"
        if i in classes.lines:
            yield from (f"target: {name}, blurred by {size}" for size in SIZES)


def _map(name: str, row: TargetMap, values: NDArray[np.float32], target: NDArray[np.uint8]) -> list[Shown]:
    """Show a map, or each of its channels, on the scale that its row names."""
    unknown = (target == IGNORE).reshape(-1, *target.shape[-3:]).all(axis=0)
    title = f"{name} weights" if row.use == "weight" else f"target: {name}"
    titles = [title] if values.ndim == 3 else [f"{title} {k + 1}" for k in range(len(values))]
    layers = []
    for each, channel in zip(titles, values.reshape(-1, *values.shape[-3:]), strict=True):
        if row.preview == "shares":
            shares = np.where(unknown, np.float32(np.nan), channel)
            layers.append(Shown(each, shares, "shares", unknown=bool(unknown.any())))
        else:
            low, top = min(0.0, float(channel.min())), float(channel.max())
            layers.append(Shown(each, channel, "weights", top if top > low else 1.0, low=low))
    return layers


def _channel(name: str, channel: NDArray[Any], top: int = 1) -> Shown:
    """Show classes as labels and shares as an image, NaN at ignored voxels."""
    unknown = channel == IGNORE
    if channel.dtype == np.uint8:
        return Shown(name, channel, "classes", top, bool(unknown.any()))
    shares = np.where(unknown, np.float32(np.nan), channel)
    return Shown(name, shares, "shares", unknown=bool(unknown.any()))


class Preview(QObject):  # type: ignore[misc]
    """Shows targets in a viewer; the viewer does not wait for them.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    """

    finished = Signal(str)
    """What is shown, a sentence."""
    failed = Signal(object)
    """Sentences that say why there is nothing to show."""
    _computed = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Any = None
        self._planes, self._depth = slice(0, 1), 1
        self._computed.connect(self._take)

    @property
    def busy(self) -> bool:
        """Whether targets are being computed."""
        return self in _WORKING

    def begin(self, image: Any, taken: Snapshot, settings: TrainSettings) -> None:
        """Compute targets in a thread and show them.

        Parameters
        ----------
        image : napari Image layer
            Gives the targets their place in the world.
        taken : Snapshot
        settings : TrainSettings
        """
        if self.busy:
            return
        _WORKING.add(self)
        shape = taken.labels[0].shape
        most = MOST_VOXELS // (SOFT_COSTS if settings.label_blur or settings.lines else 1)
        self._image, self._planes = image, _planes(self._viewer, image, shape, most)
        self._depth = shape[0] if len(shape) == 3 else 1
        arguments = (taken, settings, self._planes)
        threading.Thread(target=self._compute, args=arguments, name="napari-unetvnet-preview", daemon=True).start()

    def _compute(self, taken: Snapshot, settings: TrainSettings, planes: slice) -> None:
        """Compute, in the thread, and send what came of it: layers, or sentences."""
        result: list[Shown] | tuple[str, ...]
        try:
            result = targets_of(taken, settings, planes)
        except UserError as problem:
            result = problem.lines
        except Exception as error:  # noqa: BLE001 (whatever it is, the button must come back)
            result = (f"The targets could not be computed: {type(error).__name__}: {error}",)
        self._computed.emit(result)

    def _take(self, result: list[Shown] | tuple[str, ...]) -> None:
        _WORKING.discard(self)
        if isinstance(result, tuple):
            self.failed.emit(result)
            return
        active = self._viewer.layers.selection.active
        old = {layer.name: layer for layer in self._viewer.layers if "targets" in layer.metadata.get(OURS, {})}
        shares = [shown for shown in result if shown.kind == "shares"]
        front = next((shown for shown in shares if not shown.name.endswith("background")), None)
        for shown in result:
            self._show(shown, old, visible=shown.kind != "shares" or shown is front)
        for layer in old.values():
            self._viewer.layers.remove(layer)
        self._viewer.layers.selection.active = active  # so that painting can go on
        self.finished.emit(self._sentence(result))

    def _show(self, shown: Shown, old: dict[str, Any], *, visible: bool) -> None:
        """Give a layer that is there the new values, or replace it; images would cover each other."""
        data = shown.data[0] if self._image.ndim == 2 else shown.data
        layer = _layer(shown, data, place_of(self._image, (self._planes.start, 0, 0)))
        there = old.pop(shown.name, None)
        if there is not None and _alike(there, layer):
            there.data = data
            if shown.kind == "classes":
                there.colormap = layer.colormap  # there may be new classes
            return
        if there is not None:
            self._viewer.layers.remove(there)
        layer.visible = visible
        self._viewer.add_layer(layer)

    def _sentence(self, targets: Sequence[Shown]) -> str:
        count, first = self._planes.stop - self._planes.start, self._planes.start
        part = "" if count == self._depth else f" for planes {first} to {first + count - 1}"
        unknown = ""
        if any(shown.unknown for shown in targets):
            soft = any(shown.kind == "shares" for shown in targets)
            unknown = f" {'Empty' if soft else f'Grey, label {IGNORE}'}: nothing is learnt there."
        return f"{len(targets)} target layer{'s' if len(targets) > 1 else ''} shown{part}.{unknown}"


def _planes(viewer: Any, image: Any, shape: Sequence[int], most: int) -> slice:
    """Choose the planes to show: all, or as many around the present one as can be looked at."""
    if len(shape) == 2 or math.prod(shape) <= most:
        return slice(0, 1 if len(shape) == 2 else shape[0])
    count = max(1, most // math.prod(shape[1:]))
    here = round(float(image.world_to_data(viewer.dims.point)[0]))
    first = min(max(0, here - count // 2), shape[0] - count)
    return slice(first, first + count)


def _layer(shown: Shown, data: NDArray[Any], place: dict[str, Any]) -> Any:
    """Make a layer: known classes in their colours, unknown voxels grey, shares and weights on a perceptual scale."""
    options = {"name": shown.name, "metadata": {OURS: {"preview": True, "targets": True}}, **place}
    if shown.kind == "classes":
        colours = {value: label_colormap().map(value) for value in range(1, int(shown.top) + 1)}
        colormap = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", IGNORE: GREY} | colours)
        return Labels(data, colormap=colormap, opacity=0.6, **options)
    colormap = "magma" if shown.kind == "shares" else "viridis"
    limits = (shown.low, shown.top)
    return Image(data, colormap=colormap, contrast_limits=limits, blending="translucent", **options)


def _alike(layer: Any, other: Any) -> bool:
    """Whether two layers differ in nothing but their values."""
    places = [place_of(each) for each in (layer, other)]
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
