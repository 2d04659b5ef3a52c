"""How intensities are brought to scale: measured on each image, or with the same constants for all."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from napari_unetvnet.conventions import Normalise, NormaliseIn
from napari_unetvnet.settings.base import Settings
from napari_unetvnet.settings.labels import numbers

__all__ = ["CONSTANTS", "Normalisation"]

Floats = Annotated[
    tuple[Annotated[float, Field(gt=-1e30, lt=1e30, allow_inf_nan=False)], ...], BeforeValidator(numbers)
]
Deviations = Annotated[
    tuple[Annotated[float, Field(gt=1e-30, lt=1e30, allow_inf_nan=False)], ...], BeforeValidator(numbers)
]
CONSTANTS = ("normalise_mean", "normalise_std", "normalise_window")
"""The settings that hold the constants of normalise=fixed."""


class Normalisation(Settings):
    """How intensities are brought to scale."""

    normalise: Normalise = "zscore"
    """Intensity normalisation of each channel: of each image by itself with zscore or percentile (1 to 99.8); of all
    images alike with fixed constants, or with those of the dataset (mean and deviation of the training images); or
    none."""
    normalise_in: NormaliseIn = "content"
    """Voxels whose intensities are measured for it: content (without a frame or cut-out background of one value), all,
    nonzero, or mask (content where the mask is not 0)."""
    normalise_mean: Floats = ()
    """With normalise=fixed: the mean of each channel, or one for all, in the units of the files; with a
    normalise_std."""
    normalise_std: Deviations = ()
    """With normalise=fixed: the standard deviation of each channel, or one for all."""
    normalise_window: Floats = ()
    """With normalise=fixed, instead of a mean: lowest and highest value of each channel, or of all, which become 0 and
    1; values beyond are clipped, as in a CT window."""

    @model_validator(mode="before")
    @classmethod
    def _constants_are_fixed(cls, value: Any) -> Any:
        """Take constants that are given without a word as fixed ones."""
        if not isinstance(value, dict) or not any(value.get(name) not in (None, "", (), []) for name in CONSTANTS):
            return value
        return value | {"normalise": "fixed"} if value.get("normalise", "auto") in ("auto", ["auto"]) else value

    @model_validator(mode="after")
    def _constants_fit(self) -> Self:
        if lines := self.constant_misfits():
            raise ValueError("\n".join(lines))
        return self

    def constant_misfits(self) -> list[str]:
        """Report constants that are missing, too many or do not fit each other.

        Returns
        -------
        list of str
            One sentence each.
        """
        given, window = [name for name in CONSTANTS if getattr(self, name)], self.normalise_window
        if self.normalise != "fixed":
            extra = f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for normalise=fixed only, not "
            return [f"{extra}{self.normalise}; leave one of them out."] if given else []
        if window and len(given) > 1:
            return [f"{' and '.join(given)} were given; give a mean and a deviation, or a window."]
        if window:
            whole = len(window) % 2 == 0 and all(a < b for a, b in zip(window[::2], window[1::2], strict=False))
            shown = " ".join(f"{value:g}" for value in window)
            return [] if whole else [f"normalise_window={shown} should be a lowest and a higher value per channel."]
        if len(self.normalise_mean) != len(self.normalise_std) or not given:
            counts = f"{len(self.normalise_mean)} means and {len(self.normalise_std)} deviations"
            return [
                f"normalise=fixed has {counts}; give as many of one as of the other (normalise_mean, normalise_std), "
                "or a normalise_window."
            ]
        return []
