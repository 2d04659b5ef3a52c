"""Batch norm over the patches of all processes, so that a network learns as it would in one.

torch has it for GPUs only; on CPUs it is written out here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["norm_across"]


class _Sum(torch.autograd.Function):
    """Sum over the processes; each has a part in the gradient of all."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        """Give the sum."""
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, of_total: Tensor) -> Tensor:
        """Add up what the total is worth to each."""
        worth = of_total.contiguous().clone()
        distributed.all_reduce(worth)
        return worth


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose mean and variance are those of all processes; running statistics as ever."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to the same shape."""
        if not self.training:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
        values = x.float()
        sums = _sum(torch.cat([values.sum(axes), values.new_tensor([x.numel() / x.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.reshape(shape)
        variance = _sum(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        y = centred * scale.reshape(shape)
        return (y + self.bias.reshape(shape) if self.affine else y).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def _sum(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)  # type: ignore[no-untyped-call]
    return total


def norm_across(network: nn.Module, device: torch.device) -> None:
    """Let batch norms take the statistics of all processes.

    Parameters
    ----------
    network : Module
        Changed in place; names and values of its parameters stay.
    device : torch.device
    """
    if device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) and layer.track_running_stats and layer.momentum:
            layer.__class__ = _BatchNorm  # type: ignore[assignment]
