"""Forward pass and loss of a part of a batch, in one process or several.

With several, each runs the network on its share of the patches. The outputs are gathered, and each process computes the
loss of all patches, because a batch Dice is not the mean of the Dice of its shares. Gradients flow back only through a
process's own share, and their sum over the processes is the gradient of a single process. DistributedDataParallel
averages them instead, so the loss must be multiplied by the number of processes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from napari_unetvnet.data.targets import for_loss
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs
from napari_unetvnet.training.batch_norm import SYNCHRONISED

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.data.patches import Batch
    from napari_unetvnet.losses.total import DeepSupervision
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.training.distillation import Teacher
    from napari_unetvnet.training.processes import ProcessGroup

__all__ = ["accumulating", "learner"]

LOSS_OUTPUTS = {"attention", "reconstruction"}
"""Outputs that a network has and a loss may leave out."""


NDIM_OF_INDICES = 4
"""Axes of a target of class indices, (B, Z, Y, X); others have a channel for each class."""


class _Learner(nn.Module):
    """The loss as a function of a part of the batch."""

    def __init__(self, model: Model, criterion: DeepSupervision, group: ProcessGroup, teacher: Teacher | None) -> None:
        super().__init__()
        self.network = model.network  # where DistributedDataParallel finds the parameters
        self._model, self._criterion, self._group, self._teacher = model, criterion, group, teacher

    def forward(self, part: Batch) -> Tensor:
        """Compute the loss of the part; the same in all processes."""
        images, group, objects = part.images, self._group, _objects(part.target, self.network)
        if group.distributed:
            share = group.share(len(images))
            outputs, inputs = self._model.supervised(images[share], None if objects is None else objects[share])
        else:
            outputs, inputs = self._model.supervised(images, objects)
        if group.distributed:
            outputs, inputs = self._gathered(outputs, len(images)), group.gather(inputs, len(images))
        weight, maps = for_loss(part.maps)
        loss = self._criterion(outputs, part.target, weight, inputs, maps)
        if self._teacher is not None:
            loss = loss + self._teacher.loss(images, outputs.logits, part.target)
        return loss

    def _gathered(self, outputs: TrainingOutputs, count: int) -> TrainingOutputs:
        """Gather the outputs of all processes."""

        def gather(tensor: Tensor) -> Tensor:
            return self._group.gather(tensor, count)

        return TrainingOutputs(
            gather(outputs.logits),
            auxiliary=tuple(map(gather, outputs.auxiliary)),
            attention=tuple(map(gather, outputs.attention)),
            reconstruction=None if outputs.reconstruction is None else gather(outputs.reconstruction),
            latent=None if outputs.latent is None else (gather(outputs.latent[0]), gather(outputs.latent[1])),
            roi=None if outputs.roi is None else gather(outputs.roi),
        )


def _objects(target: Tensor, network: SegmentationNetwork) -> Tensor | None:
    """Give the voxels with an object of any class (B, Z, Y, X), for a network that looks for their region."""
    if not network.two_stages:
        return None
    return (target == 1).any(dim=1) if target.ndim > NDIM_OF_INDICES else target == 1


def learner(model: Model, criterion: DeepSupervision, group: ProcessGroup, teacher: Teacher | None = None) -> nn.Module:
    """Build the module that maps a part of a batch to its loss.

    Parameters
    ----------
    model : Model
        With several processes on GPUs, its batch norms are synchronised.
    teacher : Teacher, optional
        Is followed where nothing is painted.

    Returns
    -------
    Module
        Takes a Batch of tensors and returns a scalar.
    """
    if not group.distributed:
        return _Learner(model, criterion, group, teacher)
    if model.device.type != "cpu":
        model.wrappers.add(SYNCHRONISED)
    # DistributedDataParallel ignores parameters that are frozen when it is built, but they may be unfrozen later.
    trainable = {parameter: parameter.requires_grad for parameter in model.network.parameters()}
    model.network.requires_grad_(True)
    parallel = DistributedDataParallel(
        _Learner(model, criterion, group, teacher), find_unused_parameters=_may_lack_gradients(model.network, criterion)
    )
    for parameter, flag in trainable.items():
        parameter.requires_grad_(flag)
    return parallel


def _may_lack_gradients(network: SegmentationNetwork, criterion: DeepSupervision) -> bool:
    """Whether some parameters may have no gradient: frozen stages, or heads without a loss."""
    freezes = type(network).freeze_for is not SegmentationNetwork.freeze_for
    has_unused_parts = not LOSS_OUTPUTS.isdisjoint(dict(network.gives))
    return freezes or has_unused_parts or not criterion.roi_weight or 0 in criterion.level_weights


def accumulating(learn: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Skip the exchange of gradients between processes for all but the last part of a batch.

    Parameters
    ----------
    learn : Module
        From `learner`.
    last : bool
        Whether this is the last part of the batch.

    Returns
    -------
    context manager
        For the forward and the backward pass.
    """
    return learn.no_sync() if isinstance(learn, DistributedDataParallel) and not last else nullcontext()
