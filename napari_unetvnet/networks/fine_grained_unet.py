"""Big and tiny objects by one network applied twice: to the image, then to the enlarged region of the big object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.backboned_unet import BackbonedUNet
from napari_unetvnet.networks.base import TrainingOutputs
from napari_unetvnet.networks.blocks import conv
from napari_unetvnet.networks.encoder_options import EncoderName, EncoderOptions
from napari_unetvnet.networks.roi import crop, foreground_square, paste, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        Probability above which a voxel belongs to the big object, with and without the second stage.
    tiny_threshold : float
        Probability above which a voxel belongs to a tiny object, with and without the second stage.
    roi_margin : int
        Voxels between the big object's box and the edge of its square.
    roi_crop : {"square", "mask"}
        What the second stage sees: the whole square, or only the objects in it and 0 elsewhere.
    roi_training : {"true", "predicted", "mixed"}
        Region that the second stage is trained on: that of the labels, that of the first stage, or each for half of
        the patches, drawn at random.

    Raises
    ------
    SettingsProblem
        If a number is out of its range.
    """

    encoder: Literal["darknet52", EncoderName] = "darknet52"
    roi_threshold: float = 0.3
    tiny_threshold: float = 0.3
    roi_margin: int = 20
    roi_crop: Literal["square", "mask"] = "square"
    roi_training: Literal["true", "predicted", "mixed"] = "true"

    def __post_init__(self) -> None:
        super().__post_init__()
        thresholds = (self.roi_threshold, self.tiny_threshold)
        if not all(0 < threshold < 1 for threshold in thresholds) or self.roi_margin < 0:
            raise SettingsProblem(
                f"A region needs thresholds between 0 and 1, not {self.roi_threshold} and {self.tiny_threshold}, "
                f"and a margin >= 0, not {self.roi_margin}."
            )


class FineGrainedUNet(BackbonedUNet):
    """U-Net with two heads: one for the image, one for the enlarged region of the big object.

    The first output channel is the big object, the others are tiny ones. `forward` gives the image head's logits;
    `roi_logits` gives the tiny channels of a region that `roi.crop` has cut out and enlarged; `cascade` does one
    after the other and puts the region's result back, and `segmentation_logits` are its logits. Both heads are trained
    at once, the region's head on the true region or on the predicted one.

    Deviations: the source compares the region head's output with the enlarged labels; here it is put back in place and
    compared with the labels themselves. With one output channel the region head gives that channel again.

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

    two_stages = True
    inference_options = ("roi_threshold", "tiny_threshold", "roi_margin")
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
        return [self._place(mask) for mask in self._first_stage(logits.detach())[1][:, 0]]

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits of both heads, and those of deeper levels, with the predicted region.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
            As of `outputs_with_objects`.
        """
        levels = self.levels(x)
        logits = self.logits(levels)
        present = self._first_stage(logits.detach())[1]
        return self._both_stages(x, levels, logits, present[:, 0], present.any(dim=1))

    def outputs_with_objects(self, x: Tensor, objects: Tensor | None) -> TrainingOutputs:
        """Give the image head's logits, those of the region's head put back in place, and those of deeper levels.

        Around the region, and in the channels that it does not have, the region's logits are the image head's, cut off
        from its gradient: a loss on them trains only the region's head. Where there is no object, the region is the
        whole image.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)
        objects : Tensor of bool, shape (B, *S), or None
            Where the true objects are; None for the image head alone.

        Returns
        -------
        TrainingOutputs
        """
        if objects is None:
            return super().training_outputs(x)
        levels = self.levels(x)
        logits = self.logits(levels)
        present = self._first_stage(logits.detach())[1]
        true = self._trains_on_true_regions(objects)
        return self._both_stages(
            x, levels, logits, torch.where(true, objects, present[:, 0]), torch.where(true, objects, present.any(dim=1))
        )

    def _trains_on_true_regions(self, objects: Tensor) -> Tensor:
        """Choose between the true and the predicted region, for each image, shape (B, 1, ...)."""
        count, mode = len(objects), self.options.roi_training
        # Drawn on the CPU, so that all devices draw the same.
        true = torch.rand(count) < 0.5 if mode == "mixed" else torch.full((count,), mode == "true")
        return true.to(objects.device).reshape(-1, *(1,) * self.dims)

    def _both_stages(
        self, x: Tensor, levels: dict[str, Tensor], logits: Tensor, big: Tensor, foreground: Tensor
    ) -> TrainingOutputs:
        """Give the outputs for training, with the regions of masks (B, *S) of the big objects and of all objects."""
        places = [self._place(mask) for mask in big]
        tiny = self._region_logits(x, places, foreground)
        constant, first = logits.detach(), self.classes - self.tiny
        pasted = [
            paste(tiny[i : i + 1], place or whole(x.shape[2:]), constant[i : i + 1, first:])
            for i, place in enumerate(places)
        ]
        refined = torch.cat([constant[:, :first], torch.cat(pasted)], dim=1)
        return TrainingOutputs(logits, self.auxiliary(levels), roi=refined)

    def _region_logits(self, x: Tensor, places: Sequence[tuple[slice, ...] | None], foreground: Tensor) -> Tensor:
        """Cut regions out, enlarge them and run the region's head; the whole image without a region."""
        masked = self.options.roi_crop == "mask"
        crops = [
            crop(x[i : i + 1], place or whole(x.shape[2:]), foreground[i, None, None] if masked and place else None)
            for i, place in enumerate(places)
        ]
        return self.roi_logits(torch.cat(crops))

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
        return self._second_stage(x, self(x))[1]

    def segmentation_logits(self, x: Tensor, *, cascade: bool = True) -> Tensor:
        """Give logits that are above 0 exactly where an object is found.

        Those of the image head for the big object and those of the region's head, put back in place, for the tiny ones,
        both less the logit of their threshold. Outside the region there is nothing tiny.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)
        cascade : bool
            Whether to run the second stage; without it, those of the image head less the same logits.

        Returns
        -------
        Tensor of shape (B, K, *S)
        """
        first = self(x)
        logits, present = self._second_stage(x, first) if cascade else self._first_stage(first)
        # Pasting interpolates logits and masks separately, so that their signs may differ at the edge of an object.
        return torch.where(present, logits.clamp(min=MIN_LOGIT), logits.clamp(max=-MIN_LOGIT))

    def _place(self, mask: Tensor) -> tuple[slice, ...] | None:
        """Give the square around the largest object of a mask (*S)."""
        square = foreground_square(mask, self.options.roi_margin)
        return None if square is None else square.within(mask.shape)

    def _thresholds(self, like: Tensor) -> Tensor:
        """Give the threshold of each channel, of shape (1, K, 1, ...)."""
        thresholds = [self.options.roi_threshold] + [self.options.tiny_threshold] * (self.classes - 1)
        return like.new_tensor(thresholds).reshape(1, -1, *(1,) * self.dims)

    def _first_stage(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Give the image head's logits, less those of the thresholds, and which objects are where, each (B, K, *S)."""
        thresholds = self._thresholds(first)
        return first - thresholds.logit(), first.sigmoid() > thresholds

    def _second_stage(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Give the same with the tiny objects of the region's head."""
        logits, present = self._first_stage(first)
        foreground, channels = present.any(dim=1), slice(self.classes - self.tiny, None)
        places, thresholds = self.places(first), self._thresholds(first)[:, channels]
        logits[:, 1:], present[:, 1:] = ABSENT_LOGIT, False
        for i, place in enumerate(places):
            if place is None:
                continue
            one = slice(i, i + 1)
            second = self._region_logits(x[one], [place], foreground[one])
            mask = (second.sigmoid() > thresholds).to(x.dtype)
            present[one, channels] = paste(mask, place, torch.zeros_like(second)) >= 0.5
            logits[one, channels] = paste(second - thresholds.logit(), place, torch.full_like(second, ABSENT_LOGIT))
        return logits, present
