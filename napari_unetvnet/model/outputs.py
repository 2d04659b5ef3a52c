"""A model that gives another output of its network in place of the logits, so that it is tiled and blended alike."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.errors import ModelProblem
from napari_unetvnet.model.model import Model
from napari_unetvnet.networks import OUTPUTS, available_outputs, owners_of
from napari_unetvnet.networks.base import by
from napari_unetvnet.networks.facts import voxel_bytes
from napari_unetvnet.networks.outputs import output_function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unetvnet.model.card import ModelCard

__all__ = ["OutputModel", "choose_outputs"]

FLOAT = 4
MOST_NAMES = 5


def choose_outputs(card: ModelCard, chosen: Sequence[str]) -> tuple[str, ...]:
    """Give the outputs to compute.

    Parameters
    ----------
    chosen : sequence of str
        Keys of `networks.OUTPUTS`; empty for all that the model has.

    Returns
    -------
    tuple of str
        In the order of the table.

    Raises
    ------
    ModelProblem
        If the model has none, or not all that are chosen.
    """
    available = available_outputs(card.network, card.option)
    missing = [what for what in chosen if what not in available]
    if available and not missing:
        return tuple(what for what in available if what in (chosen or available))
    lacks = f"has no {' and no '.join(missing)}" if missing else "computes nothing but its labels"
    has = f"; it has {' and '.join(available)}" if available else ""
    owners = [f"{what} of {_listed(names)}" for what in OUTPUTS if (names := owners_of(what))]
    raise ModelProblem(f"The model ({card.network}) {lacks}{has}. There are {'; '.join(owners)}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} networks, such as {names[0]}"


class OutputModel(Model):
    """A model whose `logits` are another output of its network, the channels of its parts one after the other.

    Parameters
    ----------
    model : Model
        Shares its network with this one.
    what : str
        One of `networks.available_outputs`.
    """

    def __init__(self, model: Model, what: str) -> None:
        self.wrappers, self.network, self.card = model.wrappers, model.network, model.card
        self.device, self.precision = model.device, model.precision
        self.what, self._output = what, output_function(what)

    @cached_property
    def parts(self) -> dict[str, int]:
        """The names of the parts of the output, and the channels of each."""
        if self.what == "reconstruction":  # known without computing a whole patch
            return {"image": self.card.channels}
        network, size = self.network.eval(), self.network.fit(self.network.smallest)
        with torch.inference_mode():
            parts = self._output(network, torch.zeros(1, self.card.in_channels, *size, device=self.device))
        return {name: part.shape[1] for name, part in parts.items()}

    @property
    def outputs(self) -> int:
        """Channels of all parts together."""
        return sum(self.parts.values())

    @cached_property
    def voxel_bytes(self) -> float:
        """Bytes that the network needs per voxel of a tile, with the parts at full size."""
        return voxel_bytes(self.network, self.device) + FLOAT * self.outputs

    def _inputs(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give the input that fits a size: for a reconstruction the one that the autoencoder branch is built for."""
        fitting = super()._inputs(size)
        if self.what != "reconstruction":
            return fitting
        patch = self.network.patch or fitting
        if any(a > b for a, b in zip(size, patch, strict=True)):
            raise ModelProblem(
                f"The autoencoder branch of the model takes tiles of {by(patch)} voxels, not {by(size)}; leave "
                "out tile."
            )
        return patch

    def logits(self, blocks: Tensor, *, cascade: bool = True) -> Tensor:
        """Run the network on blocks with their margin, and give the parts of the output.

        Parameters
        ----------
        blocks : Tensor of shape (B, C, Z + mz, Y + my, X + mx)
        cascade : bool
            Whether "main" of the levels is that of both stages of a two-stage network.

        Returns
        -------
        Tensor of shape (B, N, Z, Y, X), float32

        Raises
        ------
        OutOfMemory
            If the blocks do not fit on the device.
        RuntimeError
            If the network fails for another reason.
        """
        return self._run(blocks, lambda x: (torch.cat(self._parts_of(x, cascade=cascade), dim=1),))[0]

    def _parts_of(self, x: Tensor, *, cascade: bool) -> list[Tensor]:
        parts = self._output(self.network, x)
        if self.what == "levels" and self.network.two_stages and self.card.begins_with_object:
            parts["main"] = self.network.segmentation_logits(x, cascade=cascade)
        return [self._shown(part).float() for part in parts.values()]

    def _shown(self, part: Tensor) -> Tensor:
        """Cut the channels of the plane itself out of a reconstruction of neighbour planes."""
        if self.what != "reconstruction" or not self.card.context:
            return part
        return part.narrow(1, self.card.context * self.card.channels, self.card.channels)
