"""The image and the model that a panel applies to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unetvnet.errors import DataProblem, ModelProblem
from napari_unetvnet.runs.channels import order_for
from napari_unetvnet.widgets import layers

if TYPE_CHECKING:
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.widgets.models import ModelPicker
    from napari_unetvnet.widgets.pickers import ImagePicker

__all__ = ["ModelInputs", "layer_names", "read_inputs"]


def layer_names(inputs: layers.Snapshot) -> tuple[str, ...]:
    """Give the names of the layers that are the channels of an image; none if a layer has several, or names repeat."""
    names = tuple(channel.name for channel in inputs.channels)
    return names if len({name.casefold() for name in names}) == len(names) else ()


class ModelInputs(NamedTuple):
    """The chosen layers, the card of the chosen model, and the files of a job, as plain values."""

    layers: layers.Snapshot
    card: ModelCard
    files: dict[str, Any]


def read_inputs(image: ImagePicker, model: ModelPicker, mask: Any = None, point: int | None = None) -> ModelInputs:
    """Read and validate the choices before anything is written.

    Parameters
    ----------
    mask : napari Labels layer, optional
    point : int, optional
        The only time point of a series that is used.

    Returns
    -------
    ModelInputs

    Raises
    ------
    ModelProblem
        If there is no model, or it cannot be read.
    DataProblem
        If a layer cannot be used, or has another number of channels than the model expects.
    """
    path, card = model.path, model.card
    if path is None:
        raise ModelProblem("There is no model yet; train one, or choose a file.")
    if card is None:
        raise ModelProblem(f"{path} cannot be read; choose another model.")
    inputs = layers.snapshot(image.layers, mask=mask, view=card.view, painted=False)
    names = layer_names(inputs)
    if card.channel_names and names and not len(names) == card.channels == 1:
        order_for(card, names)
    elif len(inputs.channels) != card.channels:
        raise DataProblem(
            f"The model expects images with {card.channels} channel(s), {inputs.name} has {len(inputs.channels)}; "
            "choose other channels or another model."
        )
    if point is not None:
        inputs = inputs.chosen((str(point),)).parts[0]
    files = {
        "image": inputs.files.image,
        "channel_names": names,
        "spacing": inputs.spacing,
        "unit": inputs.unit,
        "axes": inputs.axes,
        "model": str(path),
    }
    return ModelInputs(inputs, card, files | ({"mask": inputs.files.mask} if mask is not None else {}))
