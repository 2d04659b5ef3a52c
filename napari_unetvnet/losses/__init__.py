"""The loss table, and weighted sums of its members: ``build_loss("dice + 10*focal(gamma=3)", head="binary")``.

A new loss is one function and one line here. Any sum of members is a loss, in the form, on the command line and in a
file alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses.expression import LossTerm, read_terms, write_loss
from napari_unetvnet.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.losses.total import Loss

__all__ = ["LOSSES", "LossTerm", "build_loss", "head_misfits", "loss_needs", "parse_loss", "write_loss"]

LOSSES = Registry(
    "loss",
    {
        "dice_ce": "napari_unetvnet.losses.combined:dice_ce",
        "bce_dice": "napari_unetvnet.losses.combined:bce_dice",
        "dice": "napari_unetvnet.losses.overlap:dice",
        "ce": "napari_unetvnet.losses.cross_entropy:ce",
        "bce": "napari_unetvnet.losses.cross_entropy:bce",
        "weighted_ce": "napari_unetvnet.losses.cross_entropy:weighted_ce",
        "reweighted_bce": "napari_unetvnet.losses.cross_entropy:reweighted_bce",
        "unet_weighted_ce": "napari_unetvnet.losses.cross_entropy:unet_weighted_ce",
        "focal": "napari_unetvnet.losses.focal:focal",
        "reweighted_dice": "napari_unetvnet.losses.overlap:reweighted_dice",
        "weighted_dice": "napari_unetvnet.losses.overlap:weighted_dice",
        "generalised_dice": "napari_unetvnet.losses.overlap:generalised_dice",
        "log_dice": "napari_unetvnet.losses.overlap:log_dice",
        "focal_dice": "napari_unetvnet.losses.combined:focal_dice",
        "focal_bce_dice": "napari_unetvnet.losses.combined:focal_bce_dice",
        "line": "napari_unetvnet.losses.tasks:line",
        "block": "napari_unetvnet.losses.tasks:block",
        "ten_channel": "napari_unetvnet.losses.tasks:ten_channel",
        "drive_ce_dice": "napari_unetvnet.losses.combined:drive_ce_dice",
        "border_dice": "napari_unetvnet.losses.border:border_dice",
        "hardness_dice": "napari_unetvnet.losses.attention:hardness_dice",
        "attention_dice": "napari_unetvnet.losses.attention:attention_dice",
        "vae": "napari_unetvnet.losses.autoencoder:vae",
        "tversky": "napari_unetvnet.losses.tversky:tversky",
        "focal_tversky": "napari_unetvnet.losses.tversky:focal_tversky",
        "clDice": "napari_unetvnet.losses.thin:cldice",
        "boundary": "napari_unetvnet.losses.surface:boundary",
        "hausdorff": "napari_unetvnet.losses.surface:hausdorff",
    },
)


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read a weighted sum of losses.

    Parameters
    ----------
    text : str
        Names from `LOSSES`, each with an optional factor and options: ``"dice + 10*focal(gamma=3)"``.

    Returns
    -------
    tuple of LossTerm

    Raises
    ------
    SettingsProblem
        If a term cannot be read, its name is unknown, or it has no such option.
    """
    terms = read_terms(text)
    return tuple(term.model_copy(update={"option": LOSSES.check_options(term.name, term.option)}) for term in terms)


def build_loss(
    expression: str | tuple[LossTerm, ...], *, head: str, class_weights: Sequence[float] = (), **options: Any
) -> Loss:
    """Build a loss for a head mode.

    Parameters
    ----------
    expression : str or tuple of LossTerm
        A member's name or a weighted sum such as ``"dice + 10*focal(gamma=3)"``.
    head : {"binary", "multiclass", "multilabel"}
        What turns logits into probabilities: sigmoid of one channel, softmax, or sigmoid of each channel.
    class_weights : sequence of float
        Importance of each class: of background and foreground for a binary head, of the voxels where a class is for a
        multilabel one. A term with an option of this name takes them its own way. Empty: all the same.
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
        If a term is unknown or does not fit the head mode, no term has an option, or a class weight is below 0.
    """
    terms = parse_loss(expression) if isinstance(expression, str) else expression
    declared = {name for term in terms for name in LOSSES.describe(term.name).defaults}
    if unknown := [name for name in options if name not in declared]:
        raise SettingsProblem(*(f"Loss {write_loss(terms)} has no option {name!r}." for name in unknown))
    if misfits := head_misfits(terms, head):
        raise SettingsProblem(*misfits)
    if any(not weight >= 0 for weight in class_weights) or (class_weights and not any(class_weights)):
        raise SettingsProblem(f"Class weights {list(class_weights)} should be at least 0, and one of them above.")
    from napari_unetvnet.losses.total import Loss, Term

    given = {**options, "class_weights": tuple(class_weights)} if class_weights else options
    members = []
    for term in terms:
        known = LOSSES.describe(term.name).defaults
        own = {name: value for name, value in given.items() if name in known}
        chosen = LOSSES.check_options(term.name, {**own, **term.option})
        of_voxels = () if "class_weights" in known else tuple(map(float, class_weights))
        members.append(Term(term.weight, LOSSES.resolve(term.name), chosen, of_voxels))
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


def loss_needs(terms: tuple[LossTerm, ...]) -> dict[str, str]:
    """Say what the terms learn from besides logits and labels.

    Parameters
    ----------
    terms : tuple of LossTerm

    Returns
    -------
    dict
        "attention", "reconstruction" or "separation" (the weight map), each with the first term that wants it.
    """
    needs: dict[str, str] = {}
    for term in terms:
        for need in LOSSES.describe(term.name).facts.get("needs", ()):
            needs.setdefault(need, term.name)
    return needs
