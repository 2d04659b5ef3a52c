"""Test-time augmentation: the orientations in which a tile is passed through the network.

The network needs its margin in the frame of the turned tile, so in the frame of the image the two sides of a mirrored
axis are exchanged. Slabs are read with the widest margin of all orientations, and each orientation crops its own.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.images.resample import LEAST_CHANGE
from napari_unetvnet.model.symmetry import CubePermutation, cube_permutations, inverse, permute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.model.model import Margin, Model
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["choose_orientations", "oriented_logits", "widest_margin"]

AXES = "zyx"
IDENTITY = CubePermutation()


def choose_orientations(
    model: Model, tile: Triple, spacing: Sequence[float], settings: SegmentSettings
) -> tuple[CubePermutation, ...]:
    """Give the orientations of each tile.

    Parameters
    ----------
    tile : tuple of 3 int
        Its size z, y, x.
    spacing : 3 float
        Voxel size z, y, x, as the network sees the image.

    Returns
    -------
    tuple of CubePermutation
        The identity first. Single planes are not mirrored along z, which would change nothing.

    Raises
    ------
    SettingsProblem
        If tiles are to be rotated, but tiles or voxels are no cubes, or the network is 2D.
    """
    if settings.tta != "rotations":
        single = model.card.view == "2d"
        axes = [axis for axis, name in enumerate(AXES) if name in settings.tta and not (single and axis == 0)]
        subsets = (flips for count in range(len(axes) + 1) for flips in combinations(axes, count))
        return tuple(CubePermutation(mirrored=flips) for flips in subsets)
    if model.card.dims != 3:
        raise SettingsProblem(
            f"tta=rotations is for view 3d only, and the model's view is {model.card.view}; choose axes to mirror."
        )
    if len(set(tile)) > 1:
        size = " x ".join(map(str, tile))
        raise SettingsProblem(
            f"tta=rotations needs tiles with three equal edges, not {size} voxels; choose one, or axes to mirror."
        )
    if max(spacing) > LEAST_CHANGE * min(spacing):
        size = " x ".join(f"{edge:g}" for edge in spacing)
        raise SettingsProblem(f"tta=rotations needs voxels with three equal edges, not {size}; choose axes to mirror.")
    return cube_permutations()


def widest_margin(margin: Margin, orientations: Sequence[CubePermutation]) -> Margin:
    """Give the margin that is enough for all orientations.

    Parameters
    ----------
    margin : three pairs of int
        Voxels (before, after) on z, y, x that the network consumes.

    Returns
    -------
    three pairs of int
    """
    margins = [_margin_in_image(margin, orientation) for orientation in orientations]
    z, y, x = ((max(m[axis][0] for m in margins), max(m[axis][1] for m in margins)) for axis in range(3))
    return z, y, x


def _margin_in_image(margin: Margin, orientation: CubePermutation) -> Margin:
    """Give the margin of a turned tile along the axes of the image."""
    in_image = [(0, 0)] * 3
    for axis, source in enumerate(orientation.order):
        before, after = margin[axis]
        in_image[source] = (after, before) if axis in orientation.mirrored else (before, after)
    return in_image[0], in_image[1], in_image[2]


def oriented_logits(
    model: Model, blocks: Tensor, margin: Margin, orientation: CubePermutation, *, cascade: bool = True
) -> Tensor:
    """Run the network on turned tiles, and turn the logits back.

    Parameters
    ----------
    blocks : Tensor of shape (B, C, Z + mz, Y + my, X + mx)
    margin : three pairs of int
        Margin of the blocks, at least that of the orientation.
    cascade : bool
        As of `Model.logits`.

    Returns
    -------
    Tensor of shape (B, K, Z, Y, X)
    """
    for axis, (wide, own) in enumerate(zip(margin, _margin_in_image(model.margin, orientation), strict=True)):
        surplus = sum(wide) - sum(own)
        blocks = blocks.narrow(2 + axis, wide[0] - own[0], blocks.shape[2 + axis] - surplus)
    if orientation == IDENTITY:
        return model.logits(blocks, cascade=cascade)
    return permute(model.logits(permute(blocks, orientation), cascade=cascade), inverse(orientation))
