"""The outputs besides logits that a person may look at: a function for each, listed in `networks.OUTPUTS`.

Each maps a network and its input ``(B, C, *S)`` to tensors ``(B, N, *S)`` by name, at the size of the logits.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.networks import OUTPUTS
from napari_unetvnet.networks.base import by
from napari_unetvnet.networks.decoder_blocks import resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_unetvnet.networks.base import SegmentationNetwork

    Output = Callable[[SegmentationNetwork, Tensor], dict[str, Tensor]]

__all__ = ["attention", "heat_maps", "levels", "output_function", "reconstruction"]


def output_function(what: str) -> Output:
    """Give the function of an output.

    Parameters
    ----------
    what : str
        A key of `networks.OUTPUTS`.

    Returns
    -------
    callable
    """
    module, _, name = OUTPUTS[what].partition(":")
    function: Output = getattr(importlib.import_module(module), name)
    return function


def heat_maps(network: SegmentationNetwork, x: Tensor) -> dict[str, Tensor]:
    """Give the mean magnitude of the activations of each level.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)

    Returns
    -------
    dict of str to Tensor of shape (B, 1, *S)
        Not scaled yet: that takes the whole image.
    """
    activations = network.activations(x).items()
    return {name: resize(level.float().abs().mean(1, keepdim=True), x.shape[2:]) for name, level in activations}


def attention(network: SegmentationNetwork, x: Tensor) -> dict[str, Tensor]:
    """Give the attention maps, "level0" being the finest.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)

    Returns
    -------
    dict of str to Tensor of shape (B, 1, *S)
        In [0, 1].
    """
    return {f"level{i}": resize(part, x.shape[2:]) for i, part in enumerate(network.attention_maps(x))}


def reconstruction(network: SegmentationNetwork, x: Tensor) -> dict[str, Tensor]:
    """Give the input as an autoencoder branch gives it back.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)

    Returns
    -------
    dict of str to Tensor of shape (B, C, *S)

    Raises
    ------
    DataProblem
        If the input has not the size that the branch is built for.
    """
    restored = network.training_outputs(x).reconstruction
    if restored is None:
        raise DataProblem(f"{type(network).__name__} gives no input of {by(x.shape[2:])} voxels back.")
    return {"image": restored}


def levels(network: SegmentationNetwork, x: Tensor) -> dict[str, Tensor]:
    """Give the logits of each level that has a head, "main" first.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)

    Returns
    -------
    dict of str to Tensor of shape (B, K, *S)
    """
    return network.level_logits(x)
