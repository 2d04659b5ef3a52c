"""The state of a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_unetvnet.training.processes import SINGLE, ProcessGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from napari_unetvnet.data.patches import Region, TrainingData
    from napari_unetvnet.losses.total import DeepSupervision
    from napari_unetvnet.model.card import ImageRecord
    from napari_unetvnet.model.fallback import MemoryFallback
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.fallback import StepOptions
    from napari_unetvnet.training.files import TrainingFiles
    from napari_unetvnet.training.prefetch import Prefetcher
    from napari_unetvnet.training.schedule import Schedule

__all__ = ["Best", "FinalFit", "Parent", "Run", "copied"]


def copied(network: nn.Module) -> dict[str, Tensor]:
    """Copy the weights of a network to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


@dataclass
class Best:
    """The best model so far: its weights on the CPU, its step and its Dice on the hold-out (None without one).

    Of equal scores the newest model is the best; ``reached`` is the step of the first one.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    dice: float | None = None
    reached: int = 0
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class FinalFit:
    """The best model after the final fit: its weights on the CPU, the steps that were added, and what it has learnt."""

    weights: dict[str, Tensor]
    steps: int
    images: tuple[ImageRecord, ...]


@dataclass
class Parent:
    """The model that a training started from.

    Parameters
    ----------
    name : str
        Name and sha256 of its file.
    path : str
        Its file.
    steps : int
        Steps that it was trained for.
    differences : tuple of str
        What keeps it from being compared with the new model; empty if it is a model of the same kind.
    start : Best or None
        Its weights, if they can be compared, with their score on the part of the hold-out that each epoch is scored on.
    whole : float or None
        Their score on the whole hold-out, once the training is over.
    fitted : bool
        Whether the weights that are started from are those before a final fit.
    """

    name: str
    path: str
    steps: int
    differences: tuple[str, ...] = ()
    start: Best | None = None
    whole: float | None = None
    fitted: bool = False


@dataclass
class Run:
    """A training.

    Parameters
    ----------
    scaler : torch GradScaler
        Does nothing unless the precision is fp16.
    ema : AveragedModel or None
        Exponential moving average of the weights, if the settings ask for it.
    fallback : MemoryFallback
        How a step is made to fit into memory.
    parent : Parent or None
        The model that the training started from.
    prefetcher : Prefetcher
        Draws batches; set by the loop.
    scored : list of Region
        The part of the hold-out that is scored after each epoch; set by the loop.
    curve : list of float
        The score of each epoch.
    final : Best or None
        The best model with its score on the whole hold-out, once the training is over.
    fitting : bool
        Whether the final fit has begun, so that the network is no longer that of the training.
    fitted : FinalFit or None
        Its result, if that is no worse.
    learn : Module
        Maps a part of a batch to its loss; set by the loop.
    group : ProcessGroup
        The processes of a distributed training.
    within_step : bool
        Whether a step is in progress.
    """

    files: TrainingFiles
    settings: TrainSettings
    data: TrainingData
    model: Model
    criterion: DeepSupervision
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    ema: AveragedModel | None
    fallback: MemoryFallback[StepOptions]
    parent: Parent | None = None
    best: Best = field(default_factory=Best)
    prefetcher: Prefetcher = field(init=False)
    scored: list[Region] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    final: Best | None = None
    fitting: bool = False
    fitted: FinalFit | None = None
    learn: nn.Module = field(init=False)
    group: ProcessGroup = SINGLE
    within_step: bool = False

    @property
    def keeps_parent(self) -> bool:
        """Whether no step has scored better than the model that the training started from."""
        return self.parent is not None and self.parent.start is not None and not (self.final or self.best).step
