"""The loss that training minimises: weighted terms, summed over the output levels of a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch.nn import functional

from napari_unetvnet.losses.classes import roles_by_position
from napari_unetvnet.losses.prepared import Outputs, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from torch import Tensor

    from napari_unetvnet.losses.classes import Roles
    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["DeepSupervision", "Levels", "Loss", "Term"]


class Term(NamedTuple):
    """One term of a weighted sum of losses.

    Parameters
    ----------
    role_names : tuple of str
        Roles that the loss declares.
    roles : mapping of str to tuple of int, or None
        The channels of each; None to go by position.
    channels : tuple of int, or None
        The channels, or classes of a binary head, for each of which it is computed alone; None for all together.
    """

    weight: float
    function: Callable[..., Tensor]
    options: Mapping[str, Any]
    class_weights: tuple[float, ...] = ()
    role_names: tuple[str, ...] = ()
    roles: Roles | None = None
    channels: tuple[int, ...] | None = None

    def __call__(self, prepared: Prepared, learnt: Container[int] | None = None) -> Tensor:
        """Compute the weighted term.

        Parameters
        ----------
        learnt : container of int, optional
            The channels that have a gradient; classes in others are left out.

        Returns
        -------
        Tensor, a scalar
        """
        if self.class_weights:
            prepared = prepared.with_class_weights(self.class_weights)
        if self.channels is not None:
            chosen = [channel for channel in self.channels if learnt is None or channel in learnt]
            losses = [self.function(prepared.of_class(channel), **self.options) for channel in chosen]
            return self.weight * sum(losses, prepared.raw_logits.new_zeros(()))
        if self.role_names:
            channels = prepared.raw_logits.shape[1]
            roles = self.roles or roles_by_position(self.role_names, channels, prepared.head)
            prepared = replace(prepared, roles=roles)
        return self.weight * self.function(prepared, **self.options)


@dataclass(frozen=True)
class Loss:
    """A weighted sum of losses for one head mode, built by `losses.build_loss`."""

    terms: tuple[Term, ...]
    head: str

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        outputs: Outputs | None = None,
        image: Tensor | None = None,
        maps: Mapping[str, Tensor] | None = None,
        learnt: Container[int] | None = None,
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        logits : Tensor of shape (B, K, *S)
        target : Tensor of shape (B, *S) or (B, K, *S)
            Class indices, or one channel per class for soft targets and overlapping classes; IGNORE marks voxels
            without a label in both.
        weight : Tensor of shape (B, *S), optional
            Weight of each voxel, at least 0.
        outputs : Outputs, optional
            Further outputs of the network, for losses that use them.
        image : Tensor of shape (B, C, *S), optional
            The input of the network.
        maps : mapping of str to Tensor of shape (B, *S) or (B, C, *S), optional
            Maps of the labels, for losses that need them.
        learnt : container of int, optional
            The channels that have a gradient, if not all.

        Returns
        -------
        Tensor, a scalar
        """
        # prepare() casts to float32; inside autocast, einsum and the like would go back to half precision.
        with torch.autocast(logits.device.type, enabled=False):
            prepared = prepare(logits, target, weight, self.head)
            channels = {name: _with_channels(values, prepared.raw_logits) for name, values in (maps or {}).items()}
            prepared = replace(prepared, outputs=outputs, image=image, maps=channels)
            return torch.stack([term(prepared, learnt) for term in self.terms]).sum()


class Levels(Outputs, Protocol):
    """What a network with deep supervision returns in training."""

    @property
    def logits(self) -> Tensor:
        """Logits of the main output, shape (B, K, *S)."""

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        """Logits of the coarser levels, the finest first."""

    @property
    def roi(self) -> Tensor | None:
        """Logits of a region-of-interest head, pasted into the full patch, shape (B, K, *S).

        Of several channels it learns all but the first, which is the object that defines the region.
        """


@dataclass(frozen=True)
class DeepSupervision:
    """A weighted sum of a loss over the output levels of a network.

    Parameters
    ----------
    level_weights : tuple of float
        Weight of the main output, then of each coarser level. Each missing weight is half of the one before; the first
        is 1 if none is given.
    roi_weight : float
        Weight of the region-of-interest head, where the network has one.
    """

    loss: Loss
    level_weights: tuple[float, ...] = ()
    roi_weight: float = 1.0

    def __call__(
        self,
        outputs: Levels,
        target: Tensor,
        weight: Tensor | None = None,
        image: Tensor | None = None,
        maps: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        target : Tensor of shape (B, *S) or (B, K, *S)
        weight : Tensor of shape (B, *S), optional
        image : Tensor of shape (B, C, *S), optional
        maps : mapping of str to Tensor of shape (B, *S) or (B, C, *S), optional

        Returns
        -------
        Tensor, a scalar
        """
        main, *coarser = self._weights(1 + len(outputs.auxiliary))
        total = main * self.loss(outputs.logits, target, weight, outputs=outputs, image=image, maps=maps)
        extra: list[tuple[float, Tensor, range | None]] = [
            (factor, logits, None) for factor, logits in zip(coarser, outputs.auxiliary, strict=True)
        ]
        if outputs.roi is not None:
            channels = outputs.roi.shape[1]
            extra.append((self.roi_weight, outputs.roi, range(min(1, channels - 1), channels)))
        for factor, logits, learnt in extra:
            if factor:  # a level of weight 0 is not computed, so that it cannot turn the total into NaN
                logits = _upsampled(logits, outputs.logits)
                total = total + factor * self.loss(logits, target, weight, maps=maps, learnt=learnt)
        return total

    def _weights(self, count: int) -> list[float]:
        weights = list(self.level_weights) or [1.0]
        while len(weights) < count:
            weights.append(weights[-1] / 2)
        return weights[:count]


def _with_channels(values: Tensor, logits: Tensor) -> Tensor:
    """Give a map the axis of channels and the type of the logits."""
    return (values if values.ndim == logits.ndim else values.unsqueeze(1)).to(logits.dtype)


def _upsampled(logits: Tensor, like: Tensor) -> Tensor:
    """Upsample logits of a coarser level to full size, unless the network has done so."""
    size = like.shape[2:]
    if logits.shape[2:] == size:
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear" if len(size) == 2 else "trilinear")
