"""Weights with their card or state in one safetensors file, written atomically."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from napari_unetvnet.model.card import ModelCard

__all__ = ["read_state", "save_model", "save_tensors"]


def save_model(path: Path, weights: Mapping[str, Tensor], card: ModelCard, *, half: bool = False) -> None:
    """Write weights and card as one file, atomically.

    Parameters
    ----------
    weights : mapping of str to Tensor
        A state dict.
    half : bool
        Whether the file has the kernels in float16, half the size, for a model that is passed on. `load_model` gives
        float32 again.
    """
    written = {name: _halved(tensor) for name, tensor in weights.items()} if half else weights
    save_tensors(path, written, {"card": card.model_dump_json()})


def _halved(tensor: Tensor) -> Tensor:
    """Convert a kernel to float16; statistics of norms and biases are few, and kernels beyond its range stay."""
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    small = tensor.to(torch.float16)
    return small if bool(small.isfinite().all()) else tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors to a safetensors file atomically: a reader finds the old file or the new one.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Copies, because a network may have one tensor under two names, which the format does not allow.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    try:
        with replacing(path) as part:
            save_file(copies, part, dict(header))
    except (OSError, SafetensorError) as error:
        raise FileProblem(f"{path} cannot be written ({error}); choose another place.") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read the JSON under "state" in a safetensors header."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        state: dict[str, Any] = json.loads((file.metadata() or {})["state"])
    return state
