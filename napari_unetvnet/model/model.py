"""A network together with its card, one safetensors file, and one call for every view.

`Model.logits` takes blocks ``(B, C, Z, Y, X)`` in every view and hides what differs: in 2D the planes become the batch,
in 2.5D each plane brings its neighbours as channels, sizes that do not fit are mirrored up to the next that does. What
the network needs around its output (neighbour planes, the border that valid convolutions use up) is `margin`, and the
caller hands it in with the block, so that a tile in the middle of an image sees the image and not padding.
"""

from __future__ import annotations

import json
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from napari_unetvnet.errors import FileProblem, ModelProblem, OutOfMemory
from napari_unetvnet.files import replacing
from napari_unetvnet.model.card import ModelCard, read_card
from napari_unetvnet.model.device import choose_device, lacks_memory
from napari_unetvnet.model.wrappers import Wrapper, Wrappers
from napari_unetvnet.networks import build_network
from napari_unetvnet.networks.base import TrainingOutputs
from napari_unetvnet.networks.facts import outline, voxel_bytes
from napari_unetvnet.networks.layout import fast_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_unetvnet.networks.base import SegmentationNetwork
    from napari_unetvnet.settings import ComputeSettings

    Outputs = Callable[[Tensor], tuple[Tensor, ...]]

__all__ = ["Model", "build_model", "load_model", "save_model"]

Result = TypeVar("Result")
Margin = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Model:
    """A network and what is known about it.

    Parameters
    ----------
    network : SegmentationNetwork
    card : ModelCard
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}
        Of convolutions; logits are float32 in any case.
    """

    def __init__(
        self, network: SegmentationNetwork, card: ModelCard, device: torch.device, precision: str = "fp32"
    ) -> None:
        self.wrappers = Wrappers(network)
        self.wrappers.add(Wrapper("memory layout", partial(fast_layout, dims=card.dims)))
        self.network = network.to(device)
        self.card = card
        self.device = device
        self.precision = precision

    @property
    def margin(self) -> Margin:
        """Voxels (before, after) on z, y and x that a block must bring beyond its output."""
        inner = self.network.margin
        if self.card.dims == 3:
            return inner[0], inner[1], inner[2]
        return (self.card.context, self.card.context), inner[0], inner[1]

    @property
    def alignment(self) -> tuple[int, int, int]:
        """What tile offsets z, y, x must be multiples of for tiles to agree exactly."""
        return self._zyx(self.network.alignment)

    @property
    def smallest(self) -> tuple[int, int, int]:
        """Smallest image z, y, x that the network can take."""
        return self._zyx(self.network.smallest)

    @cached_property
    def voxel_bytes(self) -> float:
        """Memory that the network takes for each voxel of a tile."""
        return voxel_bytes(self.network, self.device)

    def _zyx(self, size: Sequence[int]) -> tuple[int, int, int]:
        return (size[0], size[1], size[2]) if self.card.dims == 3 else (1, size[0], size[1])

    def fit(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Give the smallest output size at least as large as a size for which nothing has to be padded.

        Parameters
        ----------
        size : 3 int
            Voxels z, y, x.

        Returns
        -------
        tuple of 3 int
        """
        inner, margin = tuple(size)[-self.card.dims :], self.network.margin
        lost = [before + after for before, after in margin]
        fitting = self.network.fit([n + m for n, m in zip(inner, lost, strict=True)])
        kept = [n - m for n, m in zip(fitting, lost, strict=True)]
        return (kept[0], kept[1], kept[2]) if self.card.dims == 3 else (size[0], kept[0], kept[1])

    def smaller(self, size: Sequence[int]) -> tuple[int, int, int] | None:
        """Halve the longest axes of a size, to what the network takes.

        Parameters
        ----------
        size : 3 int
            Voxels z, y, x.

        Returns
        -------
        tuple of 3 int, or None if it is as small as can be
        """
        longest = max(size)
        fitting = self.fit([max(1, n // 2) if 2 * n > longest and n > 1 else n for n in size])
        return fitting if max(fitting) < longest else None

    def logits(self, blocks: Tensor, *, cascade: bool = True) -> Tensor:
        """Run the network on blocks that bring their margin.

        Parameters
        ----------
        blocks : Tensor of shape (B, C, Z + mz, Y + my, X + mx)
            Normalised intensities; m is the sum of `margin` on an axis.
        cascade : bool
            Whether a network that looks twice does so; never in training mode, nor where it has no object to look into.

        Returns
        -------
        Tensor of shape (B, K, Z, Y, X), float32

        Raises
        ------
        OutOfMemory
            If the blocks do not fit on the device.
        RuntimeError
            If anything else goes wrong in the network.
        """
        twice = cascade and not self.network.training and self.card.begins_with_object
        look = self.network.segmentation_logits if twice else self.network
        return self._run(blocks, lambda x: (look(x),))[0]

    def supervised(self, blocks: Tensor) -> tuple[TrainingOutputs, Tensor]:
        """Run the network as training sees it.

        Parameters
        ----------
        blocks : Tensor of shape (B, C, Z + mz, Y + my, X + mx)

        Returns
        -------
        outputs : TrainingOutputs
            Everything in float32 and with axes (B, ..., Z, Y, X); logits of shape (B, K, Z, Y, X).
        image : Tensor of shape (B, C, Z, Y, X)
            What the network saw: neighbour planes are channels.

        Raises
        ------
        OutOfMemory
            If the blocks do not fit on the device.
        RuntimeError
            If anything else goes wrong in the network.
        """
        kept: list[tuple[TrainingOutputs, Tensor]] = []

        def everything(x: Tensor) -> tuple[Tensor, ...]:
            seen = self.network.training_outputs(x)
            kept.append((seen, x))
            return seen.logits, *seen.auxiliary, *(() if seen.roi is None else (seen.roi,))

        logits, *coarser = self._run(blocks, everything)
        (seen, x), batch = kept[-1], len(blocks)
        outputs = TrainingOutputs(
            logits,
            auxiliary=tuple(coarser[: len(seen.auxiliary)]),
            attention=tuple(self._with_planes(part, batch) for part in seen.attention),
            reconstruction=None if seen.reconstruction is None else self._with_planes(seen.reconstruction, batch),
            latent=None if seen.latent is None else (seen.latent[0].float(), seen.latent[1].float()),
            roi=None if seen.roi is None else coarser[-1],
        )
        return outputs, self._with_planes(x, batch)

    def _with_planes(self, part: Tensor, batch: int) -> Tensor:
        """Give planes that were a batch their place on z again."""
        part = part.float()
        return part if self.card.dims == 3 else part.reshape(batch, -1, *part.shape[1:]).transpose(1, 2)

    def move_to(self, device: torch.device, precision: str) -> None:
        """Compute elsewhere from now on.

        Parameters
        ----------
        device : torch.device
        precision : {"fp32", "bf16", "fp16"}
        """
        self.network.to(device)
        self.device, self.precision = device, precision

    def _run(self, blocks: Tensor, outputs: Outputs) -> tuple[Tensor, ...]:
        run = self._padded if self.card.dims == 3 else self._planes
        return self.in_memory(lambda: run(blocks, outputs), blocks)

    def in_memory(self, work: Callable[[], Result], blocks: Tensor) -> Result:
        """Do something and say in a sentence if memory does not suffice.

        Parameters
        ----------
        work : callable
        blocks : Tensor of shape (B, C, Z, Y, X)
            What is worked on, for the sentence.

        Returns
        -------
        What the work gives.

        Raises
        ------
        OutOfMemory
            If it does not fit on the device.
        RuntimeError
            If anything else goes wrong.
        """
        try:
            return work()
        except MemoryError:
            pass
        except RuntimeError as error:  # torch's own OutOfMemoryError is one, and so is the CPU allocator's complaint
            if not lacks_memory(error):
                raise
        size = " x ".join(map(str, blocks.shape[2:]))
        raise OutOfMemory(
            f"{len(blocks)} block(s) of {size} voxels do not fit in the memory of {self.device}; "
            "choose a smaller batch, a smaller patch or tile, or another device."
        )

    def _planes(self, blocks: Tensor, outputs: Outputs) -> tuple[Tensor, ...]:
        """Make the planes a batch; channels are ordered plane by plane, from the lowest neighbour to the highest."""
        window = 2 * self.card.context + 1
        stacks = blocks.unfold(2, window, 1)  # (B, C, Z, Y, X, window)
        batch, channels, depth, height, width, _ = stacks.shape
        planes = stacks.permute(0, 2, 5, 1, 3, 4).reshape(batch * depth, window * channels, height, width)
        parts = self._padded(planes, outputs)
        return tuple(part.reshape(batch, depth, *part.shape[1:]).transpose(1, 2) for part in parts)

    def _padded(self, x: Tensor, outputs: Outputs) -> tuple[Tensor, ...]:
        """Run the network on any size: mirror up to one that fits, cut what that added."""
        size = x.shape[2:]
        for axis, n in enumerate(self.network.fit(size), start=2):
            x = _mirror_to(x, axis, n)
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32"):
            parts = [part.float() for part in outputs(x)]
        for axis, (n, (before, after)) in enumerate(zip(size, self.network.margin, strict=True), start=2):
            parts = [part.narrow(axis, 0, n - before - after) for part in parts]
        return tuple(parts)


def _mirror_to(x: Tensor, axis: int, size: int) -> Tensor:
    """Lengthen an axis at its end by mirroring, as often as needed."""
    n = x.shape[axis]
    if n == size:
        return x
    index = torch.arange(size, device=x.device)
    if n == 1:
        return x.index_select(axis, index * 0)
    folded = index % (2 * n - 2)
    return x.index_select(axis, torch.minimum(folded, 2 * n - 2 - folded))


def build_model(card: ModelCard, settings: ComputeSettings) -> Model:
    """Build an untrained model.

    Parameters
    ----------
    card : ModelCard
    settings : ComputeSettings

    Returns
    -------
    Model

    Raises
    ------
    OutOfMemory
        If the weights do not fit into memory.
    """
    device, precision = choose_device(settings)
    _check_memory(card)
    network = build_network(card.network, card.dims, card.in_channels, card.outputs, card.option)
    return Model(network, card, device, precision)


def _check_memory(card: ModelCard) -> None:
    """Refuse a network whose weights alone do not fit into memory, before the system ends the process over it."""
    import psutil

    network = outline(card.network, card.dims, card.in_channels, card.outputs, card.option)
    needed = 4 * sum(p.numel() for p in network.parameters())
    if needed > (free := psutil.virtual_memory().available):
        raise OutOfMemory(
            f"{card.network} with {card.option} has weights of {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB of "
            "memory are free; choose a smaller width or depth."
        )


def load_model(path: str | Path, settings: ComputeSettings) -> Model:
    """Load a model file, ready to segment.

    Parameters
    ----------
    path : str or Path
    settings : ComputeSettings

    Returns
    -------
    Model
        In evaluation mode.

    Raises
    ------
    FileProblem
        If there is no such file.
    ModelProblem
        If it is cut off, not ours, or its weights do not fit its card.
    """
    from safetensors.torch import load_file

    model = build_model(read_card(path), settings)
    try:
        model.network.load_state_dict(load_file(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelProblem(f"{path}: the weights do not fit the model card ({reason}).") from None
    model.network.eval()
    return model


def save_model(path: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write weights and card as one file, whole or not at all.

    Parameters
    ----------
    path : Path
    weights : mapping of str to Tensor
        A state dict.
    card : ModelCard
    """
    save_tensors(path, weights, {"card": card.model_dump_json()})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors to a safetensors file so that a reader finds the old file or the new one, never a part.

    Parameters
    ----------
    path : Path
    tensors : mapping of str to Tensor
    header : mapping of str to str

    Raises
    ------
    FileProblem
        If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Copies, because a network may hold one tensor under two names, which the format does not have.
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    try:
        with replacing(path) as part:
            save_file(own, part, dict(header))
    except (OSError, SafetensorError) as error:
        raise FileProblem(f"{path} cannot be written ({error}); choose another place.") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read what stands as JSON under "state" in a safetensors header.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        state: dict[str, Any] = json.loads((file.metadata() or {})["state"])
    return state
