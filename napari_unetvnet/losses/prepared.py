"""Ignored voxels, class order, class weights and precision, handled once for all losses.

`prepare` turns logits and a target into what the formulas need: probabilities, a target with one channel per class,
and a weight that is 0 at ignored voxels. There the logits are replaced before a formula sees them, so that neither
their value nor their gradient can matter, not even if they are infinite or NaN. All of it runs in float32 (or float64)
outside autocast, since sums over a patch overflow in half precision. Large arrays are computed when a formula first
uses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses.classes import BINARY
from napari_unetvnet.losses.slabs import probabilities, voxel_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from napari_unetvnet.losses.classes import Roles

__all__ = ["Outputs", "Prepared", "along_channels", "prepare"]


class Outputs(Protocol):
    """What a network returns in training besides logits; `networks.base.TrainingOutputs` is one."""

    @property
    def attention(self) -> tuple[Tensor, ...]:
        """Attention maps in [0, 1], one per level, each of shape (B, 1, *S') at the size of its level."""

    @property
    def reconstruction(self) -> Tensor | None:
        """The input as reconstructed by an autoencoder branch, shape (B, C, *S)."""

    @property
    def latent(self) -> tuple[Tensor, Tensor] | None:
        """Mean and log variance of the latent code, each of shape (B, N)."""


@dataclass(frozen=True)
class Prepared:
    """Input of a loss formula, float32 or float64.

    Parameters
    ----------
    raw_logits : Tensor of shape (B, K, *S)
        The logits, of any value at ignored voxels; formulas use ``logits`` and ``probabilities``.
    labels : Tensor of shape (B, *S) or (B, K, *S)
        The target as passed to the loss, IGNORE included; formulas use ``target``.
    valid : Tensor of bool, shape (B, 1, *S) or (B, K, *S)
        False at ignored voxels and at those of weight 0.
    head : {"binary", "multiclass", "multilabel"}
    voxel_weight : Tensor of shape (B, 1, *S) or (B, K, *S), or None
        Weight of each voxel, 0 where not valid; None if all valid voxels weigh 1.
    outputs : Outputs or None
        Further outputs of the network, if any.
    image : Tensor of shape (B, C, *S) or None
        The input of the network.
    maps : mapping of str to Tensor of shape (B, 1, *S) or (B, C, *S)
        Maps of the labels that the loss needs, by name.
    roles : mapping of str to tuple of int
        The channels of each role that the loss declares.
    masked : bool
        Whether ``raw_logits`` is already 0 where not valid.
    """

    raw_logits: Tensor
    labels: Tensor
    valid: Tensor
    head: str
    voxel_weight: Tensor | None = None
    outputs: Outputs | None = None
    image: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    roles: Roles = field(default_factory=dict)
    masked: bool = False
    _of_class: dict[int, Prepared] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def logits(self) -> Tensor:
        """Logits, 0 where not valid, shape (B, K, *S)."""
        return self.raw_logits if self.masked else torch.where(self.valid, self.raw_logits, 0)

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax or sigmoid of the logits, 0 where not valid, shape (B, K, *S)."""
        return probabilities(self.raw_logits, self.valid, self.head == "multiclass")

    @cached_property
    def target(self) -> Tensor:
        """One channel per class, in [0, 1], 0 where not valid, shape (B, K, *S)."""
        if not self.by_index:
            return torch.where(self.valid, self.labels, 0).to(self.raw_logits.dtype)
        first, last = (1, 2) if self.head == "binary" else (0, self.raw_logits.shape[1])
        classes = along_channels(torch.arange(first, last, device=self.labels.device), self.raw_logits)
        return (self.labels.unsqueeze(1) == classes).logical_and_(self.valid).to(self.raw_logits.dtype)

    @property
    def by_index(self) -> bool:
        """Whether labels are class indices, (B, *S)."""
        return self.labels.ndim != self.raw_logits.ndim

    @cached_property
    def weight(self) -> Tensor:
        """Weight of each voxel, at least 0; 0 where not valid; shape (B, 1, *S) or (B, K, *S)."""
        return self.valid.to(self.raw_logits.dtype) if self.voxel_weight is None else self.voxel_weight

    @property
    def weight_or_mask(self) -> Tensor:
        """As ``weight``, but bool, which is a quarter of the size, if all valid voxels weigh 1."""
        return self.valid if self.voxel_weight is None else self.voxel_weight

    def mean_of(self, formula: Callable[[Prepared], Tensor]) -> Tensor:
        """Compute the weighted mean over the voxels of a formula.

        Parameters
        ----------
        formula : callable
            Maps a slab of the patch, a `Prepared`, to values of shape (B, 1, *S) or (B, K, *S), each of which depends
            on its own voxel only.

        Returns
        -------
        Tensor, a scalar
            0 if all weights are 0.
        """
        total, weight = voxel_sum(self, formula)
        return total / torch.where(weight > 0, weight, 1)

    def with_class_weights(self, class_weights: tuple[float, ...]) -> Prepared:
        """Multiply the weight of each voxel by that of its class.

        Parameters
        ----------
        class_weights : tuple of float
            One per class; background and foreground for a binary head. For a multilabel head, the weight in each
            channel of the voxels inside the class; those outside keep weight 1.

        Returns
        -------
        Prepared

        Raises
        ------
        DataProblem
            If their number is not that of the classes.
        """
        classes = 2 if self.head == "binary" else self.raw_logits.shape[1]
        if len(class_weights) != classes:
            raise DataProblem(f"{len(class_weights)} class weights were given for {classes} classes; give one each.")
        row = self.raw_logits.new_tensor(class_weights)
        if self.by_index and self.head != "multilabel":
            factor = row[torch.where(self.valid, self.labels.unsqueeze(1), 0).long()]
        elif self.head == "multiclass":
            factor = torch.einsum("bk...,k->b...", self.target, row).unsqueeze(1)
        else:
            outside, inside = (row[:1], row[1:]) if self.head == "binary" else (torch.ones_like(row), row)
            outside, inside = (along_channels(side, self.raw_logits) for side in (outside, inside))
            factor = outside + self.target * (inside - outside)
        return replace(self, voxel_weight=self.weight * factor)

    def slab(self, part: tuple[slice, ...]) -> Prepared:
        """Cut out some images, or some planes of one image.

        Parameters
        ----------
        part : tuple of slice
            Of images, or of images, channels (all of them) and planes, as `slabs.slabs` yields them.

        Returns
        -------
        Prepared
            With masked logits and without ``outputs`` and ``image``.
        """
        valid = self.valid[part]
        return Prepared(
            raw_logits=torch.where(valid, self.raw_logits[part], 0),
            labels=self.labels[part[:1] + part[2:] if self.by_index else part],
            valid=valid,
            head=self.head,
            voxel_weight=None if self.voxel_weight is None else self.voxel_weight[part],
            maps={name: values[part] for name, values in self.maps.items()},
            roles=self.roles,
            masked=True,
        )

    def of_role(self, values: Tensor, role: str) -> Tensor:
        """Cut out the channels of a role, without a copy where they lie side by side.

        Parameters
        ----------
        values : Tensor of shape (B, K, *S)

        Returns
        -------
        Tensor of shape (B, K', *S)
        """
        channels = self.roles[role]
        if channels and channels == tuple(range(channels[0], channels[-1] + 1)):
            return values[:, channels[0] : channels[-1] + 1]
        return values[:, list(channels)]

    def of_class(self, channel: int) -> Prepared:
        """Reduce the patch to one class against all others, as a binary head would see it.

        Parameters
        ----------
        channel : int
            The class's channel; of a binary head the class, 0 or 1.

        Returns
        -------
        Prepared
            With the probability of the class as it is: for a softmax the logit is that of the class minus the logarithm
            of the summed exponentials of the others. Several terms of a class share it.
        """
        if channel not in self._of_class:
            self._of_class[channel] = self._reduced(channel)
        return self._of_class[channel]

    def _reduced(self, channel: int) -> Prepared:
        one = slice(channel, channel + 1)

        def only(values: Tensor) -> Tensor:
            return values[:, one] if values.shape[1] > 1 else values

        inverted = self.head == "binary" and channel == 0
        if self.by_index:
            known = self.labels != IGNORE
            labels = torch.where(known, (self.labels == channel).to(self.labels.dtype), self.labels)
        elif inverted:
            labels = torch.where(self.labels == IGNORE, self.labels, 1 - self.labels)
        else:
            labels = only(self.labels)
        logits = only(self.logits)
        if self.head == "multiclass":
            others = [k for k in range(self.raw_logits.shape[1]) if k != channel]
            logits = logits - self.logits[:, others].logsumexp(1, keepdim=True)
        return replace(
            self,
            raw_logits=-logits if inverted else logits,
            labels=labels,
            valid=only(self.valid),
            head="binary",
            voxel_weight=None if self.voxel_weight is None else only(self.voxel_weight),
            outputs=None,
            roles=BINARY,
            masked=False,
        )

    def detached(self) -> Prepared:
        """Return the patch without its autograd graph, further outputs and image, so that keeping it is cheap."""
        return replace(self, raw_logits=self.raw_logits.detach(), outputs=None, image=None)


def prepare(logits: Tensor, target: Tensor, weight: Tensor | None, head: str) -> Prepared:
    """Bring logits and target to one form and mask ignored voxels.

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
        If the target has another shape than the logits, with or without the channel axis.
    """
    if target.shape not in {logits.shape, (logits.shape[0], *logits.shape[2:])}:
        raise DataProblem(f"A target of shape {tuple(target.shape)} does not fit logits {tuple(logits.shape)}.")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    per_class = target.ndim == logits.ndim
    valid = target != IGNORE if per_class else (target != IGNORE).unsqueeze(1)
    if per_class and head == "multiclass":
        # A softmax couples the channels, so one ignored channel makes the whole voxel unusable.
        valid = valid.all(dim=1, keepdim=True)
    voxel_weight = None
    if weight is not None:
        valid = valid & (weight != 0).unsqueeze(1)
        # where, not a product: the weight at ignored voxels may be NaN.
        voxel_weight = torch.where(valid, weight.unsqueeze(1).to(logits.dtype), 0)
    return Prepared(logits, target, valid, head, voxel_weight)


def along_channels(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per channel so that it broadcasts over an array.

    Parameters
    ----------
    values : Tensor of shape (K,)
    like : Tensor of shape (B, K, *S)

    Returns
    -------
    Tensor of shape (1, K, 1, 1[, 1])
    """
    return values.reshape(1, -1, *(1,) * (like.ndim - 2))
