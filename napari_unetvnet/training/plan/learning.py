"""How the network learns: from which labels and losses, how its patches are changed, and for how long."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.targets import needed_maps
from napari_unetvnet.training.plan.choice import Choice, some_planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = [
    "augmentation",
    "budget",
    "class_weights",
    "ema_decay",
    "hold_out",
    "loss",
    "mirroring",
    "normalisation",
    "objects",
]

LIKELY_SIDED = 3
ASYMMETRY = 2.0
"""Classes lie on different sides if their distance is so many times its own spread over the images."""
OUTLYING = 20.0
"""The brightest voxels are so many times as far from the median as nearly all others."""
RARE = 0.05
DICE_LIKE = ("dice", "tversky", "log_dice", "hausdorff", "line", "block", "ten_channel", "clDice")
MANY = 10
"""Of so many images a tenth is held out instead of a fifth."""
MINUTES, SOON = 5.0, 2.0
STROKES = 0.05
"""Labels that are ignored where nothing is painted are strokes if they cover no more than this share."""


def objects(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Keep objects apart that touch."""
    del pairs, device
    if settings.label_values != "objects":
        return []
    return [Choice("objects_as", "separated", "connected voxels are then one object")]


def normalisation(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Bring intensities to scale by mean and deviation, unless a few voxels would decide them."""
    del settings, device
    tails = [_has_a_tail(pair) for pair in pairs]
    if sum(tails) > len(tails) / 2:
        return [Choice("normalise", "percentile", "a few voxels are far brighter than the others")]
    return [Choice("normalise", "zscore", "each image has its own mean and spread")]


def _has_a_tail(pair: Pair) -> bool:
    planes = some_planes(pair.image)[0].astype(np.float32)
    middle, high = np.percentile(planes, [50, 99.8])
    return bool(planes.max() - middle > OUTLYING * (high - middle) > 0)


def loss(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Take Dice with cross entropy, for lines and overlapping classes what they need."""
    del pairs, device
    if settings.lines:
        return [Choice("loss", "ten_channel", "made for thin lines beside blocks")]
    if settings.multilabel:
        return [Choice("loss", "bce_dice", "classes may overlap")]
    return [Choice("loss", "dice_ce", "right for most images, rare classes among them")]


def class_weights(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Weigh classes only where the loss would overlook rare ones."""
    del device
    if any(word in term.name for term in settings.loss for word in DICE_LIKE):
        return [Choice("class_weights", "none", "the loss counts each class as much, however rare")]
    share = _rarest(pairs, settings)
    weighted = any(row.use == "weight" for row in needed_maps(settings).values())
    if weighted or share >= RARE:
        return [
            Choice("class_weights", "none", "no class is rare" if share >= RARE else "the loss has weights of its own")
        ]
    return [Choice("class_weights", "inverse_frequency", f"a class has {share:.1%} of the labels")]


def _rarest(pairs: Sequence[Pair], settings: TrainSettings) -> float:
    """Give the share of the rarest label value."""
    counts = sum((count for pair in pairs for count in label_counts(pair.labels).counts), Counter[int]())
    ignored = {settings.ignore_value, 0 if settings.unlabelled == "ignore" else None}
    known = [count for value, count in counts.items() if value not in ignored]
    return min(known) / sum(known) if known else 1.0


def mirroring(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Mirror along each axis that does not tell classes apart."""
    del device
    sided = _sided_axes(pairs, settings)
    axes = [axis for axis in "zyx" if axis not in sided]
    if sided:
        return [Choice("mirror_axes", axes, f"classes lie on different sides along {', '.join(sided)}")]
    return [Choice("mirror_axes", axes, "no class is always on one side of another")]


def _sided_axes(pairs: Sequence[Pair], settings: TrainSettings) -> list[str]:
    """Find axes along which one class is always before another, so that mirroring would exchange them."""
    if len(pairs) < LIKELY_SIDED or settings.label_values != "classes":
        return []
    centres = [label_counts(pair.labels).centres for pair in pairs]
    values = sorted(set().union(*centres) - {0})
    found = []
    for i, axis in enumerate("zyx"):
        for a, b in ((a, b) for a in values for b in values if a < b):
            apart = np.array([c[a][i] - c[b][i] for c in centres if a in c and b in c])
            if len(apart) >= LIKELY_SIDED and abs(apart.mean()) > ASYMMETRY * apart.std() + 0.02:
                found.append(axis)
                break
    return found


def augmentation(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Change patches as nnU-Net does."""
    del pairs, settings, device
    return [Choice("augment", "standard", "it sets in after the first minute")]


def hold_out(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Hold a smaller share out of many images."""
    del device
    if settings.folds > 1 or len(pairs) < MANY or any(pair.split for pair in pairs):
        return []
    return [Choice("hold_out", 0.1, f"of {len(pairs)} images a tenth tells enough")]


def ema_decay(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Keep the average of the last weights."""
    del pairs, settings, device
    return [Choice("ema_decay", 0.98, "steadier than the weights of any one step")]


def budget(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Train for some minutes."""
    del device
    if {"minutes", "epochs", "steps"} & settings.model_fields_set:
        return []
    if settings.unlabelled == "ignore" and np.mean([label_counts(p.labels).painted_share for p in pairs]) < STROKES:
        return [Choice("minutes", SOON, "strokes are learnt soon; correct the result and continue")]
    return [Choice("minutes", MINUTES, "a first good model; more time makes a better one")]
