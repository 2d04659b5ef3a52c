"""Target maps: what a loss may ask for besides classes, computed from the labels; a row each.

A loss declares a need by name (``@needs("separation")``). The row of that name says how the map is computed, how
patches of it are cut and augmented, how it reaches the loss, and how the panel shows it: sampling, training, planning
and preview read it here, and a new map is one row and one function. A need that is no row is an output of a network.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.losses import loss_needs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.settings import TrainSettings

__all__ = ["TARGET_MAPS", "TargetMap", "for_loss", "needed_maps"]


@dataclass(frozen=True, kw_only=True)
class TargetMap:
    """How a map is computed, cut, augmented, used and shown.

    Parameters
    ----------
    help : str
        A sentence for the reference.
    function : str
        ``"module:function"``: ``(labels (C, Z, Y, X), target, settings) -> map``, with the target as `make_target`
        returns it. The map is float32. Its values must be finite, also at ignored voxels, and must not depend on
        directions, as they are mirrored with the image.
    use : {"weight", "map"}
        Whether it is multiplied into the weight of each voxel, in all terms of the loss, or reaches those that ask for
        it as ``prepared.maps[name]``.
    channels : int, optional
        C', where a map is no weight and has several values for a voxel.
    spacing : bool
        Whether the function takes the voxel edge lengths z, y, x as a fourth argument.
    margin : int, optional
        Voxels around a voxel that decide its value. The map is then computed part by part; without it, from the whole
        image in memory.
    interpolation : {"nearest", "linear"}
        How rotation, scaling and bending resample it.
    outside : float
        Its value beyond the image.
    lengths : bool
        Whether values are lengths in voxels, which grow where a patch is enlarged.
    preview : {"weights", "shares"}, optional
        How the panel shows it: on the scale of its own values, or from 0 to 1 and empty at ignored voxels. Without it
        it is not shown.
    """

    help: str
    function: str
    use: Literal["weight", "map"] = "map"
    channels: int | None = None
    spacing: bool = False
    margin: int | None = None
    interpolation: Literal["nearest", "linear"] = "nearest"
    outside: float = 0.0
    lengths: bool = False
    preview: Literal["weights", "shares"] | None = "weights"

    def shape(self, voxels: Sequence[int]) -> tuple[int, ...]:
        """Give the shape of the map of an image with so many voxels z, y, x."""
        return tuple(voxels) if self.channels is None else (self.channels, *voxels)

    def compute(
        self,
        labels: NDArray[Any],
        target: NDArray[np.uint8],
        settings: TrainSettings,
        spacing: Spacing = (1.0, 1.0, 1.0),
    ) -> NDArray[np.float32]:
        """Compute the map of an image or of a part of it.

        Parameters
        ----------
        labels : integer array of shape (C, Z, Y, X)
            As painted.
        target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
            From `make_target`.
        spacing : tuple of 3 float
            Voxel edge lengths z, y, x.

        Returns
        -------
        array of float32, shape (Z, Y, X) or (C', Z, Y, X)

        Raises
        ------
        TypeError
            If the function returned another type or shape.
        """
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        more = (spacing,) if self.spacing else ()
        values: NDArray[np.float32] = function(labels, target, settings, *more)
        if values.dtype != np.float32 or values.shape != self.shape(labels.shape[1:]):
            msg = f"{self.function} returned {values.dtype} {values.shape}, not float32 {self.shape(labels.shape[1:])}"
            raise TypeError(msg)
        return values


TARGET_MAPS: Mapping[str, TargetMap] = {
    "separation": TargetMap(
        help="Weights of the U-Net paper: more where the gap between two objects is narrow, and for what is rare.",
        function="napari_unetvnet.data.targets.weight_map:separation",
        use="weight",
        spacing=True,
    ),
}


def needed_maps(settings: TrainSettings) -> dict[str, TargetMap]:
    """Find the rows that the loss asks for."""
    return {need: TARGET_MAPS[need] for need in loss_needs(settings.loss) if need in TARGET_MAPS}


def for_loss(maps: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Divide the maps of a batch into a weight and what reaches the loss by name.

    Parameters
    ----------
    maps : mapping of str to Tensor, shape (B, Z, Y, X) or (B, C', Z, Y, X)

    Returns
    -------
    weight : Tensor of shape (B, Z, Y, X), or None
        The product of all that are weights; None if none is.
    named : dict of str to Tensor
        The others.
    """
    weights = [values for name, values in maps.items() if TARGET_MAPS[name].use == "weight"]
    named = {name: values for name, values in maps.items() if TARGET_MAPS[name].use == "map"}
    return (reduce(mul, weights) if weights else None), named
