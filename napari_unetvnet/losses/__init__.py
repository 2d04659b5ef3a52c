"""The loss table, and weighted sums of losses: ``build_loss("dice + 10*focal(gamma=3)", head="binary")``.

A new loss is one function and one line here. A weighted sum can stand wherever a loss can: in the form, on the command
line and in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import SettingsProblem, near_names
from napari_unetvnet.losses.classes import BACKGROUND, LossClasses
from napari_unetvnet.losses.expression import REST, LossTerm, class_words, read_terms, write_loss
from napari_unetvnet.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.losses.classes import Roles
    from napari_unetvnet.losses.total import Loss, Term

__all__ = [
    "BACKGROUND", "LOSSES", "PURPOSES", "REST", "LossClasses", "LossTerm", "build_loss", "by_class", "class_misfits",
    "classes_of_terms", "head_misfits", "loss_needs", "parse_loss", "write_loss",
]  # fmt: skip

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
        "heatmap_dice_ce": "napari_unetvnet.losses.heatmaps:heatmap_dice_ce",
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
    expression: str | tuple[LossTerm, ...],
    *,
    head: str,
    class_weights: Sequence[float] = (),
    classes: LossClasses | None = None,
    **options: Any,
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
    classes : LossClasses, optional
        The classes of the network, for terms that are for some of them. Without, roles go by position.
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
        If a term is unknown or does not fit the head mode, no term has an option, a class weight is below 0, or a class
        is unknown, has no loss, or has a role that does not fit.
    """
    terms = parse_loss(expression) if isinstance(expression, str) else expression
    _check_options(terms, options)
    if misfits := head_misfits(terms, head):
        raise SettingsProblem(*misfits)
    _check_class_weights(class_weights)
    from napari_unetvnet.losses.total import Loss

    if classes is None:
        if named := [word for term in terms for word in term.classes]:
            raise SettingsProblem(f"Loss {write_loss(terms)} is for classes {', '.join(named)}, but none are known.")
        return Loss(tuple(_build_term(term, tuple(class_weights), options) for term in terms), head)
    built = [_build_term(term, tuple(class_weights), options) for term in terms]
    found = classes_of_terms(terms, classes)
    return Loss(tuple(term._replace(roles=r, channels=c) for term, (r, c) in zip(built, found, strict=True)), head)


def by_class(terms: Sequence[LossTerm]) -> bool:
    """Whether a loss is for single classes, or gives classes a role that a person may have to name."""
    return any(term.classes or "block" in LOSSES.describe(term.name).facts.get("roles", ()) for term in terms)


def classes_of_terms(
    terms: Sequence[LossTerm], classes: LossClasses
) -> list[tuple[Roles | None, tuple[int, ...] | None]]:
    """Find the channels of the roles of each term, and those for each of which it is computed alone.

    Returns
    -------
    list of (roles or None, channels or None)

    Raises
    ------
    SettingsProblem
        If a class is unknown, has no loss, or has a role that does not fit.
    """
    found: list[tuple[Roles | None, tuple[int, ...] | None]] = []
    for term, channels in zip(terms, classes.channels_of(terms), strict=True):
        described = LOSSES.describe(term.name)
        names = described.facts.get("roles", ()) if channels is None else ()
        complete = term.model_copy(update={"option": described.defaults | term.option})
        found.append((classes.roles(complete, names) if names else None, channels))
    return found


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
    if class_weights and term.classes:  # those of all classes do not fit one; they weigh its voxels instead
        shared = {**options, "class_weights": (1.0, 1.0)}
    chosen = {name: value for name, value in shared.items() if name in declared} | term.option
    weighs = "class_weights" in declared and not term.classes
    voxel_class_weights = () if weighs else tuple(map(float, class_weights))
    roles = LOSSES.describe(term.name).facts.get("roles", ())
    function = LOSSES.resolve(term.name)
    return Term(term.weight, function, LOSSES.check_options(term.name, chosen), voxel_class_weights, roles)


def class_misfits(terms: tuple[LossTerm, ...], names: Sequence[str]) -> list[str]:
    """List the class names in a loss that no class has, and terms that are of no use by themselves.

    Parameters
    ----------
    names : sequence of str
        Those of the classes, as far as settings know them; a class can also be given by its value.

    Returns
    -------
    list of str
        One sentence each.
    """
    known = dict.fromkeys([*names, BACKGROUND])
    lines = []
    for term in terms:
        words = [word for word in term.classes if word != REST]
        for role in LOSSES.describe(term.name).facts.get("roles", ()):
            words += class_words(str(term.option.get(role, "")), known)
        unknown = [word for word in words if word not in known and not word.isdecimal()]
        advice = "A class is given by its value or its class name (--class-names)."
        lines += [f"Loss {term.name}: there is no class {word!r}{near_names(word, known)} {advice}" for word in unknown]
    return list(dict.fromkeys(lines)) + _blind(terms)


def _blind(terms: tuple[LossTerm, ...]) -> list[str]:
    """Refuse what a loss cannot distinguish where no other loss of the same classes does."""
    lines = []
    for classes in dict.fromkeys(term.classes for term in terms):
        names = {term.name for term in terms if term.classes in (classes, ())}
        blind = [name for name in names if "inversion" in LOSSES.describe(name).facts.get("blind_to", ())]
        if len(blind) == len(names):
            lines.append(
                f"Loss {blind[0]} cannot tell a mask from its complement; add another, such as {blind[0]} + dice."
            )
    return lines


def head_misfits(terms: tuple[LossTerm, ...], head: str) -> list[str]:
    """List the terms that do not fit a head mode, with losses that do; a term of single classes must fit a binary one.

    Parameters
    ----------
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    list of str
        One sentence per misfit; empty if all fit.
    """
    lines = []
    for term in terms:
        each = "binary" if term.classes else head
        fitting = [name for name in LOSSES if each in LOSSES.describe(name).facts["head_modes"]]
        if term.name not in fitting:
            what = f"single class ({', '.join(term.classes)})" if term.classes else f"{head} head"
            lines.append(f"Loss {term.name} does not fit a {what}; choose one of {', '.join(fitting)}.")
    return lines


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
