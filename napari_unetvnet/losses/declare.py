"""Decorators that declare facts about a loss.

The registry reads them from the source, so that the form and ``--help`` know them without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["blind_to", "head_modes", "needs", "roles"]

LossFunction = TypeVar("LossFunction", bound="Callable[..., Tensor]")


def head_modes(*modes: str) -> Callable[[LossFunction], LossFunction]:
    """Declare which heads a loss fits.

    Parameters
    ----------
    *modes : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    decorator
    """
    return _declare("head_modes", modes)


def needs(*inputs: str) -> Callable[[LossFunction], LossFunction]:
    """Declare what a loss uses besides logits and labels.

    Parameters
    ----------
    *inputs : str
        Outputs that networks ``give`` ("attention", "reconstruction") and maps of the labels, by the names in
        ``data.targets.TARGET_MAPS``. Without them the loss reduces to the terms that do not use them.

    Returns
    -------
    decorator
    """
    return _declare("needs", inputs)


def roles(*channels: str) -> Callable[[LossFunction], LossFunction]:
    """Declare that channels have roles, so that their order matters.

    Parameters
    ----------
    *channels : str
        The role of the first channel and that of all others; or of the first, those between, and the last.

    Returns
    -------
    decorator
    """
    return _declare("roles", channels)


def blind_to(*differences: str) -> Callable[[LossFunction], LossFunction]:
    """Declare what a loss cannot distinguish, so that it is only useful beside another loss.

    Parameters
    ----------
    *differences : {"inversion"}
        Inversion: a mask and its complement have the same loss.

    Returns
    -------
    decorator
    """
    return _declare("blind_to", differences)


def _declare(fact: str, values: tuple[str, ...]) -> Callable[[LossFunction], LossFunction]:
    def decorate(function: LossFunction) -> LossFunction:
        setattr(function, fact, values)
        return function

    return decorate
