"""From logits to labels and probabilities, and to the logits of a mean probability."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_unetvnet.model.card import ModelCard

__all__ = [
    "activated",
    "as_logits",
    "background_logits",
    "class_probabilities",
    "decide",
    "label_values",
    "leave_out",
    "mean_logits",
]

BYTE = 256
SURE = 8.0
"""Logit of the background where there can be nothing else."""


def decide(logits: Tensor, head: str) -> Tensor:
    """Choose a class for each voxel.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of uint8 (int16 from 256 classes on), shape (Z, Y, X), or (K, Z, Y, X) of a multilabel head
        Class indices, of equal ones the first; sigmoid at least one half is class 1 of a binary head. Of a multilabel
        head 1 where a class is.
    """
    if head == "multilabel":
        return (logits >= 0).to(torch.uint8)
    if head == "binary":
        return (logits[0] >= 0).to(torch.uint8)
    # Comparing is many times faster than argmax on a CPU, and needs less memory. Later classes have higher numbers.
    best, kind = logits[0], torch.uint8 if len(logits) <= BYTE else torch.int16
    found = torch.zeros_like(best, dtype=kind)
    for k in range(1, len(logits)):
        higher = (logits[k] > best).view(torch.uint8).to(kind)
        found = torch.maximum(found, higher.mul_(k))
        best = torch.maximum(best, logits[k])
    return found


def label_values(logits: Tensor, card: ModelCard) -> Tensor:
    """Turn logits into label values.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)
    card : ModelCard

    Returns
    -------
    Tensor of uint8 or int64, shape (Z, Y, X), or (K, Z, Y, X) if the classes overlap
        In one label image of a multilabel head, classes that lie in each other are written inner over outer; of others
        the likeliest one is, and 0 where none but the background reaches one half.
    """
    kind = torch.uint8 if max(card.values) < BYTE else torch.int64
    values = torch.tensor(card.values, device=logits.device, dtype=kind)
    if card.head != "multilabel":
        found = decide(logits, card.head)
        return found if card.values == tuple(range(len(card.values))) else values[found.int()]
    logits = logits[list(card.class_outputs)]
    there = decide(logits, card.head).bool()
    if card.overlapping:
        return there * values[:, None, None, None]
    if not card.paint_order:
        front = [k for k, value in enumerate(card.values) if value]  # a background of its own does not cover the others
        return values[front][logits[front].max(dim=0).indices] * there[front].any(dim=0)
    labels = torch.zeros_like(logits[0], dtype=kind)
    for k in card.paint_order:
        labels[there[k]] = values[k]
    return labels


def class_probabilities(logits: Tensor, card: ModelCard) -> NDArray[np.float16]:
    """Give the probability of each class.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)
    card : ModelCard

    Returns
    -------
    array of shape (classes, Z, Y, X), float16
        Of two classes for a binary head.
    """
    if card.head == "binary":
        one = logits.sigmoid()
        both = torch.cat([1 - one, one])
    elif card.head == "multilabel":
        both = logits[list(card.class_outputs)].sigmoid()
    else:
        both = logits.softmax(0)
    array: NDArray[np.float16] = both.half().cpu().numpy()
    return array


def activated(logits: Tensor, head: str) -> Tensor:
    """Give the probability that belongs to each logit.

    Parameters
    ----------
    logits : Tensor of shape (K, ...)
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (K, ...)
        By a softmax for a multiclass head, else by a sigmoid each.
    """
    return logits.softmax(0) if head == "multiclass" else logits.sigmoid()


def as_logits(likely: Tensor, head: str) -> Tensor:
    """Give logits to which probabilities belong.

    Parameters
    ----------
    likely : Tensor of shape (K, ...)
        May be above 1 by rounding.
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (K, ...)
        Infinite where a probability is 0, or 1 of a sigmoid.
    """
    return likely.log() if head == "multiclass" else likely.clamp(max=1).logit()


def mean_logits(parts: Iterable[Tensor], head: str) -> Tensor:
    """Give the logits of the mean of several probabilities.

    Parameters
    ----------
    parts : iterable of Tensor of shape (B, K, Z, Y, X)
        Logits, one or more.
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (B, K, Z, Y, X)
        Computed from logarithms, so that no probability that is nearly 0 or 1 becomes an infinite logit. Those of a
        multiclass head are right up to a number that is the same for all classes of a voxel.
    """
    sums = reduce(_added, (_logarithms(logits, head) for logits in parts))
    return sums[0] if len(sums) == 1 else sums[0] - sums[1]


def _logarithms(logits: Tensor, head: str) -> tuple[Tensor, ...]:
    """Give the logarithms of each probability, of a sigmoid also of what it lacks to 1."""
    return (logits.log_softmax(1),) if head == "multiclass" else (logsigmoid(logits), logsigmoid(-logits))


def _added(sums: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Add numbers that are given by their logarithms."""
    return tuple(torch.logaddexp(a, b) for a, b in zip(sums, others, strict=True))


def background_logits(card: ModelCard) -> Tensor:
    """Give the logits of a voxel that is background for certain.

    Parameters
    ----------
    card : ModelCard

    Returns
    -------
    Tensor of shape (K, 1, 1, 1)

    Raises
    ------
    SettingsProblem
        If the model has no class that is written as 0.
    """
    logits = torch.full((card.outputs, 1, 1, 1), -SURE)
    background = card.values.index(0) if 0 in card.values else None
    if card.head == "multilabel":
        if background is not None:
            logits[card.class_outputs[background]] = SURE
        return logits
    if background is None:
        raise SettingsProblem(
            f"The model has no background (it writes {', '.join(map(str, card.values))}), so no tile can be taken for "
            "it; leave out skip_constant."
        )
    if card.head == "multiclass" or background == 1:
        logits[background if card.head == "multiclass" else 0] = SURE
    return logits


def leave_out(
    there: NDArray[np.bool_],
    labels: NDArray[Any],
    likely: NDArray[np.float16] | None,
    card: ModelCard,
    unsure: NDArray[np.float16] | None = None,
) -> None:
    """Make voxels that are not wanted background for certain, in place.

    Parameters
    ----------
    there : array of bool, shape (Z, Y, X)
        Which voxels are wanted.
    labels : array of shape (..., Z, Y, X)
    likely : array of shape (classes, Z, Y, X), or None
        The probability of each class.
    card : ModelCard
    unsure : array of shape (Z, Y, X), or None
        Uncertainty.
    """
    labels[..., ~there] = 0
    if unsure is not None:
        unsure[~there] = 0
    if likely is not None:
        certain = np.array([value == 0 for value in card.values], np.float16)
        likely[:, ~there] = certain[:, None]
