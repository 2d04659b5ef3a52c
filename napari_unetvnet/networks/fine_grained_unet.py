"""Big and tiny objects by one network applied twice: to the image, then to the enlarged region of the big object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.backboned_unet import BackbonedUNet
from napari_unetvnet.networks.base import TrainingOutputs
from napari_unetvnet.networks.blocks import conv
from napari_unetvnet.networks.encoder_options import EncoderName, EncoderOptions
from napari_unetvnet.networks.roi import crop, foreground_square, paste, whole

__all__ = ["FineGrainedOptions", "FineGrainedUNet"]

ABSENT_LOGIT = -8.0
"""The logit of tiny objects outside the region, where the second pass has no output."""
MIN_LOGIT = 1e-3
"""The smallest magnitude of a logit; 0 itself would count as present."""


@dataclass(frozen=True)
class FineGrainedOptions(EncoderOptions):
    """The options of a network on an encoder, and how it finds the region of the big object.

    Parameters
    ----------
    roi_threshold : float
        Score of the big object from which a voxel is foreground, and of the tiny ones in `cascade`.
    roi_margin : int
        Voxels between the big object's box and the edge of its square.

    Raises
    ------
    SettingsProblem
        If a number is out of its range.
    """

    encoder: Literal["darknet52", EncoderName] = "darknet52"
    roi_threshold: float = 0.3
    roi_margin: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.roi_threshold < 1 or self.roi_margin < 0:
            raise SettingsProblem(
                f"A region needs a threshold between 0 and 1, not {self.roi_threshold}, "
                f"and a margin >= 0, not {self.roi_margin}."
            )


class FineGrainedUNet(BackbonedUNet):
    """U-Net with two heads: one for the image, one for the enlarged region of the big object.

    The first output channel is the big object, the others are tiny ones. `forward` gives the image head's logits;
    `roi_logits` gives the tiny channels of a region that `roi.crop` has cut out and enlarged; `cascade` does one
    after the other and puts the region's result back, and `segmentation_logits` are its logits.

    Deviations: the source trains the region head on the true region, which a network does not know;
    `training_outputs` takes the region that the image head finds (the whole image if it finds none) and gives the
    region head's logits, put back in place, as the first auxiliary logits. A loop that has the true region can call
    `roi_logits` itself. With one output channel the region head gives that channel again.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.

    References
    ----------
    .. [1] AmberzzZZ, unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """

    options: FineGrainedOptions

    def __init__(self, dims: int, in_channels: int, classes: int, options: FineGrainedOptions) -> None:
        super().__init__(dims, in_channels, classes, options)
        self.tiny = max(1, classes - 1)
        self.roi_head = conv(dims, self.level_widths["decoder0"], self.tiny, padding=1)
        nn.init.kaiming_normal_(self.roi_head.get_parameter("weight"), nonlinearity="relu")
        nn.init.zeros_(self.roi_head.get_parameter("bias"))

    def roi_logits(self, x: Tensor) -> Tensor:
        """Give the tiny channels of regions that were cut out and enlarged.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        Tensor of shape (B, K - 1, *S)
            One channel if K is 1.
        """
        out: Tensor = self.roi_head(self.levels(x)["decoder0"])
        return out

    def places(self, logits: Tensor) -> list[tuple[slice, ...] | None]:
        """Find the region of each image from the image head's logits.

        Parameters
        ----------
        logits : Tensor of shape (B, K, *S)

        Returns
        -------
        list of tuple of slice, or None where there is no foreground
        """
        big = logits[:, 0].detach().sigmoid() > self.options.roi_threshold
        squares = [foreground_square(mask, self.options.roi_margin) for mask in big]
        return [None if square is None else square.within(logits.shape[2:]) for square in squares]

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the image head's logits, those of the region's head put back in place, and those of deeper levels.

        Around the region, and in the channels that it does not have, the region's logits are the image head's, cut off
        from its gradient: a loss on them trains only the region's head.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        levels = self.levels(x)
        logits = self.logits(levels)
        places = [whole(x.shape[2:]) if place is None else place for place in self.places(logits)]
        tiny = self.roi_logits(torch.cat([crop(x[i : i + 1], place) for i, place in enumerate(places)]))
        constant = logits.detach()
        around = constant[:, self.classes - self.tiny :]
        pasted = [paste(tiny[i : i + 1], place, around[i : i + 1]) for i, place in enumerate(places)]
        refined = torch.cat([constant[:, : self.classes - self.tiny], torch.cat(pasted)], dim=1)
        return TrainingOutputs(logits, self.auxiliary(levels), roi=refined)

    def cascade(self, x: Tensor) -> Tensor:
        """Segment the image, then the region of its big object, and put the tiny objects found there back.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        Tensor of bool, shape (B, K, *S)
            Multi-label: big, then tiny. Without a big object there are no tiny ones.
        """
        return self._two_passes(x)[1]

    def segmentation_logits(self, x: Tensor) -> Tensor:
        """Give logits that are at least 0 exactly where `cascade` finds something.

        Those of the image head for the big object and those of the region's head, put back in place, for the tiny ones,
        both less the logit of the threshold. Outside the region there is nothing tiny.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        Tensor of shape (B, K, *S)
        """
        logits, present = self._two_passes(x)
        # Pasting interpolates logits and masks separately, so that their signs may differ at the edge of an object.
        return torch.where(present, logits.clamp(min=MIN_LOGIT), logits.clamp(max=-MIN_LOGIT))

    def _two_passes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give the logits of both passes, less that of the threshold, and which objects are where, each (B, K, *S)."""
        first, threshold = self(x), self.options.roi_threshold
        shift, tiny = math.log(threshold / (1 - threshold)), slice(self.classes - self.tiny, None)
        present = torch.zeros_like(first, dtype=torch.bool)
        present[:, 0] = first[:, 0].sigmoid() > threshold
        logits = torch.full_like(first, ABSENT_LOGIT)
        logits[:, 0] = first[:, 0] - shift
        for i, place in enumerate(self.places(first)):
            if place is None:
                continue
            second = self.roi_logits(crop(x[i : i + 1], place))
            mask = (second.sigmoid() > threshold).to(x.dtype)
            present[i, tiny] = paste(mask, place, x.new_zeros(1, self.tiny, *x.shape[2:]))[0] >= 0.5
            logits[i : i + 1, tiny] = paste(second - shift, place, torch.full_like(second, ABSENT_LOGIT))
        return logits, present
