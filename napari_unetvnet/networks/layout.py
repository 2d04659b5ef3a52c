"""The memory order of a network's tensors: channels last, where that is faster.

Convolutions are fastest with the channels of a voxel side by side. A norm that needs another order costs that, because
every layer then copies. Instance norm does, so it is computed here by the batch norm of one sample at a time, which is
the same arithmetic and keeps the order. Group norm and layer norm have no such form, and networks with them stay as
they are: the backward pass of group norm in this order is many times slower.

On a CPU, convolutions in bf16 whose input is no longer than the kernel have wrong weight gradients, from memory that is
not theirs (torch 2.13, oneDNN 3.12: 3D, and 2D with a stride). At that size they take no time, so they are computed in
fp32 while training.

On a CPU, the weight gradient of 2D convolutions that are 1 wide and have a stride writes past its memory where fewer
than 8 channels are last, and can end the process (same versions). They use every n-th voxel only; the others are left
out before.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["InstanceNorm", "fast_layout"]

FEW = 8  # channels: with fewer, the weight gradient writes past its memory


class InstanceNorm(nn.Module):
    """Instance norm in 2D and 3D that keeps the order of its input; the same results to rounding.

    Parameters
    ----------
    affine : bool
        Whether each channel has a scale and a shift that are learnt.
    """

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to the same shape; a single voxel, which torch's own refuses, becomes the shift."""
        if x.shape[2:].numel() == 1:
            x = x - x  # the mean of one voxel, exactly; a rounded one would count 1 / sqrt(eps) times
        cudnn = torch.backends.cudnn.enabled
        norm = partial(torch.batch_norm, weight=self.weight, bias=self.bias, running_mean=None, running_var=None)
        norm = partial(norm, training=True, momentum=0.0, eps=self.eps, cudnn_enabled=cudnn)
        parts = [norm(part) for part in torch.split(x, 1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Exact(nn.Module):
    """A convolution that computes in fp32 what is too small for bf16."""

    kernel_size: tuple[int, ...]

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Convolve as ever, or in fp32."""
        convolve: Callable[..., Tensor] = super().forward
        small = any(1 < k >= n for k, n in zip(self.kernel_size, x.shape[2:], strict=True))
        if not (small and x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
            return convolve(x, *rest)
        with torch.autocast("cpu", enabled=False):
            return convolve(x.float(), *rest)


class _Thinned(_Exact):
    """An exact convolution that, 1 wide, of few channels and with a stride, is given only the voxels that it uses."""

    stride: tuple[int, ...]
    groups: int
    in_channels: int
    padding: str | tuple[int, ...]

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve as ever, or with stride 1 the voxels that count."""
        convolve: Callable[..., Tensor] = super()._conv_forward  # type: ignore[misc]
        thins = max(self.kernel_size) == 1 < max(self.stride) and not any(self.padding)
        if not (thins and self.in_channels < FEW and x.device.type == "cpu"):
            return convolve(x, weight, bias)
        product = functional.conv2d if len(self.kernel_size) == 2 else functional.conv3d
        steps = [slice(None, None, n) for n in self.stride]
        used = x[(slice(None), slice(None), *steps)]
        return product(used, weight, bias, groups=self.groups)


class _Conv2d(_Thinned, nn.Conv2d):
    pass


class _Conv3d(_Thinned, nn.Conv3d):
    pass


class _ConvTranspose2d(_Exact, nn.ConvTranspose2d):
    pass


class _ConvTranspose3d(_Exact, nn.ConvTranspose3d):
    pass


EXACT: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: _Conv2d,
    nn.Conv3d: _Conv3d,
    nn.ConvTranspose2d: _ConvTranspose2d,
    nn.ConvTranspose3d: _ConvTranspose3d,
}


def fast_layout(network: nn.Module, dims: int) -> Callable[[], None]:
    """Bring a network to the order in which it computes fastest, and keep small convolutions exact.

    Parameters
    ----------
    network : Module
        Changed in place; names and values of its parameters stay.
    dims : {2, 3}

    Returns
    -------
    callable
        Undoes it.
    """
    undo = ExitStack()
    for layer in network.modules():
        if (kind := type(layer)) in EXACT:
            # Replacing the class keeps the layer itself, and so every reference to it and its hooks.
            layer.__class__ = EXACT[kind]
            undo.callback(setattr, layer, "__class__", kind)
    instance = list(_instance_norms(network))
    slow = [layer for layer in network.modules() if isinstance(layer, nn.GroupNorm | nn.LayerNorm)]
    if len(slow) > sum(isinstance(norm, nn.GroupNorm) for _, _, norm in instance):
        return undo.close
    for parent, name, norm in instance:
        setattr(parent, name, _converted(norm))
        undo.callback(_put_back, parent, name, norm)
    order = torch.channels_last if dims == 2 else torch.channels_last_3d
    for parameter in network.parameters():
        if parameter.ndim == dims + 2:
            undo.callback(_order_as, parameter, parameter.stride())
            parameter.data = parameter.data.contiguous(memory_format=order)
    return undo.close


def _put_back(parent: nn.Module, name: str, norm: nn.Module) -> None:
    """Put a norm in the place of the one that stood for it, whose parameters are its own."""
    norm.train(getattr(parent, name).training)
    setattr(parent, name, norm)


def _order_as(parameter: nn.Parameter, stride: tuple[int, ...]) -> None:
    """Bring the numbers of a parameter to another order."""
    data = parameter.data
    parameter.data = torch.empty_strided(data.shape, stride, dtype=data.dtype, device=data.device).copy_(data)


def _instance_norms(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Find norms over each sample and channel, one of which is the group norm with a group for each channel."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.InstanceNorm2d | nn.InstanceNorm3d) and not child.track_running_stats:
                yield parent, name, child
            if isinstance(child, nn.GroupNorm) and child.num_groups == child.num_channels:
                yield parent, name, child


def _converted(norm: nn.Module) -> InstanceNorm:
    """Make an instance norm that shares the parameters of another."""
    channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
    instance = InstanceNorm(int(channels), float(norm.eps), affine=False)  # type: ignore[arg-type]
    instance.weight, instance.bias = norm.weight, norm.bias  # type: ignore[assignment]
    return instance.train(norm.training)
