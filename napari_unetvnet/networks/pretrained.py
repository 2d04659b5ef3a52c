"""Pretrained encoder weights from a file: read without running code, checked by name and shape, fitted to channels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.networks.encoders import Encoder

__all__ = ["fit_channels", "load_encoder", "read_weights"]

COUNTER = "num_batches_tracked"  # older files have none, and nothing here depends on it


def read_weights(path: str) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file or a torch state dict.

    Parameters
    ----------
    path : str
        A pickle is read with ``weights_only=True``, so a file can hold tensors but run nothing.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    SettingsProblem
        If the file does not exist or holds something else.
    """
    if not Path(path).is_file():
        raise SettingsProblem(f"There is no weights file {path}.")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise SettingsProblem(f"{path} is no safetensors file and no torch state dict of tensors.") from problem
    # Training scripts often save the weights beside an epoch number or an optimizer.
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise SettingsProblem(f"{path} holds no state dict, that is, no table of named tensors.")
    return weights


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit a first convolution to another number of channels.

    The kernel for each channel becomes the sum over the published channels divided by `channels`, so that channels
    of equal content give the response that an RGB image of that content gave.

    Parameters
    ----------
    weight : Tensor of shape (C', C, *kernel)

    Returns
    -------
    Tensor of shape (C', channels, *kernel)
        The same tensor if the number is the same.
    """
    if weight.ndim < 2 or weight.shape[1] == channels:
        return weight
    mean = weight.sum(dim=1, keepdim=True) / channels
    return mean.expand(-1, channels, *weight.shape[2:]).clone()


def load_encoder(encoder: Encoder, path: str) -> None:
    """Fill an encoder with pretrained weights.

    Names are torchvision's for VGG-16 and ResNets, those of efficientnet-lite0-pytorch for EfficientNet-Lite0, and
    our own for the other encoders. A classification tail is left out; a whole network's file gives its encoder.

    Raises
    ------
    SettingsProblem
        If the file cannot be read, or a name or a shape does not fit.
    """
    published = _rename(read_weights(path))
    expected = encoder.state_dict()
    first = published.get(encoder.first)
    if first is not None:
        published[encoder.first] = fit_channels(first, expected[encoder.first].shape[1])
    weights = {name: w for name, w in published.items() if name in expected or not name.startswith(encoder.tail)}
    problems = _mismatches(expected, weights)
    if problems:
        raise SettingsProblem(f"The weights in {path} are not this encoder's: {'; '.join(problems)}.")
    encoder.load_state_dict(weights, strict=False)


def _rename(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop leading underscores from each part of a name, and of a whole network's file all but the encoder."""
    named = {re.sub(r"(^|\.)_+", r"\1", name): value for name, value in published.items()}
    own = {name.removeprefix("encoder."): value for name, value in named.items() if name.startswith("encoder.")}
    return own or named


def _mismatches(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in expected if name not in weights and not name.endswith(COUNTER)]
    unknown = [name for name in weights if name not in expected]
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in weights.items()
        if name in expected and value.shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    return [f"{kind} {_shortened(names)}" for kind, names in kinds.items() if names]


def _shortened(names: Sequence[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
