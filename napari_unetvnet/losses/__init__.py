"""The loss table, and weighted sums of its members written as text: ``"dice + 10*bce"``.

A new loss is one function and one line here. Any sum of members is a loss, in the form, on the command line and in a
file alike.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.registry import Registry

if TYPE_CHECKING:
    from napari_unetvnet.losses.adapters import Loss

__all__ = ["LOSSES", "LossTerm", "build_loss", "parse_loss", "write_loss"]

LOSSES = Registry(
    "loss",
    {
        "dice": "napari_unetvnet.losses.overlap:dice",
        "ce": "napari_unetvnet.losses.cross_entropy:ce",
        "bce": "napari_unetvnet.losses.cross_entropy:bce",
        "dice_ce": "napari_unetvnet.losses.combined:dice_ce",
        "bce_dice": "napari_unetvnet.losses.combined:bce_dice",
    },
)


class LossTerm(BaseModel):
    """One member of a weighted sum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    option: dict[str, bool | int | float | str] = {}


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read a weighted sum of losses.

    Parameters
    ----------
    text : str
        Names from `LOSSES`, each with an optional factor: ``"dice + 10*bce"``.

    Returns
    -------
    tuple of LossTerm

    Raises
    ------
    SettingsProblem
        If a term is no ``name`` or ``number*name``, or its name is unknown.
    """
    terms = []
    for part in re.split(r"(?<!\d[eE])\+", text):
        match = re.fullmatch(r"\s*(?:([0-9.]+(?:[eE][+-]?\d+)?)\s*\*\s*)?([A-Za-z_]\w*)\s*", part)
        if match is None:
            raise SettingsProblem(f"Loss {text!r}: the term {part.strip()!r} should be a name or number*name.")
        LOSSES.check(match.group(2))
        terms.append(LossTerm(name=match.group(2), weight=_factor(match.group(1), text)))
    return tuple(terms)


def _factor(number: str | None, text: str) -> float:
    try:
        factor = float(number or 1)
    except ValueError:
        factor = 0.0
    if not 0 < factor < math.inf:
        raise SettingsProblem(f"Loss {text!r}: {number!r} should be a number above 0.")
    return factor


def write_loss(terms: tuple[LossTerm, ...]) -> str:
    """Write a sum of losses as `parse_loss` reads it; options are not part of the text.

    Parameters
    ----------
    terms : tuple of LossTerm

    Returns
    -------
    str
    """
    return " + ".join(term.name if term.weight == 1 else f"{term.weight!r}*{term.name}" for term in terms)


def build_loss(expression: str | tuple[LossTerm, ...], *, head: str, **options: Any) -> Loss:
    """Build a loss for a head mode.

    Parameters
    ----------
    expression : str or tuple of LossTerm
        A member's name or a weighted sum such as ``"dice + 10*bce"``.
    head : {"binary", "multiclass", "multilabel"}
        What turns logits into probabilities: sigmoid of one channel, softmax, or sigmoid of each channel.
    **options
        Given to every term that has an option of that name.

    Returns
    -------
    Loss
        A callable ``(logits (B, K, *S), target, weight=None) -> scalar``. The target is ``(B, *S)`` class indices in
        which IGNORE marks unlabelled voxels, or ``(B, K, *S)`` for several labels per voxel and for soft targets.

    Raises
    ------
    SettingsProblem
        If a term is unknown or does not fit the head mode, or no term has an option.
    """
    terms = parse_loss(expression) if isinstance(expression, str) else expression
    declared = {name for term in terms for name in LOSSES.describe(term.name).defaults}
    if unknown := [name for name in options if name not in declared]:
        raise SettingsProblem(*(f"Loss {write_loss(terms)} has no option {name!r}." for name in unknown))
    if misfits := head_misfits(terms, head):
        raise SettingsProblem(*misfits)
    from napari_unetvnet.losses.adapters import Loss, Member

    members = []
    for term in terms:
        own = {k: v for k, v in options.items() if k in LOSSES.describe(term.name).defaults}
        chosen = LOSSES.check_options(term.name, {**own, **term.option})
        members.append(Member(term.weight, LOSSES.resolve(term.name), chosen))
    return Loss(tuple(members), head)


def head_misfits(terms: tuple[LossTerm, ...], head: str) -> list[str]:
    """Say which terms do not fit a head mode, and what would.

    Parameters
    ----------
    terms : tuple of LossTerm
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    list of str
        A sentence for each misfit; empty if all fit.
    """
    fitting = [name for name in LOSSES if head in LOSSES.describe(name).facts["head_modes"]]
    return [
        f"Loss {term.name} does not fit a {head} head; choose one of {', '.join(fitting)}."
        for term in terms
        if term.name not in fitting
    ]
