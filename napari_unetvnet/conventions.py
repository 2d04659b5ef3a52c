"""What the whole package agrees on: the ignored class index, the order of axes, and the types that settings share.

An image is an array ``(C, Z, Y, X)``, labels are ``(Z, Y, X)``, or ``(K, Z, Y, X)`` where classes may overlap; a 2D
image has ``Z = 1``. Sizes, spacings and positions are always in the order z, y, x.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

__all__ = [
    "IGNORE", "Device", "Edge", "Head", "Length", "Normalise", "Precision", "Scalar", "Size", "Spacing", "Triple",
    "View",
]  # fmt: skip

IGNORE = 255
"""The class index of voxels that no loss, metric or sampler may look at."""

View = Literal["2d", "2.5d", "3d"]
Head = Literal["binary", "multiclass", "multilabel"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Normalise = Literal["zscore", "percentile", "none"]
Edge = Literal["reflect", "symmetric", "edge"]
"""How an image continues beyond its border."""
Scalar = bool | int | float | str | tuple[float, ...]
"""The value of an option of a network or loss."""
Length = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(gt=1e-12, lt=1e12)]
Triple = tuple[Length, Length, Length]
"""Voxels z, y, x."""
Spacing = tuple[Size, Size, Size]
"""Edge lengths z, y, x of a voxel, in the unit of the image."""
