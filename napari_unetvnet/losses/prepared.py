"""Ignored voxels, class order, class weights and precision, once for all losses.

`prepare` turns logits and a target into what the formulas need: probabilities, a target with one channel per class,
and a weight that is 0 where nothing is known. Logits there are replaced before a formula sees them, so that neither
their value nor their gradient can matter, and everything runs in float32 (or float64) outside autocast: sums over a
patch overflow in half precision. What takes memory is made when a formula asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses.slabs import Probabilities, voxel_sum

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Outputs", "Prepared", "prepare"]


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
    given : Tensor of shape (B, K, *S)
        The logits, and anything where nothing is known; formulas use ``logits`` and ``probabilities``.
    labels : Tensor of shape (B, *S) or (B, K, *S)
        As given to the loss, IGNORE included; formulas use ``target``.
    known : Tensor of bool, shape (B, 1, *S) or (B, K, *S)
        False at ignored voxels and at those of weight 0.
    head : {"binary", "multiclass", "multilabel"}
    importance : Tensor of shape (B, 1, *S) or (B, K, *S), or None
        Weight of each voxel, 0 where nothing is known; None if all known voxels weigh 1.
    outputs : Outputs or None
        What else the network gave, where it gave more than logits.
    image : Tensor of shape (B, C, *S) or None
        What the network saw.
    clean : bool
        Whether ``given`` is 0 where nothing is known.
    """

    given: Tensor
    labels: Tensor
    known: Tensor
    head: str
    importance: Tensor | None = None
    outputs: Outputs | None = None
    image: Tensor | None = None
    clean: bool = False

    @cached_property
    def logits(self) -> Tensor:
        """Logits, 0 where nothing is known, shape (B, K, *S)."""
        return self.given if self.clean else torch.where(self.known, self.given, 0)

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax or sigmoid of the logits, 0 where nothing is known, shape (B, K, *S)."""
        p: Tensor = Probabilities.apply(self.given, self.known, self.head == "multiclass")  # type: ignore[no-untyped-call]
        return p

    @cached_property
    def target(self) -> Tensor:
        """One channel per class, in [0, 1], 0 at ignored voxels, shape (B, K, *S)."""
        if not self.by_index:
            return torch.where(self.known, self.labels, 0).to(self.given.dtype)
        first, last = (1, 2) if self.head == "binary" else (0, self.given.shape[1])
        classes = torch.arange(first, last, device=self.labels.device).reshape(1, -1, *(1,) * (self.given.ndim - 2))
        return (self.labels.unsqueeze(1) == classes).logical_and_(self.known).to(self.given.dtype)

    @property
    def by_index(self) -> bool:
        """Whether labels are class indices, (B, *S)."""
        return self.labels.ndim != self.given.ndim

    @cached_property
    def weight(self) -> Tensor:
        """At least 0; 0 at ignored voxels; shape (B, 1, *S) or (B, K, *S)."""
        return self.known.to(self.given.dtype) if self.importance is None else self.importance

    def mean_of(self, formula: Callable[[Prepared], Tensor]) -> Tensor:
        """Average what a formula gives for each voxel, with the voxel's weight.

        Parameters
        ----------
        formula : callable
            Takes a part of the patch as `Prepared` and gives its values, each from its own voxel.

        Returns
        -------
        Tensor, a scalar
            0 where all weights are 0.
        """
        total, weight = voxel_sum(self, formula)
        return total / torch.where(weight > 0, weight, 1)

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
        classes = 2 if self.head == "binary" else self.given.shape[1]
        if len(class_weights) != classes:
            raise DataProblem(f"{len(class_weights)} class weights were given for {classes} classes; give one each.")
        row = self.given.new_tensor(class_weights)
        if self.by_index and self.head != "multilabel":
            of_voxels = row[torch.where(self.known, self.labels.unsqueeze(1), 0).long()]
        elif self.head == "multiclass":
            of_voxels = torch.einsum("bk...,k->b...", self.target, row).unsqueeze(1)
        else:
            low, high = (row[:1], row[1:]) if self.head == "binary" else (torch.ones_like(row), row)
            low, high = (side.reshape(1, -1, *(1,) * (self.given.ndim - 2)) for side in (low, high))
            of_voxels = low + self.target * (high - low)
        return replace(self, importance=self.weight * of_voxels)


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
    importance = None
    if weight is not None:
        known = known & (weight != 0).unsqueeze(1)
        importance = torch.where(known, weight.unsqueeze(1).to(logits.dtype), 0)
    return Prepared(logits, target, known, head, importance)
