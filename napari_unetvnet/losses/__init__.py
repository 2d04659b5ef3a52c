"""The loss table, and weighted sums of losses: ``build_loss("dice + 10*focal(gamma=3)", head="binary")``.

A new loss is one function and one line here. A weighted sum can stand wherever a loss can: in the form, on the command
line and in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses.expression import LossTerm, read_terms, write_loss
from napari_unetvnet.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.losses.total import Loss, Term

__all__ = ["LOSSES", "PURPOSES", "LossTerm", "build_loss", "head_misfits", "loss_needs", "parse_loss", "write_loss"]

PURPOSES: dict[str, dict[str, str]] = {
    "to begin with": {
        "dice_ce": "napari_unetvnet.losses.combined:dice_ce",
        "bce_dice": "napari_unetvnet.losses.combined:bce_dice",
        "dice": "napari_unetvnet.losses.overlap:dice",
        "ce": "napari_unetvnet.losses.cross_entropy:ce",
        "bce": "napari_unetvnet.losses.cross_entropy:bce",
    },
    "for rare classes": {
        "tversky": "napari_unetvnet.losses.tversky:tversky",
        "focal_tversky": "napari_unetvnet.losses.tversky:focal_tversky",
        "focal": "napari_unetvnet.losses.focal:focal",
        "focal_dice": "napari_unetvnet.losses.combined:focal_dice",
        "focal_bce_dice": "napari_unetvnet.losses.combined:focal_bce_dice",
        "generalised_dice": "napari_unetvnet.losses.overlap:generalised_dice",
        "log_dice": "napari_unetvnet.losses.overlap:log_dice",
        "weighted_ce": "napari_unetvnet.losses.cross_entropy:weighted_ce",
        "reweighted_bce": "napari_unetvnet.losses.cross_entropy:reweighted_bce",
        "reweighted_dice": "napari_unetvnet.losses.overlap:reweighted_dice",
        "weighted_dice": "napari_unetvnet.losses.overlap:weighted_dice",
    },
    "for lines, blocks, borders": {
        "clDice": "napari_unetvnet.losses.thin:cldice",
        "line": "napari_unetvnet.losses.tasks:line",
        "block": "napari_unetvnet.losses.tasks:block",
        "ten_channel": "napari_unetvnet.losses.tasks:ten_channel",
        "boundary": "napari_unetvnet.losses.surface:boundary",
        "hausdorff": "napari_unetvnet.losses.surface:hausdorff",
        "border_dice": "napari_unetvnet.losses.border:border_dice",
        "unet_weighted_ce": "napari_unetvnet.losses.cross_entropy:unet_weighted_ce",
    },
    "as in their source": {
        "drive_ce_dice": "napari_unetvnet.losses.combined:drive_ce_dice",
        "hardness_dice": "napari_unetvnet.losses.attention:hardness_dice",
        "attention_dice": "napari_unetvnet.losses.attention:attention_dice",
        "vae": "napari_unetvnet.losses.autoencoder:vae",
    },
}
"""Losses by purpose, as README lists them."""

LOSSES = Registry("loss", {name: place for purpose in PURPOSES.values() for name, place in purpose.items()})


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
        A name or a weighted sum such as ``"dice + 10*focal(gamma=3)"``.
    head : {"binary", "multiclass", "multilabel"}
        How logits become probabilities: sigmoid of one channel, softmax, or sigmoid of each channel.
    class_weights : sequence of float
        Weight of the voxels of each class: of background and foreground for a binary head, of the voxels inside each
        class for a multilabel head. A term with an option of this name uses them as its option. Empty: all equal.
    **options
        Passed to every term that has an option of that name.

    Returns
    -------
    Loss
        A callable ``(logits (B, K, *S), target, weight=None) -> scalar``. The target is ``(B, *S)`` class indices in
        which IGNORE marks unlabelled voxels, or ``(B, K, *S)`` for overlapping classes and for soft targets.

    Raises
    ------
    SettingsProblem
        If a term is unknown or does not fit the head mode, no term has an option, or a class weight is below 0.
    """
    terms = parse_loss(expression) if isinstance(expression, str) else expression
    _check_options(terms, options)
    if misfits := head_misfits(terms, head):
        raise SettingsProblem(*misfits)
    _check_class_weights(class_weights)
    from napari_unetvnet.losses.total import Loss

    return Loss(tuple(_build_term(term, tuple(class_weights), options) for term in terms), head)


def _check_options(terms: tuple[LossTerm, ...], options: Mapping[str, Any]) -> None:
    declared = {name for term in terms for name in LOSSES.describe(term.name).defaults}
    if unknown := [name for name in options if name not in declared]:
        raise SettingsProblem(*(f"Loss {write_loss(terms)} has no option {name!r}." for name in unknown))


def _check_class_weights(class_weights: Sequence[float]) -> None:
    all_zero = class_weights and not any(class_weights)
    if all_zero or any(not weight >= 0 for weight in class_weights):  # not >=, so that NaN is refused, too
        raise SettingsProblem(f"Class weights {list(class_weights)} should be at least 0, and one of them above.")


def _build_term(term: LossTerm, class_weights: tuple[float, ...], options: Mapping[str, Any]) -> Term:
    """Resolve a term; its own options take precedence over those of all terms."""
    from napari_unetvnet.losses.total import Term

    declared = LOSSES.describe(term.name).defaults
    shared = {**options, "class_weights": class_weights} if class_weights else options
    chosen = {name: value for name, value in shared.items() if name in declared} | term.option
    voxel_class_weights = () if "class_weights" in declared else tuple(map(float, class_weights))
    function = LOSSES.resolve(term.name)
    return Term(term.weight, function, LOSSES.check_options(term.name, chosen), voxel_class_weights)


def head_misfits(terms: tuple[LossTerm, ...], head: str) -> list[str]:
    """List the terms that do not fit a head mode, with losses that do.

    Parameters
    ----------
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    list of str
        One sentence per misfit; empty if all fit.
    """
    fitting = [name for name in LOSSES if head in LOSSES.describe(name).facts["head_modes"]]
    return [
        f"Loss {term.name} does not fit a {head} head; choose one of {', '.join(fitting)}."
        for term in terms
        if term.name not in fitting
    ]


def loss_needs(terms: tuple[LossTerm, ...]) -> dict[str, str]:
    """List what the terms use besides logits and labels.

    Returns
    -------
    dict
        Outputs of networks and maps of the labels, each with the first term that uses it.
    """
    needs: dict[str, str] = {}
    for term in terms:
        for need in LOSSES.describe(term.name).facts.get("needs", ()):
            needs.setdefault(need, term.name)
    return needs
