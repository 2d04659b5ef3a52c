"""The ways a tile is mirrored and turned before the network sees it.

A turned tile must bring the margin that the network wants in its own frame, so that in the image's frame the sides of
an axis that is mirrored are exchanged. Slabs are read with the widest margin of all, and each turn cuts out its own.
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
UNTURNED = CubePermutation()


def choose_orientations(
    model: Model, tile: Triple, spacing: Sequence[float], settings: SegmentSettings
) -> tuple[CubePermutation, ...]:
    """Give the ways in which each tile is seen.

    Parameters
    ----------
    model : Model
    tile : tuple of 3 int
        Its size z, y, x.
    spacing : 3 float
        Voxel size z, y, x, as the network sees the image.
    settings : SegmentSettings

    Returns
    -------
    tuple of CubePermutation
        The one that changes nothing first. Single planes are not mirrored along z, which would be the same again.

    Raises
    ------
    SettingsProblem
        If a tile is to be turned like a cube and is none, or its voxels are not, or the network sees planes.
    """
    if settings.tta != "rotations":
        single = model.card.view == "2d"
        axes = [axis for axis, name in enumerate(AXES) if name in settings.tta and not (single and axis == 0)]
        chosen = (flips for count in range(len(axes) + 1) for flips in combinations(axes, count))
        return tuple(CubePermutation(mirrored=flips) for flips in chosen)
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


def widest_margin(margin: Margin, turns: Sequence[CubePermutation]) -> Margin:
    """Give the margin that is enough for all turns.

    Parameters
    ----------
    margin : three pairs of int
        Voxels (before, after) on z, y, x that the network uses up.
    turns : sequence of CubePermutation

    Returns
    -------
    three pairs of int
    """
    each = [_margin_in_image(margin, turn) for turn in turns]
    z, y, x = ((max(m[axis][0] for m in each), max(m[axis][1] for m in each)) for axis in range(3))
    return z, y, x


def _margin_in_image(margin: Margin, turn: CubePermutation) -> Margin:
    """Give the margin of a turned tile on the axes and sides of the image."""
    found = [(0, 0)] * 3
    for axis, source in enumerate(turn.order):
        before, after = margin[axis]
        found[source] = (after, before) if axis in turn.mirrored else (before, after)
    return found[0], found[1], found[2]


def oriented_logits(
    model: Model, blocks: Tensor, brought: Margin, turn: CubePermutation, *, cascade: bool = True
) -> Tensor:
    """Run the network on tiles that are turned, and turn what it says back.

    Parameters
    ----------
    model : Model
    blocks : Tensor of shape (B, C, Z + mz, Y + my, X + mx)
    brought : three pairs of int
        Their margin, at least that of the turn.
    turn : CubePermutation
    cascade : bool
        As of `Model.logits`.

    Returns
    -------
    Tensor of shape (B, K, Z, Y, X)
    """
    for axis, ((has, _), own) in enumerate(zip(brought, _margin_in_image(model.margin, turn), strict=True)):
        surplus = sum(brought[axis]) - sum(own)
        blocks = blocks.narrow(2 + axis, has - own[0], blocks.shape[2 + axis] - surplus)
    if turn == UNTURNED:
        return model.logits(blocks, cascade=cascade)
    return permute(model.logits(permute(blocks, turn), cascade=cascade), inverse(turn))
