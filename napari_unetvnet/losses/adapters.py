"""Ignored voxels, class order and precision, once for all losses.

`prepare` turns logits and a target into what the formulas need: probabilities, a target with one channel per class,
and a weight that is 0 where nothing is known. Logits there are replaced before anything is computed, so that neither
their value nor their gradient can matter, and everything runs in float32 (or float64) outside autocast: sums over a
patch overflow in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Loss", "Member", "Prepared", "head_modes", "prepare"]

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


@dataclass(frozen=True)
class Prepared:
    """What a formula works on, float32 or float64.

    Parameters
    ----------
    logits : Tensor of shape (B, K, *S)
        0 where the weight is 0 because of an ignored voxel.
    target : Tensor of shape (B, K, *S)
        One channel per class, in [0, 1].
    weight : Tensor of shape (B, 1, *S) or (B, K, *S)
        At least 0; 0 at ignored voxels.
    head : {"binary", "multiclass", "multilabel"}
    """

    logits: Tensor
    target: Tensor
    weight: Tensor
    head: str

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax or sigmoid of the logits, shape (B, K, *S)."""
        return self.logits.softmax(1) if self.head == "multiclass" else self.logits.sigmoid()


class Member(NamedTuple):
    """One term of a weighted sum."""

    weight: float
    function: Callable[..., Tensor]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Loss:
    """A weighted sum of losses for one head mode; `losses.build_loss` makes it."""

    members: tuple[Member, ...]
    head: str

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        logits : Tensor of shape (B, K, *S)
        target : Tensor of shape (B, *S) or (B, K, *S)
            Class indices with IGNORE where nothing is known; or a channel per class for soft targets and several
            labels per voxel, again with IGNORE where nothing is known.
        weight : Tensor of shape (B, *S), optional
            Importance of each voxel.

        Returns
        -------
        Tensor, a scalar
        """
        with torch.autocast(logits.device.type, enabled=False):
            prepared = prepare(logits, target, weight, self.head)
            terms = [member.weight * member.function(prepared, **member.options) for member in self.members]
            return torch.stack(terms).sum()


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
    logits = torch.where(known, logits, 0)
    channels = target if per_class else _one_hot(target, logits.shape[1], head)
    importance = known.to(logits.dtype)
    if weight is not None:
        importance = importance * weight.unsqueeze(1).to(logits.dtype)
    return Prepared(logits, torch.where(known, channels.to(logits.dtype), 0), importance, head)


def _one_hot(target: Tensor, channels: int, head: str) -> Tensor:
    """Give (B, K, *S); a binary head has the one channel of class 1."""
    classes = [1] if head == "binary" else range(channels)
    return torch.stack([target == k for k in classes], dim=1)
