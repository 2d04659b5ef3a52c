"""Decorators that declare facts about a loss.

The registry reads them from the source, so that the form and ``--help`` know them without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["begins_at", "blind_to", "head_modes", "needs", "roles"]

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


def roles(*names: str) -> Callable[[LossFunction], LossFunction]:
    """Declare that classes have roles.

    The loss finds the channels of each in ``prepared.roles``.

    Parameters
    ----------
    *names : {"background", "foreground"} or {"background", "lines", "block"} or {"classes", "heatmaps"}
        Heat maps are the blurred copies of lines, classes all other channels. An option of the name of a role says
        which classes have it, such as ``block=cell``.

    Returns
    -------
    decorator
    """
    return _declare("roles", names)


def begins_at(*where: str) -> Callable[[LossFunction], LossFunction]:
    """Declare with what probabilities a new network should start.

    Parameters
    ----------
    *where : {"frequencies"}
        Those of the classes in the training labels. For a loss whose least constant prediction they are.

    Returns
    -------
    decorator
    """
    return _declare("begins_at", where)


def blind_to(*differences: str) -> Callable[[LossFunction], LossFunction]:
    """Declare what a loss cannot distinguish, so that it is refused without another loss beside it.

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
