"""The rule for the voxels whose intensities are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.training.plan.choice import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["normalise_in"]


def normalise_in(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Say that a frame is left out where there is one; without one, the default measures the same as "all"."""
    del settings, device
    share = max(intensity(pair.image, "none", "content").left_out for pair in pairs)
    if not share:
        return []
    return [Decision("normalise_in", "content", f"up to {share:.1%} of an image has the one value of its border")]
