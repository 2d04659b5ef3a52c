"""What every network promises, so that training and inference can treat all of them alike.

A network is built from ``(dims, in_channels, classes)`` and its options, which are keywords or a dataclass, returns
logits and never an activation, and says which input sizes it takes: `fit` gives the next size it accepts, `margin` how
many voxels of context its valid convolutions or invalid borders use up. Its caller (`model.Model`) pads, crops and
applies the activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from napari_unetvnet.errors import DataProblem, SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from napari_unetvnet.conventions import OptionValue

__all__ = ["SegmentationNetwork", "TrainingOutputs"]


@dataclass(frozen=True)
class TrainingOutputs:
    """What a network gives to training.

    Parameters
    ----------
    logits : Tensor of shape (B, K, *S)
        The same as `forward` returns.
    auxiliary : tuple of Tensor of shape (B, K, *S)
        Logits of deeper levels at full size, the finest first, for deep supervision.
    attention : tuple of Tensor of shape (B, 1, *S')
        Attention maps in [0, 1], each at the size of its level.
    reconstruction : Tensor of shape (B, C, *S) or None
        The input as an autoencoder branch gives it back.
    latent : (mean, log_variance) or None
        Of the autoencoder branch, each of shape (B, N).
    roi : Tensor of shape (B, K, *S) or None
        Logits of a head that looks at a region of interest, put back in place.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] = ()
    reconstruction: Tensor | None = None
    latent: tuple[Tensor, Tensor] | None = None
    roi: Tensor | None = None


class SegmentationNetwork(nn.Module):
    """A network that maps ``(B, C, *S)`` to logits ``(B, K, *S)``.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        C and K, at least 1 each.

    Raises
    ------
    SettingsProblem
        If the network has no form in ``dims`` dimensions, or a channel count is below 1.
    """

    supported_dims: tuple[int, ...] = (2, 3)
    gives: tuple[tuple[str, str], ...] = ()
    """What there is besides logits, by the names of `networks.OUTPUTS`, and the option that turns it on, if any."""
    two_stages: bool = False
    """Whether the network segments the image first, and then the region of the object in its first channel."""
    inference_options: tuple[str, ...] = ()
    """Options that can be changed after the training."""
    patch_options: tuple[str, ...] = ()
    """Options for the training patch z, y, x of a network that is built for one size, 0 for that of the training."""
    patch: tuple[int, ...] | None = None
    """The only patch that the network can be trained on, or None for any."""

    pretrained: tuple[str, ...] = ()
    """Modules whose weights are of a file of pretrained weights."""

    def __init__(self, dims: int, in_channels: int, classes: int) -> None:
        super().__init__()
        if dims not in self.supported_dims:
            raise SettingsProblem(f"{type(self).__name__} has no {dims}D form, only {self.supported_dims}.")
        if in_channels < 1 or classes < 1:
            raise SettingsProblem(f"A network needs at least 1 input and 1 output, not {in_channels} and {classes}.")
        self.dims = dims
        self.in_channels = in_channels
        self.classes = classes

    @classmethod
    def options_for(
        cls, option: Mapping[str, OptionValue], patch: Sequence[int], learns_from: Collection[str]
    ) -> dict[str, OptionValue]:
        """Complete the options that follow from the training; most networks have none.

        Parameters
        ----------
        option : mapping of str to value
            The chosen ones.
        patch : 3 int
            Training patch, voxels z, y, x.
        learns_from : collection of str
            What the loss needs besides logits and labels.

        Returns
        -------
        dict
        """
        del patch, learns_from
        return dict(option)

    @property
    def divisor(self) -> tuple[int, ...]:
        """What each input axis must be a multiple of."""
        return (1,) * self.dims

    @property
    def margin(self) -> tuple[tuple[int, int], ...]:
        """Input voxels before and after that an axis loses before its output is valid."""
        return ((0, 0),) * self.dims

    @property
    def alignment(self) -> tuple[int, ...]:
        """What tile offsets must be multiples of for stitched output to equal one whole pass (1: any offset)."""
        return (1,) * self.dims

    @property
    def smallest(self) -> tuple[int, ...]:
        """The smallest input the network takes."""
        return self.divisor

    def fit(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give the smallest accepted input that is at least as large as a size."""
        return tuple(-(-n // d) * d for n, d in zip(size, self.divisor, strict=True))

    def segmentation_logits(self, x: Tensor, *, cascade: bool = True) -> Tensor:
        """Give the logits that labels are made of; in networks with two stages, those of both, at their thresholds.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)
        cascade : bool
            Whether a network with two stages runs the second one.

        Returns
        -------
        Tensor of shape (B, K, *S)
        """
        del cascade
        out: Tensor = self(x)
        return out

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, and whatever else a network offers its loss.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        return TrainingOutputs(self(x))

    def level_logits(self, x: Tensor) -> dict[str, Tensor]:
        """Give the logits of each level that has a head, "main" first.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        dict of str to Tensor of shape (B, K, *S)
        """
        outputs = self.training_outputs(x)
        return {"main": outputs.logits} | {f"level{i}": part for i, part in enumerate(outputs.auxiliary, start=1)}

    def attention_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give the attention maps, the finest first.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        tuple of Tensor of shape (B, 1, *S')
            In [0, 1]; each covers the whole input.
        """
        return self.training_outputs(x).attention

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Give tensors between the stages, by name; none in most networks.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        dict of str to Tensor of shape (B, C', *S')
            Each covers the whole input.
        """
        del x
        return {}

    def outputs_with_objects(self, x: Tensor, objects: Tensor | None) -> TrainingOutputs:
        """Give the outputs for training where the labels are known; only networks with two stages look at them.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)
        objects : Tensor of bool, shape (B, *S), or None
            Where the objects of the labels are; None where no output channel is an object.

        Returns
        -------
        TrainingOutputs
        """
        del objects
        return self.training_outputs(x)

    def freeze_for(self, epoch: int) -> None:
        """Freeze what should not be trained in an epoch; most networks freeze nothing.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        """

    def check_size(self, x: Tensor) -> None:
        """Refuse an input of a size that does not fit, and say which would.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Raises
        ------
        DataProblem
            If an axis is too short or no multiple of the divisor, or too small to be trained on alone.
        """
        size = tuple(x.shape[2:])
        fits = self.fit(tuple(max(a, b) for a, b in zip(size, self.smallest, strict=True)))
        if size != fits:
            raise DataProblem(
                f"{type(self).__name__} takes no input of {by(size)} voxels; the next size that fits is {by(fits)}."
            )
        if self.training and len(x) == 1 and size == self.smallest and self._normalises_over_the_batch():
            raise DataProblem(
                f"One patch of {by(size)} voxels leaves a single voxel at the bottom of {type(self).__name__}, which "
                "batch norm cannot train on; choose a larger patch or a batch of at least 2."
            )

    def _normalises_over_the_batch(self) -> bool:
        return any(isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) for layer in self.modules())

    def initialise(self) -> None:
        """Draw all convolution weights by He's rule for ReLU and set biases to 0."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return  # only shapes are needed; torch would load its compiler to draw numbers without memory
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def by(size: Sequence[int]) -> str:
    """Write a size as ``512 x 512``."""
    return " x ".join(str(n) for n in size)
