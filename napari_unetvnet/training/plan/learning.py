"""Rules for the training: labels, losses, augmentation and budget."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.targets import needed_maps
from napari_unetvnet.images.content import content_box
from napari_unetvnet.images.identity import content_hash
from napari_unetvnet.model.card import read_card
from napari_unetvnet.training.plan.choice import Decision, some_planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = [
    "are_strokes",
    "augmentation",
    "budget",
    "class_weights",
    "ema_decay",
    "fine_tuning",
    "hold_out",
    "loss",
    "mirroring",
    "normalisation",
    "objects",
    "rarest_share",
]

LIKELY_SIDED = 3
APART, SAME_LOOK, MOST_COMPARED = 0.2, 0.5, 8
"""In one or two images, values are on different sides if their centres are so far apart, as a fraction of the edge, and
the difference of their mean intensity is so many standard deviations at most."""
ASYMMETRY = 2.0
"""Classes are on different sides if their mean distance is this many standard deviations over the images."""
OUTLYING = 20.0
"""How many times as far from the median as percentile 99.8 the brightest voxels are, to be outliers."""
RARE = 0.05
DICE_LIKE = ("dice", "tversky", "log_dice", "hausdorff", "line", "block", "ten_channel", "clDice")
MANY = 10
"""From this number of images on, a tenth is held out instead of a fifth."""
MINUTES, SOON = 5.0, 2.0
SEPARATED = (
    "a gap is learnt where objects touch, and necks that are left are cut; learnt as core and rim, objects came out "
    "single no more often (benchmarks/objects.md)"
)
STROKES = 0.05
"""Maximum painted fraction of sparse labels that count as strokes."""
SLOWER = 10
"""How many times as slowly strokes change a model."""


def are_strokes(pairs: Sequence[Pair], settings: TrainSettings) -> bool:
    """Say whether so little is painted that it shows neither borders nor frequencies.

    Returns
    -------
    bool
    """
    shares = [label_counts(pair.labels).painted_share for pair in pairs]
    return settings.unlabelled == "ignore" and float(np.mean(shares)) < STROKES


def objects(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Separate touching objects."""
    del pairs, device
    if settings.label_values != "objects":
        return []
    return [Decision("objects_as", "separated", SEPARATED)]


def fine_tuning(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Let a model that is corrected by a few strokes keep what it knows.

    A model that has learnt from strokes on these images alone knows nothing else, and goes on with them.

    Returns
    -------
    list of Decision
    """
    del device
    if settings.start_from is None or not are_strokes(pairs, settings):
        return []
    card = read_card(settings.start_from)
    learnt = {record.content for record in card.images if record.trained}
    if not card.distilled and any(content_hash(pair.image) in learnt for pair in pairs):
        return []
    kept = "where nothing is painted, the model to start from is followed, or it forgets what it knows (start_from.md)"
    slow = "a few strokes correct a model, so it changes little"
    return [Decision("distillation", 1.0, kept), Decision("learning_rate", settings.peak_rate / SLOWER, slow)]


def normalisation(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Normalise by mean and standard deviation, unless outliers would dominate them."""
    del settings, device
    tails = [_has_a_tail(pair) for pair in pairs]
    if sum(tails) > len(tails) / 2:
        return [Decision("normalise", "percentile", "a few voxels are far brighter than the others")]
    return [Decision("normalise", "zscore", "no voxels are far brighter than the others")]


def _has_a_tail(pair: Pair) -> bool:
    planes = some_planes(pair.image.crop(content_box(pair.image.data)))[0].astype(np.float32)
    middle, high = np.percentile(planes, [50, 99.8])
    return bool(planes.max() - middle > OUTLYING * (high - middle) > 0)


def loss(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose Dice with cross-entropy, or the losses for lines and for overlapping classes."""
    del pairs, device
    if settings.lines:
        return [Decision("loss", "heatmap_dice_ce", "thin lines are rare, so the network starts at their frequency")]
    if settings.multilabel:
        return [Decision("loss", "bce_dice", "classes may overlap")]
    return [Decision("loss", "dice_ce", "suits most images, also with rare classes")]


def class_weights(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Weight classes only if the loss would neglect rare ones."""
    del device
    if any(word in term.name for term in settings.loss for word in DICE_LIKE):
        return [Decision("class_weights", "none", "the loss weights all classes equally")]
    share = rarest_share(pairs, settings)
    weighted = any(row.use == "weight" for row in needed_maps(settings).values())
    if weighted or share >= RARE:
        return [
            Decision("class_weights", "none", "no class is rare" if share >= RARE else "the loss has its own weights")
        ]
    return [Decision("class_weights", "inverse_frequency", f"a class has {share:.1%} of the labels")]


def rarest_share(pairs: Sequence[Pair], settings: TrainSettings) -> float:
    """Give the fraction of the rarest label value.

    Returns
    -------
    float
        Of the labelled voxels; 1 if there are none.
    """
    counts = sum((count for pair in pairs for count in label_counts(pair.labels).counts), Counter[int]())
    ignored = {settings.ignore_value, 0 if settings.unlabelled == "ignore" else None}
    voxels = [count for value, count in counts.items() if value not in ignored]
    return min(voxels) / sum(voxels) if voxels else 1.0


def mirroring(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Mirror along each axis that does not distinguish classes."""
    del device
    few = len(pairs) < LIKELY_SIDED
    classes = settings.label_values == "classes"
    sided = [] if not classes else _alike_axes(pairs) if few else _sided_axes(pairs)
    axes = [axis for axis in "zyx" if axis not in sided]
    if sided and few:
        reason = f"two classes of the same brightness lie on different sides along {', '.join(sided)}"
    elif sided:
        reason = f"classes lie on different sides along {', '.join(sided)}"
    elif not classes:
        reason = "objects have no sides"
    elif few:
        reason = (
            f"{len(pairs)} image{'s' * (len(pairs) > 1)} cannot show whether classes differ by their side only; if "
            "they do, such as left and right, leave that axis out"
        )
    else:
        reason = f"in {len(pairs)} images no class is always on one side of another"
    return [Decision("mirror_axes", axes, reason)]


def _alike_axes(pairs: Sequence[Pair]) -> list[str]:
    """Find axes along which two painted values of the same brightness lie apart in every one of a few images."""
    found = [_apart(pair) for pair in pairs]
    return [axis for axis in "zyx" if all(axis in axes for axes in found)]


def _apart(pair: Pair) -> set[str]:
    """Find axes along which two values of the same brightness lie apart in an image."""
    centres = label_counts(pair.labels).centres
    values = [value for value in sorted(centres) if value][:MOST_COMPARED]
    if len(values) < 2 or pair.image.shape != pair.labels.shape:
        return set()
    grey = some_planes(pair.image)[0].astype(np.float32).mean(axis=0)
    labels = some_planes(pair.labels)[0][0]
    looks = {value: (float(grey[labels == value].mean()), float(grey[labels == value].std())) for value in values}
    axes = set()
    for a, b in itertools.combinations(values, 2):
        (mean_a, spread_a), (mean_b, spread_b) = looks[a], looks[b]
        if abs(mean_a - mean_b) < SAME_LOOK * max(spread_a, spread_b, 1e-9):
            distance = np.abs(centres[a] - centres[b])
            axes |= {axis for axis, apart in zip("zyx", distance, strict=True) if apart > APART}
    return axes


def _sided_axes(pairs: Sequence[Pair]) -> list[str]:
    """Find axes along which one class is always before another: mirroring would exchange them."""
    centres = [label_counts(pair.labels).centres for pair in pairs]
    values = sorted(set().union(*centres) - {0})
    sided = []
    for i, axis in enumerate("zyx"):
        for a, b in ((a, b) for a in values for b in values if a < b):
            distances = np.array([c[a][i] - c[b][i] for c in centres if a in c and b in c])
            if len(distances) >= LIKELY_SIDED and abs(distances.mean()) > ASYMMETRY * distances.std() + 0.02:
                sided.append(axis)
                break
    return sided


def augmentation(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Augment as nnU-Net does."""
    from napari_unetvnet.training.step import AUGMENTATION_START

    del pairs, settings, device
    return [Decision("augment", "standard", f"it begins after the first {AUGMENTATION_START} steps")]


def hold_out(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Hold out a smaller fraction of many images."""
    del device
    if settings.folds > 1 or len(pairs) < MANY or any(pair.split for pair in pairs):
        return []
    return [Decision("hold_out", 0.1, f"a tenth of {len(pairs)} images is enough")]


def ema_decay(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Use the moving average of the weights."""
    del pairs, settings, device
    return [Decision("ema_decay", 0.98, "less noisy than the weights of single steps")]


def budget(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Train for some minutes."""
    del device
    if {"minutes", "epochs", "steps"} & settings.model_fields_set:
        return []
    if are_strokes(pairs, settings):
        return [Decision("minutes", SOON, "strokes are learnt soon; correct the result and continue")]
    return [Decision("minutes", MINUTES, "a first good model; more time makes a better one")]
