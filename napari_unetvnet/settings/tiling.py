"""How an image is cut into tiles, and how their results are blended."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_unetvnet.conventions import Triple
from napari_unetvnet.settings.base import ComputeSettings

__all__ = ["Blending", "TilingSettings"]

Blending = Literal["gaussian", "constant", "centre"]


class TilingSettings(ComputeSettings):
    """How an image is cut into tiles, and how their results are blended."""

    tile: Triple | None = None
    """Tile size z y x in voxels (default: the largest that fits into tile_memory, the whole image if possible)."""
    tile_memory: float | None = Field(None, gt=0)
    """Memory for a tile, its sums and its results in GiB (default: a quarter of the total, on a CPU at most 1)."""
    overlap: float = Field(0.25, ge=0, le=0.9)
    """Overlap of neighbouring tiles, as a fraction of a tile."""
    blending: Blending = "gaussian"
    """Blending of overlapping tiles: Gaussian weights, constant weights, or each voxel from the tile with nearest
    centre."""
    mirror_edge: Literal["reflect", "symmetric"] = "reflect"
    """How the image continues beyond its border, for networks that need more context: mirrored without repeating the
    border voxel, as in training, or with it."""
    batch: int = Field(1, ge=1, le=1024)
    """Number of tiles per forward pass."""
    resample: bool = True
    """Resample an image whose voxel size differs from the model's; the result is on the image's own grid in any
    case."""
