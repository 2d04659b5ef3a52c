"""Ask what layers leave open before a training: what their first axis is, and which time points are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.meaning import Answer, Question
from napari_unetvnet.images.time_axis import listed_points
from napari_unetvnet.widgets.layer_axes import axes_of, first_axis_question, share_names, shown_point, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["layer_question"]


def layer_question(viewer: Any, images: Sequence[Any], labels: Sequence[Any], times: Sequence[str]) -> Question | None:
    """Find what must be asked about layers before a training.

    Parameters
    ----------
    images, labels : sequence of napari layer
        Those that are chosen.
    times : sequence of str
        The time points that are chosen.

    Returns
    -------
    Question or None
    """
    if not images:
        return None
    if (question := first_axis_question(images[0])) is not None:
        return question
    share_names(images[0], labels)
    axes = axes_of(images[0], series=True)
    if axes.time is None or times:
        return None
    count = axes.shape[axes.time]
    now = shown_point(viewer, images[0])
    answers = [Answer(f"the time point that is shown, {now}", {"time": str(now)})]
    painted = [t for t in range(count) if any(_is_painted(layer, t) for layer in labels)]
    if painted not in ([], [now]):
        chosen = " ".join(map(str, painted))
        answers.insert(0, Answer(f"the time points that have labels: {listed_points(painted)}", {"time": chosen}))
    answers.append(Answer(f"all {count} time points", {"time": ":"}))
    return Question(f"{images[0].name} has {count} time points. Which ones is the model trained on?", tuple(answers))


def _is_painted(layer: Any, point: int) -> bool:
    """Whether a labels layer has time points, and something is painted in one."""
    if not hasattr(layer, "selected_label"):
        return False  # no Labels layer
    axes = axes_of(layer, series=True)
    if axes.time is None or point >= axes.shape[axes.time]:
        return False
    return bool(np.asarray(whole(layer)[(slice(None),) * axes.time + (point,)]).any())
