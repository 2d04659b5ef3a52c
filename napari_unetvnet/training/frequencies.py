"""Adapt a model that learnt from strokes to how often its classes are in the images.

Strokes are painted on each class about as often, and patches are drawn around each class as often, so a network learns
from them that a class of few voxels is frequent, and answers with too much of it where it is in doubt. How often the
classes are is estimated from its answers on the voxels without labels, by expectation maximisation, and the bias of its
last layer is moved accordingly (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002,
https://doi.org/10.1162/089976602753284446; measured in benchmarks/scribbles.md).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.blocks import block_of_labels
from napari_unetvnet.images.sampling import spread
from napari_unetvnet.inference import scores
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training.initial import output_biases
from napari_unetvnet.training.plan.learning import STROKES
from napari_unetvnet.training.run import copied
from napari_unetvnet.training.score import score_weights, with_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.training.processes import ProcessGroup
    from napari_unetvnet.training.run import Best, Run

__all__ = ["ADAPTED", "adapted", "adapted_outputs", "class_shares"]

ADAPTED = (
    "Strokes do not show how often the classes are, so that was estimated on unpainted voxels, and the outputs were "
    "adapted to it."
)
REGIONS, PART = 4, {2: (1, 512, 512), 3: (32, 128, 128)}
"""Images, and voxels z, y, x of each, that frequencies are estimated on, at most."""
ROUNDS = 50
MOST = 2.0
"""A logit is moved by at most this, since an estimate may fail: odds change up to seven times."""
LEAST = 1e-6


def adapted(run: Run, best: Best, group: ProcessGroup | None = None) -> Best:
    """Move the output bias of a model to the frequencies of the classes, and score it again.

    Parameters
    ----------
    group : ProcessGroup, optional
        Processes that score together (default: those of the run).

    Returns
    -------
    Best
        The same one where labels are no strokes, or the network has no such bias.
    """
    if not best.weights or run.keeps_parent or run.fitted is not None or not _from_strokes(run):
        return best
    network = run.model.network
    with with_weights(network, best.weights), adapted_outputs(run) as moved:
        weights = copied(network)
    return score_weights(run, replace(best, weights=weights), run.data.hold_out, group) if moved else best


@contextmanager
def adapted_outputs(run: Run) -> Iterator[bool]:
    """Move the output bias of the present weights, and restore it; give whether it was moved."""
    biases = output_biases(run.model.network) if _from_strokes(run) else []
    before = [bias.detach().clone() for bias in biases]
    shift = _shift(run) if biases else None
    with torch.no_grad():
        for bias in biases if shift is not None else ():
            bias.add_(torch.as_tensor(shift, dtype=bias.dtype, device=bias.device))
    try:
        yield shift is not None
    finally:
        with torch.no_grad():
            for bias, old in zip(biases, before, strict=True):
                bias.copy_(old)


def _from_strokes(run: Run) -> bool:
    """Whether the model has learnt from strokes alone, of classes that exclude each other."""
    if run.parent is not None and run.settings.distillation:  # the parent knows frequencies
        return False
    if run.settings.unlabelled != "ignore" or run.model.card.head == "multilabel" or run.model.card.lines:
        return False
    labelled = sum(int(region.class_counts[: len(run.data.classes)].sum()) for region in run.data.train)
    return labelled < STROKES * sum(region.target.size for region in run.data.train)


def _shift(run: Run) -> NDArray[np.float64] | None:
    """Give what is to be added to each logit; None if a class has no strokes, or nothing around them is unpainted."""
    painted = np.sum([region.class_counts[: len(run.data.classes)] for region in run.data.train], axis=0)
    if not painted.all():
        return None
    answers = np.concatenate([_answers(run, region) for region in _spread_out(run.data.train)], axis=1)
    if not answers.size:
        return None
    painted = painted / painted.sum()
    change = np.log(class_shares(answers, painted) / painted)
    moved: NDArray[np.float64] = (change - change[0]).clip(-MOST, MOST)
    return moved[1:] if run.model.card.head == "binary" else moved


def _spread_out(regions: Sequence[Region]) -> list[Region]:
    return [regions[i] for i in spread(len(regions), min(len(regions), REGIONS))]


def _answers(run: Run, region: Region) -> NDArray[np.float64]:
    """Give the probabilities (K, N) of the voxels without labels, where most is painted."""
    card = run.model.card
    z, y, x = PART[card.dims]
    size = (z + 2 * card.context, y, x)  # with the neighbours of a plane
    part = region.crop(block_of_labels(region.target[None], size, unlabelled=IGNORE))
    run.model.network.eval()
    slabs = [logits.float().cpu() for _, logits in scores(run.model, part.image, SegmentSettings(), part.scale)]
    logits = torch.cat(slabs, dim=1)[:, torch.from_numpy(part.target == IGNORE)].double()
    one = logits.sigmoid()
    return (torch.cat([1 - one, one]) if card.head == "binary" else logits.softmax(0)).numpy()


def class_shares(answers: NDArray[np.float64], painted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate how often classes are from the probabilities that a network gives them.

    Parameters
    ----------
    answers : array of shape (K, N)
        Probabilities of N voxels.
    painted : array of shape (K,)
        How often the classes were among the voxels that it learnt from.

    Returns
    -------
    array of shape (K,)
        The most likely shares.
    """
    shares = painted.astype(np.float64)
    for _ in range(ROUNDS):
        weighted = answers * (shares / painted)[:, None]
        shares = (weighted / weighted.sum(axis=0).clip(LEAST)).mean(axis=1).clip(LEAST)
    normalised: NDArray[np.float64] = shares / shares.sum()
    return normalised
