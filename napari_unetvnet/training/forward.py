"""Forward pass and loss of a part of a batch, by one process or by several.

Of several, each runs the network on its share of the patches. Their outputs are put together, and each computes the
loss of the whole: a Dice over the batch is no mean of those of its shares. The gradient goes back through the process's
own share only, and the sum of all is the gradient that one process would have. DistributedDataParallel takes their
mean, so the loss is to be multiplied by their number before.
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
    from napari_unetvnet.training.processes import ProcessGroup

__all__ = ["learner", "own_gradients"]


class _Learner(nn.Module):
    """The loss as a function of a part of the batch."""

    def __init__(self, model: Model, criterion: DeepSupervision, group: ProcessGroup) -> None:
        super().__init__()
        self.network = model.network  # where DistributedDataParallel finds the parameters
        self._model, self._criterion, self._group = model, criterion, group

    def forward(self, part: Batch) -> Tensor:
        """Give the loss of the whole part; the same in all processes."""
        images, group = part.images, self._group
        outputs, seen = self._model.supervised(images[group.share(len(images))] if group.distributed else images)
        if group.distributed:
            outputs, seen = self._whole(outputs, len(images)), group.gather(seen, len(images))
        weight, maps = for_loss(part.maps)
        return self._criterion(outputs, part.target, weight, seen, maps)

    def _whole(self, outputs: TrainingOutputs, count: int) -> TrainingOutputs:
        """Put the outputs of all processes together."""

        def whole(tensor: Tensor) -> Tensor:
            return self._group.gather(tensor, count)

        return TrainingOutputs(
            whole(outputs.logits),
            auxiliary=tuple(map(whole, outputs.auxiliary)),
            attention=tuple(map(whole, outputs.attention)),
            reconstruction=None if outputs.reconstruction is None else whole(outputs.reconstruction),
            latent=None if outputs.latent is None else (whole(outputs.latent[0]), whole(outputs.latent[1])),
            roi=None if outputs.roi is None else whole(outputs.roi),
        )


def learner(model: Model, criterion: DeepSupervision, group: ProcessGroup) -> nn.Module:
    """Make what maps a part of a batch to its loss.

    Parameters
    ----------
    model : Model
        Of several processes on GPUs, its batch norms are changed so that they normalise over the patches of all.
    criterion : DeepSupervision
    group : ProcessGroup

    Returns
    -------
    Module
        Takes a Batch of tensors and gives a scalar.
    """
    if not group.distributed:
        return _Learner(model, criterion, group)
    if model.device.type != "cpu":
        model.wrappers.add(SYNCHRONISED)
    # What is frozen now may be released later, and only what can learn at this moment is reduced.
    learns = {parameter: parameter.requires_grad for parameter in model.network.parameters()}
    model.network.requires_grad_(True)
    made = DistributedDataParallel(
        _Learner(model, criterion, group), find_unused_parameters=_may_idle(model.network, criterion)
    )
    for parameter, flag in learns.items():
        parameter.requires_grad_(flag)
    return made


def _may_idle(network: SegmentationNetwork, criterion: DeepSupervision) -> bool:
    """Whether there may be parameters without a gradient: stages that are frozen, or heads that no loss looks at."""
    freezes = type(network).freeze_for is not SegmentationNetwork.freeze_for
    return freezes or bool(network.gives) or not criterion.roi_weight or 0 in criterion.level_weights


def own_gradients(learn: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Say whether gradients are still to be added up before they are exchanged.

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
