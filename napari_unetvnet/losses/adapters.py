"""Ignored voxels, class order, class weights, precision and levels, once for all losses.

`prepare` turns logits and a target into what the formulas need: probabilities, a target with one channel per class,
and a weight that is 0 where nothing is known. Logits there are replaced before anything is computed, so that neither
their value nor their gradient can matter, and everything runs in float32 (or float64) outside autocast: sums over a
patch overflow in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DeepSupervision", "Loss", "Member", "Outputs", "Prepared", "head_modes", "needs", "prepare"]

# settings.IGNORE; the settings import this package, so the number is repeated here and held equal by a test.
IGNORE = 255

Function = TypeVar("Function", bound=Callable[..., Tensor])


def head_modes(*modes: str) -> Callable[[Function], Function]:
    """Declare which heads a loss fits; the registry reads it from the source.

    Parameters
    ----------
    *modes : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    decorator
    """

    def declare(function: Function) -> Function:
        function.head_modes = modes  # type: ignore[attr-defined]
        return function

    return declare


def needs(*things: str) -> Callable[[Function], Function]:
    """Declare what a loss learns from besides logits and labels; the registry reads it from the source.

    Parameters
    ----------
    *things : {"attention", "reconstruction", "separation"}
        Attention maps or an autoencoder branch of the network, or the weight map that keeps objects apart. Without it
        the loss is the part of its formula that needs nothing.

    Returns
    -------
    decorator
    """

    def declare(function: Function) -> Function:
        function.needs = things  # type: ignore[attr-defined]
        return function

    return declare


class Outputs(Protocol):
    """What a network gives to training besides logits, as `networks.base.TrainingOutputs` has it."""

    @property
    def attention(self) -> tuple[Tensor, ...]:
        """Maps in [0, 1], each of shape (B, 1, *S') of its level."""

    @property
    def reconstruction(self) -> Tensor | None:
        """The input as an autoencoder gives it back, shape (B, C, *S)."""

    @property
    def latent(self) -> tuple[Tensor, Tensor] | None:
        """Mean and log variance of its code, each of shape (B, N)."""


@dataclass(frozen=True)
class Prepared:
    """What a formula works on, float32 or float64.

    Parameters
    ----------
    logits : Tensor of shape (B, K, *S)
        0 where nothing is known.
    labels : Tensor of shape (B, *S) or (B, K, *S)
        As given to the loss, IGNORE included; formulas use ``target``.
    known : Tensor of bool, shape (B, 1, *S) or (B, K, *S)
        False at ignored voxels.
    head : {"binary", "multiclass", "multilabel"}
    importance : Tensor of shape (B, 1, *S) or (B, K, *S), or None
        Weight of each voxel, where there is one.
    outputs : Outputs or None
        What else the network gave, where it gave more than logits.
    image : Tensor of shape (B, C, *S) or None
        What the network saw.
    """

    logits: Tensor
    labels: Tensor
    known: Tensor
    head: str
    importance: Tensor | None = None
    outputs: Outputs | None = None
    image: Tensor | None = None

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax or sigmoid of the logits, shape (B, K, *S)."""
        return self.logits.softmax(1) if self.head == "multiclass" else self.logits.sigmoid()

    @cached_property
    def target(self) -> Tensor:
        """One channel per class, in [0, 1], 0 at ignored voxels, shape (B, K, *S)."""
        channels = self.labels
        if channels.ndim != self.logits.ndim:
            channels = _one_hot(channels, self.logits.shape[1], self.head)
        return torch.where(self.known, channels.to(self.logits.dtype), 0)

    @cached_property
    def weight(self) -> Tensor:
        """At least 0; 0 at ignored voxels; shape (B, 1, *S) or (B, K, *S)."""
        known = self.known.to(self.logits.dtype)
        return known if self.importance is None else known * self.importance

    def weighted(self, class_weights: tuple[float, ...]) -> Prepared:
        """Weigh each voxel by its class.

        Parameters
        ----------
        class_weights : tuple of float
            One for each class; background and foreground for a binary head. In a multilabel one a channel's voxels
            count so much where its class is, and 1 where it is not.

        Returns
        -------
        Prepared

        Raises
        ------
        DataProblem
            If their number is not that of the classes.
        """
        classes = 2 if self.head == "binary" else self.logits.shape[1]
        if len(class_weights) != classes:
            raise DataProblem(
                f"{len(class_weights)} class weights were given for {classes} classes; give one each."
            )
        if self.head == "multiclass":
            row = torch.tensor(class_weights, dtype=self.logits.dtype, device=self.logits.device)
            of_voxels = torch.einsum("bk...,k->b...", self.target, row).unsqueeze(1)
        else:
            off, on = (class_weights[:1], class_weights[1:]) if self.head == "binary" else ((1.0,), class_weights)
            shape = (1, -1, *(1,) * (self.logits.ndim - 2))
            low, high = (self.logits.new_tensor(row).reshape(shape) for row in (off, on))
            of_voxels = low + self.target * (high - low)
        return replace(self, importance=of_voxels if self.importance is None else self.importance * of_voxels)


class Member(NamedTuple):
    """One term of a weighted sum."""

    weight: float
    function: Callable[..., Tensor]
    options: Mapping[str, Any]
    class_weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Loss:
    """A weighted sum of losses for one head mode; `losses.build_loss` makes it."""

    members: tuple[Member, ...]
    head: str

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        outputs: Outputs | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        logits : Tensor of shape (B, K, *S)
        target : Tensor of shape (B, *S) or (B, K, *S)
            Class indices with IGNORE where nothing is known; or a channel per class for soft targets and several
            labels per voxel, again with IGNORE where nothing is known.
        weight : Tensor of shape (B, *S), optional
            Importance of each voxel.
        outputs : Outputs, optional
            What else the network gave, for losses that learn from it.
        image : Tensor of shape (B, C, *S), optional
            What the network saw.

        Returns
        -------
        Tensor, a scalar
        """
        with torch.autocast(logits.device.type, enabled=False):
            prepared = replace(prepare(logits, target, weight, self.head), outputs=outputs, image=image)
            terms = [
                member.weight
                * member.function(
                    prepared.weighted(member.class_weights) if member.class_weights else prepared, **member.options
                )
                for member in self.members
            ]
            return torch.stack(terms).sum()


@dataclass(frozen=True)
class DeepSupervision:
    """A loss on every level of a network, summed with a weight for each.

    Parameters
    ----------
    loss : Loss
    level_weights : tuple of float
        Of the output, then of each coarser level; those that are not given are half of the one before, from 1.
    roi_weight : float
        Of the head that looks at a region of interest, where the network has one.
    """

    loss: Loss
    level_weights: tuple[float, ...] = ()
    roi_weight: float = 1.0

    def __call__(
        self, outputs: Levels, target: Tensor, weight: Tensor | None = None, image: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        outputs : TrainingOutputs
        target : Tensor of shape (B, *S) or (B, K, *S)
        weight : Tensor of shape (B, *S), optional
        image : Tensor of shape (B, C, *S), optional

        Returns
        -------
        Tensor, a scalar
        """
        main, *coarser = self._weights(1 + len(outputs.auxiliary))
        total = main * self.loss(outputs.logits, target, weight, outputs=outputs, image=image)
        more = list(zip(coarser, outputs.auxiliary, strict=True))
        if outputs.roi is not None:
            more.append((self.roi_weight, outputs.roi))
        for factor, logits in more:
            if factor:
                total = total + factor * self.loss(_at_size(logits, outputs.logits), target, weight)
        return total

    def _weights(self, count: int) -> list[float]:
        weights = list(self.level_weights) or [1.0]
        while len(weights) < count:
            weights.append(weights[-1] / 2)
        return weights[:count]


class Levels(Outputs, Protocol):
    """The logits among what a network gives to training."""

    @property
    def logits(self) -> Tensor:
        """Those of the output, shape (B, K, *S)."""

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        """Those of the levels below, the finest first."""

    @property
    def roi(self) -> Tensor | None:
        """Those of a head for a region of interest, put back in place, shape (B, K, *S)."""


def _at_size(logits: Tensor, like: Tensor) -> Tensor:
    """Enlarge logits of a coarser level to full size, where the network has not done so."""
    size = like.shape[2:]
    if logits.shape[2:] == size:
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear" if len(size) == 2 else "trilinear")


def prepare(logits: Tensor, target: Tensor, weight: Tensor | None, head: str) -> Prepared:
    """Bring logits and target to one form and take ignored voxels out.

    Parameters
    ----------
    logits : Tensor of shape (B, K, *S)
    target : Tensor of shape (B, *S) or (B, K, *S)
    weight : Tensor of shape (B, *S) or None
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Prepared

    Raises
    ------
    DataProblem
        If the shapes do not belong together.
    """
    if target.shape not in {logits.shape, (logits.shape[0], *logits.shape[2:])}:
        raise DataProblem(f"A target of shape {tuple(target.shape)} does not fit logits {tuple(logits.shape)}.")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    per_class = target.ndim == logits.ndim
    known = target != IGNORE if per_class else (target != IGNORE).unsqueeze(1)
    if per_class and head == "multiclass":
        known = known.all(dim=1, keepdim=True)
    importance = None if weight is None else weight.unsqueeze(1).to(logits.dtype)
    return Prepared(torch.where(known, logits, 0), target, known, head, importance)


def _one_hot(target: Tensor, channels: int, head: str) -> Tensor:
    """Give (B, K, *S); a binary head has the one channel of class 1."""
    classes = [1] if head == "binary" else range(channels)
    return torch.stack([target == k for k in classes], dim=1)
