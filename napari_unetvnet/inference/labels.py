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
    "of_classes",
]

BYTE = 256
CERTAIN = 8.0
"""Logit of the background in voxels that are not computed."""


def decide(logits: Tensor, head: str) -> Tensor:
    """Choose a class for each voxel.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of uint8 (int16 from 256 classes on), shape (Z, Y, X), or (K, Z, Y, X) of a multilabel head
        Class indices; the first of equal logits. For a binary head, 1 where the sigmoid is at least 0.5. For a
        multilabel head, 1 where a class is present.
    """
    if head == "multilabel":
        return (logits >= 0).to(torch.uint8)
    if head == "binary":
        return (logits[0] >= 0).to(torch.uint8)
    # On a CPU, comparing is many times faster than argmax and needs less memory.
    highest, dtype = logits[0], torch.uint8 if len(logits) <= BYTE else torch.int16
    indices = torch.zeros_like(highest, dtype=dtype)
    for k in range(1, len(logits)):
        higher = (logits[k] > highest).view(torch.uint8).to(dtype)
        indices = torch.maximum(indices, higher.mul_(k))  # k is above all indices so far, so the maximum replaces them
        highest = torch.maximum(highest, logits[k])
    return indices


def label_values(logits: Tensor, card: ModelCard) -> Tensor:
    """Turn logits into label values.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)

    Returns
    -------
    Tensor of uint8 or int64, shape (Z, Y, X), or (K, Z, Y, X) if the classes overlap
        For a multilabel head in one label image, nested classes are written inner over outer; of other classes the most
        probable one is written, and 0 where only the background reaches 0.5.
    """
    dtype = torch.uint8 if max(card.values) < BYTE else torch.int64
    values = torch.tensor(card.values, device=logits.device, dtype=dtype)
    if card.head != "multilabel":
        indices = decide(logits, card.head)
        return indices if card.values == tuple(range(len(card.values))) else values[indices.int()]
    logits = logits[list(card.class_outputs)]
    present = decide(logits, card.head).bool()
    if card.overlapping:
        return present * values[:, None, None, None]
    if not card.paint_order:
        front = [k for k, value in enumerate(card.values) if value]  # a background class does not cover the others
        return values[front][logits[front].max(dim=0).indices] * present[front].any(dim=0)
    labels = torch.zeros_like(logits[0], dtype=dtype)
    for k in card.paint_order:
        labels[present[k]] = values[k]
    return labels


def class_probabilities(logits: Tensor, card: ModelCard) -> NDArray[np.float16]:
    """Give the probability of each class.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)

    Returns
    -------
    array of shape (classes, Z, Y, X), float16
    """
    array: NDArray[np.float16] = of_classes(logits, card).half().cpu().numpy()
    return array


def of_classes(logits: Tensor, card: ModelCard) -> Tensor:
    """Give the probability of each class.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)

    Returns
    -------
    Tensor of shape (classes, Z, Y, X)
        Two classes for a binary head.
    """
    if card.head == "binary":
        foreground = logits.sigmoid()
        return torch.cat([1 - foreground, foreground])
    if card.head == "multilabel":
        return logits[list(card.class_outputs)].sigmoid()
    return logits.softmax(0)


def activated(logits: Tensor, head: str) -> Tensor:
    """Give the probability of each logit.

    Parameters
    ----------
    logits : Tensor of shape (K, ...)
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (K, ...)
        Softmax for a multiclass head, else sigmoid.
    """
    return logits.softmax(0) if head == "multiclass" else logits.sigmoid()


def as_logits(probabilities: Tensor, head: str) -> Tensor:
    """Give logits of probabilities.

    Parameters
    ----------
    probabilities : Tensor of shape (K, ...)
        May exceed 1 by rounding.
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (K, ...)
        Infinite where a probability is 0, or is 1 for a sigmoid.
    """
    return probabilities.log() if head == "multiclass" else probabilities.clamp(max=1).logit()


def mean_logits(parts: Iterable[Tensor], head: str) -> Tensor:
    """Give the logits of the mean of several predictions' probabilities.

    Parameters
    ----------
    parts : iterable of Tensor of shape (B, K, Z, Y, X)
        Logits, one or more.
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of shape (B, K, Z, Y, X)
        Computed in log space, so that probabilities near 0 or 1 do not become infinite logits. For a multiclass head
        they are exact up to a constant per voxel, which softmax cancels.
    """
    sums = reduce(_added, (_logarithms(logits, head) for logits in parts))
    return sums[0] if len(sums) == 1 else sums[0] - sums[1]


def _logarithms(logits: Tensor, head: str) -> tuple[Tensor, ...]:
    """Give the logarithm of each probability p; for a sigmoid, also that of 1 - p."""
    return (logits.log_softmax(1),) if head == "multiclass" else (logsigmoid(logits), logsigmoid(-logits))


def _added(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Add numbers in log space."""
    return tuple(torch.logaddexp(x, y) for x, y in zip(a, b, strict=True))


def background_logits(card: ModelCard) -> Tensor:
    """Give the logits of a voxel that is certainly background.

    Returns
    -------
    Tensor of shape (K, 1, 1, 1)

    Raises
    ------
    SettingsProblem
        If no class of the model has the value 0.
    """
    logits = torch.full((card.outputs, 1, 1, 1), -CERTAIN)
    background = card.values.index(0) if 0 in card.values else None
    if card.head == "multilabel":
        if background is not None:
            logits[card.class_outputs[background]] = CERTAIN
        return logits
    if background is None:
        raise SettingsProblem(
            f"The model has no background (it writes {', '.join(map(str, card.values))}), so constant tiles "
            "cannot be skipped; leave out skip_constant."
        )
    if card.head == "multiclass" or background == 1:
        logits[background if card.head == "multiclass" else 0] = CERTAIN
    return logits


def leave_out(
    selected: NDArray[np.bool_],
    labels: NDArray[Any],
    probabilities: NDArray[np.float16] | None,
    card: ModelCard,
    uncertainty: NDArray[np.float16] | None = None,
) -> None:
    """Make voxels outside the selection background with certainty, in place.

    Parameters
    ----------
    selected : array of bool, shape (Z, Y, X)
    labels : array of shape (..., Z, Y, X)
    probabilities : array of shape (classes, Z, Y, X), or None
    uncertainty : array of shape (Z, Y, X), or None
    """
    labels[..., ~selected] = 0
    if uncertainty is not None:
        uncertainty[~selected] = 0
    if probabilities is not None:
        background = np.array([value == 0 for value in card.values], np.float16)
        probabilities[:, ~selected] = background[:, None]
