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

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise SettingsProblem(f"{path} is no safetensors file and no torch state dict of tensors.") from problem
    found = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise SettingsProblem(f"{path} holds no state dict, that is, no table of named tensors.")
    return found


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit a first convolution to another number of channels.

    The kernel for each channel becomes the sum over the published channels divided by `channels`, so that channels
    of equal content give the response that an RGB image of that content gave.

    Parameters
    ----------
    weight : Tensor of shape (C', C, *kernel)
    channels : int

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

    Parameters
    ----------
    encoder : Encoder
    path : str

    Raises
    ------
    SettingsProblem
        If the file cannot be read, or a name or a shape does not fit.
    """
    published = _rename(read_weights(path))
    wanted = encoder.state_dict()
    first = published.get(encoder.first)
    if first is not None:
        published[encoder.first] = fit_channels(first, wanted[encoder.first].shape[1])
    given = {name: value for name, value in published.items() if name in wanted or not name.startswith(encoder.tail)}
    problems = _what_does_not_fit(wanted, given)
    if problems:
        raise SettingsProblem(f"The weights in {path} are not this encoder's: {'; '.join(problems)}.")
    encoder.load_state_dict(given, strict=False)


def _rename(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take leading underscores from each part of a name, and a network's other parts from its file."""
    named = {re.sub(r"(^|\.)_+", r"\1", name): value for name, value in published.items()}
    own = {name.removeprefix("encoder."): value for name, value in named.items() if name.startswith("encoder.")}
    return own or named


def _what_does_not_fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in given and not name.endswith(COUNTER)]
    unknown = [name for name in given if name not in wanted]
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in given.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    return [f"{kind} {_some(names)}" for kind, names in kinds.items() if names]


def _some(names: Sequence[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
