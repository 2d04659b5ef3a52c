"""The rule for the meaning of label 0, which is asked for where labels and images do not tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.data.meaning import understand
from napari_unetvnet.training.plan.choice import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["meaning"]


def meaning(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose the meaning of label 0 and the background value, if they are left open.

    Returns
    -------
    list of Decision

    Raises
    ------
    UnclearLabels
        If it cannot be told.
    """
    del device
    if "unlabelled" not in settings.left_open:
        return []
    found = understand(pairs, settings)
    decisions = [Decision("unlabelled", found.unlabelled, found.why_unlabelled)]
    if found.unlabelled == "ignore":
        decisions.append(Decision("background", found.background or 0, found.why_background))
    return decisions
