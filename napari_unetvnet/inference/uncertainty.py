"""Uncertainty of a prediction at each voxel, from 0 to 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.inference.labels import activated, mean_logits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from napari_unetvnet.model.card import ModelCard

__all__ = ["entropy", "with_variance"]


def entropy(logits: Tensor, card: ModelCard) -> Tensor:
    """Give the entropy of the probabilities as a fraction of the maximum entropy.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)

    Returns
    -------
    Tensor of shape (Z, Y, X)
        0 where one class is certain, 1 where all are equally probable. For a multilabel head, the highest binary
        entropy over the classes.
    """
    if card.head == "multiclass":
        share: Tensor = torch.special.entr(logits.softmax(0)).sum(0) / math.log(len(logits))
        return share.clamp(0, 1)
    outputs = logits[list(card.class_outputs)] if card.head == "multilabel" else logits
    binary: Tensor = torch.special.entr(outputs.sigmoid()) + torch.special.entr((-outputs).sigmoid())
    return (binary.amax(0) / math.log(2)).clamp(0, 1)


def with_variance(parts: Iterable[Tensor], head: str) -> Tensor:
    """Give the logits of the mean of several predictions' probabilities, and the variance of these.

    Parameters
    ----------
    parts : iterable of Tensor of shape (B, K, Z, Y, X)
        Logits, one or more; consumed one by one, none is kept.
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (B, K + 1, Z, Y, X)
        The logits as from `mean_logits`, then the variance of the probabilities, averaged over the outputs.
    """
    moments = _Moments(head)
    logits = mean_logits(moments.accumulate(parts), head)
    return torch.cat([logits, moments.variance], dim=1)


class _Moments:
    """Sums of probabilities and of their squares."""

    def __init__(self, head: str) -> None:
        self._head, self._count = head, 0

    def accumulate(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pass logits (B, K, Z, Y, X) on, and add up the differences of their probabilities from the first ones."""
        for logits in parts:
            probabilities = activated(logits.movedim(1, 0), self._head).movedim(0, 1)
            if not self._count:
                self._reference = probabilities
                self._sum, self._squares = torch.zeros_like(probabilities), torch.zeros_like(probabilities)
            change = probabilities - self._reference  # small, so that E[x^2] - E[x]^2 does not cancel
            self._sum += change
            self._squares += change.square()
            self._count += 1
            yield logits

    @property
    def variance(self) -> Tensor:
        """The variance (B, 1, Z, Y, X)."""
        mean = self._sum / self._count
        return (self._squares / self._count - mean.square()).clamp(min=0).mean(1, keepdim=True)
