"""U-Net++: the space between encoder and decoder is filled with nodes, and each node of the top row has a head."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs
from napari_unetvnet.networks.blocks import conv, conv_stack, max_pool, transposed_conv
from napari_unetvnet.networks.unet import stage_widths

__all__ = ["UNetPP"]


class UNetPP(SegmentationNetwork):
    """U-Net++: nested skips and a head on each branch, so that inference may stop early.

    Node ``X(i, j)`` at level i has two convolutions to ``width * 2**i`` channels. ``X(i, 0)`` reads the pooled
    ``X(i-1, 0)``, any other one ``X(i, 0) ... X(i, j-1)`` and the doubled ``X(i+1, j-1)``. Branch j is the head on
    ``X(0, j)``. Weights do not depend on ``inference`` and ``branch``: a trained network can be loaded with another
    choice. There is no generic ``deep_supervision`` option, because supervising the branches at full size is what this
    network is about: training sees as auxiliary logits every branch that is not already the output. Deviations: the
    accurate mode averages logits where the paper averages what the activation gives; 3D is ours.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level; they double at each level.
    depth : int
        Number of levels, poolings + 1; sizes must be multiples of ``2**(depth-1)``.
    norm : bool
        Whether each convolution has a batch norm.
    up : {"deconv", "interpolation"}
        Up-step: a 2-wide transposed convolution, or linear doubling that keeps the channels.
    supervision : bool
        Whether each branch has a head, or only the last one.
    inference : {"accurate", "fast"}
        Mean of all heads, or one branch, for which the nodes of the later ones are not computed.
    branch : int
        The branch of fast inference: 1 is the smallest, ``depth - 1`` the last; 0 means the last.

    References
    ----------
    .. [1] Zhou et al. 2018, UNet++, https://arxiv.org/abs/1807.10165
    """

    gives = (("levels", "supervision"),)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        depth: int = 5,
        norm: bool = False,
        up: Literal["deconv", "interpolation"] = "deconv",
        supervision: bool = True,
        inference: Literal["accurate", "fast"] = "accurate",
        branch: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        widths = stage_widths(width, depth)
        self.depth = depth
        self.branches = tuple(range(1, depth)) if supervision else (depth - 1,)
        self.fast = inference == "fast"
        self.branch = self._checked(branch)
        self.pool = max_pool(dims)
        self.nodes, self.ups = nn.ModuleDict(), nn.ModuleDict()
        for i, (inputs, w) in enumerate(pairwise([in_channels, *widths])):
            self.nodes[f"{i}_0"] = conv_stack(dims, (inputs, w, w), padding=1, norm=norm)
            for j in range(1, depth - i):
                self.ups[f"{i}_{j}"] = transposed_conv(dims, 2 * w, w) if up == "deconv" else _linear_doubling(dims)
                joined = j * w + (w if up == "deconv" else 2 * w)
                self.nodes[f"{i}_{j}"] = conv_stack(dims, (joined, w, w), padding=1, norm=norm)
        self.heads = nn.ModuleDict({str(j): conv(dims, width, classes, kernel=1) for j in self.branches})
        self.initialise()

    def _checked(self, branch: int) -> int:
        """Give the branch that is meant, or refuse it."""
        if branch == 0 or branch in self.branches:
            return branch or self.depth - 1
        offered = ", ".join(map(str, self.branches))
        raise SettingsProblem(f"UNetPP has no head on branch {branch}; choose 0 (the last) or one of: {offered}.")

    @property
    def divisor(self) -> tuple[int, ...]:
        """One pooling cell."""
        return (2 ** (self.depth - 1),) * self.dims

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        top_row = self._top_row(x, self.branch if self.fast else self.depth - 1)
        return self._chosen({self.branch: self._head(top_row, self.branch)} if self.fast else self._heads(top_row))

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, and those of each branch that is not already the output, the last branch first.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        heads = self._heads(self._top_row(x, self.depth - 1))
        shown = {self.branch} if self.fast or len(heads) == 1 else set()
        auxiliary = tuple(heads[j] for j in reversed(self.branches) if j not in shown)
        return TrainingOutputs(self._chosen(heads), auxiliary)

    def level_logits(self, x: Tensor) -> dict[str, Tensor]:
        """Give the logits of the output, "main", and of each branch, from the smallest network to the largest.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        dict of str to Tensor of shape (B, K, *S)
        """
        heads = self._heads(self._top_row(x, self.depth - 1))
        return {"main": self._chosen(heads)} | {f"branch{j}": logits for j, logits in heads.items()}

    def _top_row(self, x: Tensor, last: int) -> list[Tensor]:
        """Give X(0, 0) ... X(0, last), computing no node that they do not need."""
        self.check_size(x)
        rows: list[list[Tensor]] = []
        for bottom in range(last + 1):
            rows.append([self.nodes[f"{bottom}_0"](self.pool(rows[-1][0]) if bottom else x)])
            for j in range(1, bottom + 1):  # the diagonal from the new level up to the top row
                i = bottom - j
                doubled = self.ups[f"{i}_{j}"](rows[i + 1][j - 1])
                rows[i].append(self.nodes[f"{i}_{j}"](torch.cat([*rows[i], doubled], dim=1)))
        return rows[0]

    def _head(self, top_row: list[Tensor], j: int) -> Tensor:
        logits: Tensor = self.heads[str(j)](top_row[j])
        return logits

    def _heads(self, top_row: list[Tensor]) -> dict[int, Tensor]:
        return {j: self._head(top_row, j) for j in self.branches}

    def _chosen(self, heads: dict[int, Tensor]) -> Tensor:
        """Reduce the heads' logits to the output."""
        return heads[self.branch] if self.fast else torch.stack(list(heads.values())).mean(dim=0)


def _linear_doubling(dims: int) -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear" if dims == 2 else "trilinear", align_corners=False)
