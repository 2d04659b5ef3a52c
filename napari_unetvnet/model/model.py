"""A network together with its card, one safetensors file, and one call for every view.

`Model.logits` takes blocks ``(B, C, Z, Y, X)`` in every view: in 2D the planes become the batch, in 2.5D neighbour
planes become channels, and sizes that do not fit are padded by mirroring. `margin` is what the network needs around its
output (neighbour planes, the border that valid convolutions consume). The caller provides it with the block, so that a
tile inside an image has image around it and not padding.
"""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from napari_unetvnet.errors import ModelProblem, OutOfMemory
from napari_unetvnet.model.card import ModelCard, check_options, read_card, with_options
from napari_unetvnet.model.device import choose_device, lacks_memory
from napari_unetvnet.model.saved import read_weights, save_model
from napari_unetvnet.model.wrappers import Wrapper, Wrappers
from napari_unetvnet.networks import build_network
from napari_unetvnet.networks.base import TrainingOutputs
from napari_unetvnet.networks.facts import outline, voxel_bytes
from napari_unetvnet.networks.layout import fast_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_unetvnet.conventions import OptionValue
    from napari_unetvnet.networks.base import SegmentationNetwork
    from napari_unetvnet.settings import ComputeSettings

    Outputs = Callable[[Tensor], tuple[Tensor, ...]]

__all__ = ["Model", "build_model", "load_model", "save_model"]

Result = TypeVar("Result")
Margin = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Model:
    """A network with its card, device and number format.

    Parameters
    ----------
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
        """Voxels (before, after) on z, y and x that a block must have beyond its output."""
        inner = self.network.margin
        if self.card.dims == 3:
            return inner[0], inner[1], inner[2]
        return (self.card.context, self.card.context), inner[0], inner[1]

    @property
    def alignment(self) -> tuple[int, int, int]:
        """Tile offsets z, y, x must be multiples of this for tiles to agree exactly."""
        return self._zyx(self.network.alignment)

    @property
    def smallest(self) -> tuple[int, int, int]:
        """Smallest input z, y, x of the network."""
        return self._zyx(self.network.smallest)

    @property
    def outputs(self) -> int:
        """Channels of what `logits` gives."""
        return self.card.outputs

    @cached_property
    def voxel_bytes(self) -> float:
        """Bytes that the network needs per voxel of a tile."""
        return voxel_bytes(self.network, self.device)

    def _zyx(self, size: Sequence[int]) -> tuple[int, int, int]:
        return (size[0], size[1], size[2]) if self.card.dims == 3 else (1, size[0], size[1])

    def fit(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Give the smallest output size, not below the given one, that needs no padding.

        Parameters
        ----------
        size : 3 int
            Voxels z, y, x.

        Returns
        -------
        tuple of 3 int
        """
        inner, margin = tuple(size)[-self.card.dims :], self.network.margin
        margins = [before + after for before, after in margin]
        inputs = self._inputs([n + m for n, m in zip(inner, margins, strict=True)])
        outputs = [n - m for n, m in zip(inputs, margins, strict=True)]
        return (outputs[0], outputs[1], outputs[2]) if self.card.dims == 3 else (size[0], outputs[0], outputs[1])

    def _inputs(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give the smallest input of the network that is at least as large as a size."""
        return self.network.fit(size)

    def smaller(self, size: Sequence[int]) -> tuple[int, int, int] | None:
        """Halve the longest axes of a size, and fit it to the network.

        Parameters
        ----------
        size : 3 int
            Voxels z, y, x.

        Returns
        -------
        tuple of 3 int, or None if it is the smallest size
        """
        longest = max(size)
        fitting = self.fit([max(1, n // 2) if 2 * n > longest and n > 1 else n for n in size])
        return fitting if max(fitting) < longest else None

    def logits(self, blocks: Tensor, *, cascade: bool = True) -> Tensor:
        """Run the network on blocks with their margin.

        Parameters
        ----------
        blocks : Tensor of shape (B, C, Z + mz, Y + my, X + mx)
            Normalised intensities; m is the sum of `margin` on an axis.
        cascade : bool
            Whether a two-stage network runs its second stage. In training mode, and without an object class, its
            logits are those of the first stage, which no threshold has shifted.

        Returns
        -------
        Tensor of shape (B, K, Z, Y, X), float32

        Raises
        ------
        OutOfMemory
            If the blocks do not fit on the device.
        RuntimeError
            If the network fails for another reason.
        """
        two_stages = not self.network.training and self.card.begins_with_object
        forward = partial(self.network.segmentation_logits, cascade=cascade) if two_stages else self.network
        return self._run(blocks, lambda x: (forward(x),))[0]

    def supervised(self, blocks: Tensor, objects: Tensor | None = None) -> tuple[TrainingOutputs, Tensor]:
        """Run the network for training, with all its outputs.

        Parameters
        ----------
        blocks : Tensor of shape (B, C, Z + mz, Y + my, X + mx)
        objects : Tensor of bool, shape (B, Z, Y, X), optional
            Where the labels have an object, for a network with two stages.

        Returns
        -------
        outputs : TrainingOutputs
            Everything in float32 and with axes (B, ..., Z, Y, X); logits of shape (B, K, Z, Y, X).
        image : Tensor of shape (B, C, Z, Y, X)
            The input of the network: neighbour planes are channels.

        Raises
        ------
        OutOfMemory
            If the blocks do not fit on the device.
        RuntimeError
            If the network fails for another reason.
        """
        raw: list[tuple[TrainingOutputs, Tensor]] = []

        def everything(x: Tensor) -> tuple[Tensor, ...]:
            result = self.network.outputs_with_objects(x, self._like_input(objects, x))
            raw.append((result, x))
            return result.logits, *result.auxiliary, *(() if result.roi is None else (result.roi,))

        logits, *coarser = self._run(blocks, everything)
        (result, x), batch = raw[-1], len(blocks)
        outputs = TrainingOutputs(
            logits,
            auxiliary=tuple(coarser[: len(result.auxiliary)]),
            attention=tuple(self._with_planes(part, batch) for part in result.attention),
            reconstruction=None if result.reconstruction is None else self._with_planes(result.reconstruction, batch),
            latent=None if result.latent is None else (result.latent[0].float(), result.latent[1].float()),
            roi=None if result.roi is None else coarser[-1],
        )
        return outputs, self._with_planes(x, batch)

    def _like_input(self, objects: Tensor | None, x: Tensor) -> Tensor | None:
        """Give a mask (B, Z, Y, X) the axes and the size of an input of the network; beyond the block it is False."""
        if objects is None or not self.card.begins_with_object:
            return None
        mask, edges = objects if self.card.dims == 3 else objects.flatten(0, 1), list[int]()
        for n, size, (before, _) in zip(mask.shape[1:], x.shape[2:], self.network.margin, strict=True):
            edges = [before, size - n - before, *edges]
        return functional.pad(mask, edges)

    def _with_planes(self, part: Tensor, batch: int) -> Tensor:
        """Restore planes that were a batch to the axis z."""
        part = part.float()
        return part if self.card.dims == 3 else part.reshape(batch, -1, *part.shape[1:]).transpose(1, 2)

    def move_to(self, device: torch.device, precision: str) -> None:
        """Move the network to another device and number format.

        Parameters
        ----------
        precision : {"fp32", "bf16", "fp16"}
        """
        self.network.to(device)
        self.device, self.precision = device, precision

    def _run(self, blocks: Tensor, outputs: Outputs) -> tuple[Tensor, ...]:
        run = self._padded if self.card.dims == 3 else self._planes
        return self.in_memory(lambda: run(blocks, outputs), blocks)

    def in_memory(self, work: Callable[[], Result], blocks: Tensor) -> Result:
        """Run a computation and raise OutOfMemory if memory is exhausted.

        Parameters
        ----------
        blocks : Tensor of shape (B, C, Z, Y, X)
            Input of the computation, for the message.

        Returns
        -------
        The result of the computation.

        Raises
        ------
        OutOfMemory
            If it does not fit on the device.
        RuntimeError
            If the computation fails for another reason.
        """
        try:
            return work()
        except MemoryError:
            pass
        except RuntimeError as error:  # includes torch's OutOfMemoryError and the error of its CPU allocator
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
        for axis, n in enumerate(self._inputs(size), start=2):
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
    """Refuse a network whose weights alone exceed the memory, before the system kills the process."""
    import psutil

    weight_bytes = 4 * sum(p.numel() for p in _outline(card).parameters())
    if weight_bytes > (free := psutil.virtual_memory().available):
        raise OutOfMemory(
            f"{card.network} with {card.option} has weights of {weight_bytes / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB of memory are free; choose a smaller width or depth."
        )


def _check_weights(path: str | Path, card: ModelCard, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not fit their card, before memory is taken for the network, or that are no numbers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is copied to an outline
            _outline(card).load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelProblem(f"{path}: the weights do not fit the model card ({reason}).") from None
    if broken := [name for name, tensor in weights.items() if tensor.is_floating_point() and not _is_finite(tensor)]:
        raise ModelProblem(
            f"{path}: its weights are not all numbers (NaN or infinity in {broken[0]}), so it can find nothing; choose "
            "another model, or train it again."
        )


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _outline(card: ModelCard) -> SegmentationNetwork:
    return outline(card.network, card.dims, card.in_channels, card.outputs, card.option)


def load_model(
    path: str | Path,
    settings: ComputeSettings,
    option: Mapping[str, OptionValue] | None = None,
    *,
    before_fit: bool = False,
) -> Model:
    """Load a model file, ready to segment; weights that were saved in half precision become float32.

    Parameters
    ----------
    option : mapping of str to value, optional
        Options of the network to change.
    before_fit : bool
        Whether with the weights before the final fit, if there was one, which have not learnt what is held out.

    Returns
    -------
    Model
        In evaluation mode.

    Raises
    ------
    FileProblem
        If there is no such file.
    ModelProblem
        If it is cut off, of another program, its weights are no numbers or do not fit its card, or those before its
        final fit are gone.
    SettingsProblem
        If an option cannot be changed.
    """
    stored = read_card(path)
    check_options(stored, str(path))
    card = with_options(stored, option or {})
    weights = read_weights(path, before_fit=before_fit and card.final_fit_steps > 0)
    _check_weights(path, card, weights)
    model = build_model(card, settings)
    model.network.load_state_dict(weights)
    model.network.eval()
    return model
