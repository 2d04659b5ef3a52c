"""Distillation from the model that a training starts from: where nothing is painted, it keeps to that model's answers.

A few strokes say what lies inside objects, but not where they end. A model that knew borders forgets them when it is
trained on strokes alone (benchmarks/start_from.md). So unlabelled voxels are learnt from the probabilities of the
starting model (learning without forgetting: Li and Hoiem, IEEE TPAMI 2018, https://doi.org/10.1109/TPAMI.2017.2773081),
except near strokes that contradict it, where the same answer is doubtful.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.model.model import load_model

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.training.run import Run

__all__ = ["Teacher", "teacher_of"]

DOUBTED = 16
"""Voxels around a stroke that contradicts an answer of the starting model in which the same answer does not count."""


def teacher_of(run: Run) -> tuple[Teacher | None, list[str]]:
    """Load the model that a training starts from, to follow its answers.

    Returns
    -------
    teacher : Teacher or None
        None if the settings do not ask for it, or that model answers something else.
    notices : list of str
        Why there is none although it was asked for.
    """
    settings, parent = run.settings, run.parent
    if not settings.distillation:
        return None, []
    if settings.start_from is None or parent is None:
        return None, ["There is no model to start from, so distillation has nothing to follow."]
    path = Path(settings.start_from)
    if parent.differences:
        return None, [f"{path.name} is not followed where nothing is painted: {'; '.join(parent.differences)}."]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() not in parent.name:
        return None, [f"{path} is gone or has changed, so it is followed no longer where nothing is painted."]
    return Teacher(load_model(path, settings, before_fit=True), settings.distillation), []


class Teacher:
    """The starting model, whose weights stay.

    Parameters
    ----------
    model : Model
    weight : float
        Of the distillation loss; the loss on the labels has 1.
    """

    def __init__(self, model: Model, weight: float) -> None:
        self._model, self._weight = model, weight
        model.network.eval().requires_grad_(False)

    def noted_in(self, card: ModelCard) -> ModelCard:
        """Note in the card of the trained model what it keeps: single objects too, which strokes do not tell apart."""
        return card.model_copy(update={"distilled": True, "objects": card.objects or self._model.card.objects})

    def loss(self, images: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """Compare the answers of the trained network with those of the starting model.

        Parameters
        ----------
        images : Tensor of shape (B, C, Z, Y, X)
            With their margin.
        logits : Tensor of shape (B, K, Z, Y, X)
            Of the trained network.
        target : Tensor of uint8, shape (B, Z, Y, X) or (B, K, Z, Y, X)

        Returns
        -------
        Tensor
            Cross entropy, mean over the voxels without labels, times the weight; 0 if all have labels.
        """
        with torch.no_grad():
            answers = self._model.supervised(images)[0].logits
        target = target if target.ndim == logits.ndim else target[:, None]
        known = target != IGNORE
        if self._model.card.head == "multiclass":
            own = answers.argmax(1, keepdim=True)
            entropy = -(answers.softmax(1) * functional.log_softmax(logits, 1)).sum(1, keepdim=True)
        else:
            answers, logits = answers[:, : target.shape[1]], logits[:, : target.shape[1]]
            own = (answers >= 0).to(target.dtype)
            entropy = functional.binary_cross_entropy_with_logits(logits, answers.sigmoid(), reduction="none")
        counts = ~known & ~_doubted(known & (own != target), own)
        return self._weight * (entropy * counts).sum() / counts.sum().clamp_min(1)


def _doubted(wrong: Tensor, answers: Tensor) -> Tensor:
    """Find the answers (B, K, Z, Y, X) that were wrong nearby; another answer beside an error tells where it ends."""
    doubted = torch.zeros_like(wrong)
    for answer in set(answers[wrong].tolist()):
        same = answers == answer
        doubted |= same & _around(wrong & same)
    return doubted


def _around(wrong: Tensor) -> Tensor:
    """Widen a mask (B, K, Z, Y, X) to all voxels within a distance along each axis."""
    wide = wrong.float()
    for axis in (-1, -2, -3):
        kernel = [1, 1, 1]
        kernel[axis] = 2 * min(DOUBTED, wide.shape[axis] - 1) + 1
        wide = functional.max_pool3d(wide, kernel, stride=1, padding=[k // 2 for k in kernel])
    return wide > 0
