"""Weights with their card or state in one safetensors file, written atomically."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from napari_unetvnet.errors import FileProblem, ModelProblem
from napari_unetvnet.files import replacing, writing
from napari_unetvnet.json_files import validated
from napari_unetvnet.model.card import BEFORE_FIT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from napari_unetvnet.model.card import ModelCard

__all__ = ["read_state", "read_tensors", "read_weights", "save_model", "save_state", "save_tensors"]

ADVICE = "start a new run"
STATE_CHECK, TENSORS_CHECK = "state_check", "tensors_check"
"""Keys of the header that hold the check sums of a saved state."""

T = TypeVar("T")


def save_model(
    path: Path,
    weights: Mapping[str, Tensor],
    card: ModelCard,
    *,
    half: bool = False,
    before_fit: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights and card as one file, atomically.

    Parameters
    ----------
    weights : mapping of str to Tensor
        A state dict.
    half : bool
        Whether the file has the kernels in float16, half the size, for a model that is passed on. `load_model` gives
        float32 again.
    before_fit : mapping of str to Tensor, optional
        The state dict before the final fit.
    """
    everything = {**weights, **{f"{BEFORE_FIT}{name}": tensor for name, tensor in (before_fit or {}).items()}}
    written = {name: _halved(tensor) for name, tensor in everything.items()} if half else everything
    save_tensors(path, written, {"card": card.model_dump_json()})


def read_weights(path: str | Path, *, before_fit: bool = False) -> dict[str, Tensor]:
    """Read the state dict of a model file.

    Parameters
    ----------
    before_fit : bool
        Whether that before the final fit.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    ModelProblem
        If the file does not hold it.
    """
    from safetensors.torch import load_file

    tensors = load_file(path)
    before = {name.removeprefix(BEFORE_FIT): t for name, t in tensors.items() if name.startswith(BEFORE_FIT)}
    if before_fit and not before:
        raise ModelProblem(
            f"{path} has learnt what was held out in a final fit, and does not hold the weights before it, so nothing "
            "is left to score a training on that starts from it; train the model again with final_fit 0."
        )
    return (
        before if before_fit else {name: tensor for name, tensor in tensors.items() if not name.startswith(BEFORE_FIT)}
    )


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
    with writing(path, needed=sum(tensor.nbytes for tensor in copies.values())), replacing(path) as part:
        try:
            save_file(copies, part, dict(header))
        except SafetensorError as error:  # its only way to say what the disk said
            unwritten = OSError(str(error))
            raise unwritten from error


def save_state(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors with JSON in the header, and check sums of both, because the format has none.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    """
    text = json.dumps(state)
    save_tensors(path, tensors, {"state": text, STATE_CHECK: _check_sum(text), TENSORS_CHECK: _check_sum_of(tensors)})


def read_state(path: Path, kind: type[T]) -> T:
    """Read the JSON in the header of a file of `save_state`.

    Parameters
    ----------
    kind : type
        Its schema, as for `validated`.

    Returns
    -------
    An instance of ``kind``

    Raises
    ------
    FileProblem
        If there is none, or it was changed or does not fit the schema.
    """
    header = _header(path)
    text = header.get("state", "")
    _compare(path, header.get(STATE_CHECK), _check_sum(text))
    return validated(text, kind, f"{path} is damaged", ADVICE)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of `save_state`.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    FileProblem
        If they were changed.
    """
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(path)
    _compare(path, _header(path).get(TENSORS_CHECK), _check_sum_of(tensors))
    return tensors


def _header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _compare(path: Path, stored: str | None, computed: str) -> None:
    """Refuse other check sums; a file of an earlier version has none."""
    if stored not in (None, computed):
        raise FileProblem(f"{path} was changed after it was written, or is damaged; {ADVICE}.")


def _check_sum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _check_sum_of(tensors: Mapping[str, Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total = zlib.crc32(bytes(tensor.reshape(-1).view(torch.uint8).numpy().data), zlib.crc32(name.encode(), total))
    return f"{total:08x}"
