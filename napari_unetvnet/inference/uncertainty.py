"""How unsure a network is of each voxel, from 0 to 1."""

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
    """Give the entropy of the probabilities, as a share of the highest there can be.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)
    card : ModelCard

    Returns
    -------
    Tensor of shape (Z, Y, X)
        0 where one class is certain, 1 where all are alike. Of a multilabel head the highest over the classes, each of
        which is there or not: a voxel is unsure if any class is.
    """
    if card.head == "multiclass":
        share: Tensor = torch.special.entr(logits.softmax(0)).sum(0) / math.log(len(logits))
        return share.clamp(0, 1)
    outputs = logits[list(card.class_outputs)] if card.head == "multilabel" else logits
    each: Tensor = torch.special.entr(outputs.sigmoid()) + torch.special.entr((-outputs).sigmoid())
    return (each.amax(0) / math.log(2)).clamp(0, 1)


def with_variance(parts: Iterable[Tensor], head: str) -> Tensor:
    """Give the logits of the mean of several probabilities, and how much these vary.

    Parameters
    ----------
    parts : iterable of Tensor of shape (B, K, Z, Y, X)
        Logits, one or more; one after the other is looked at, and none is kept.
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (B, K + 1, Z, Y, X)
        The logits as `mean_logits` gives them, then the variance of the probabilities, the mean over the outputs.
    """
    seen = _Moments(head)
    logits = mean_logits(seen.watched(parts), head)
    return torch.cat([logits, seen.variance], dim=1)


class _Moments:
    """Sums of probabilities and of their squares."""

    def __init__(self, head: str) -> None:
        self._head, self._count = head, 0

    def watched(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Hand on logits (B, K, Z, Y, X) and add up what they say, seen from the first ones."""
        for logits in parts:
            likely = activated(logits.movedim(1, 0), self._head).movedim(0, 1)
            if not self._count:
                self._first, self._sum, self._squares = likely, torch.zeros_like(likely), torch.zeros_like(likely)
            change = likely - self._first  # small numbers, so that squares lose nothing in their difference
            self._sum += change
            self._squares += change.square()
            self._count += 1
            yield logits

    @property
    def variance(self) -> Tensor:
        """The variance (B, 1, Z, Y, X)."""
        mean = self._sum / self._count
        return (self._squares / self._count - mean.square()).clamp(min=0).mean(1, keepdim=True)
