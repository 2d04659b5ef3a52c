"""Results of the checks: findings, class frequencies and suggestions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["ClassShare", "Finding", "PairSummary", "Report", "Severity", "name_list", "percent"]

Severity = Literal["error", "warning", "advice"]
MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """A problem or an observation.

    Parameters
    ----------
    severity : {"error", "warning", "advice"}
        Training is refused; probably a mistake; worth knowing.
    kind : str
        Identifier of the problem.
    about : str
        Name of the image or labels; empty if it concerns all.
    found, why, remedy : str
        A sentence each: the problem, why it matters, what to do.
    """

    severity: Severity
    kind: str
    about: str
    found: str
    why: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """The whole text, without the name."""
        return " ".join(part for part in (self.found, self.why, self.remedy) if part)


@dataclass(frozen=True)
class ClassShare:
    """Frequency of a class.

    Parameters
    ----------
    share : float
        Fraction of the labelled voxels.
    images : int
        Number of images that contain it.
    """

    name: str
    voxels: int
    share: float
    images: int


@dataclass(frozen=True)
class PairSummary:
    """Summary of an image and its labels.

    Parameters
    ----------
    image, labels : str
        Names.
    shape : tuple of 3 int
        Voxels z, y, x.
    spacing : tuple of 3 float
    split : {"", "train", "val"}
    voxels : dict of str to int
        Labelled voxels of each class; empty if they could not be counted.
    unknown : int
        Voxels read that are unlabelled, ignored or hidden by a mask.
    read : float
        Fraction of the voxels that was read, the smaller one of image and labels.
    """

    image: str
    labels: str
    shape: tuple[int, int, int]
    channels: int
    dtype: str
    unit: str
    spacing: tuple[float, float, float]
    split: str = ""
    voxels: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    read: float = 1.0


@dataclass(frozen=True)
class Report:
    """The report on images and their labels.

    Parameters
    ----------
    findings : tuple of Finding
        Errors first, then warnings, then advice.
    classes : tuple of ClassShare
        Over all images.
    suggestions : tuple of str
        One sentence each.
    """

    findings: tuple[Finding, ...]
    images: tuple[PairSummary, ...]
    classes: tuple[ClassShare, ...]
    suggestions: tuple[str, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Give the findings of one severity.

        Parameters
        ----------
        severity : {"error", "warning", "advice"}

        Returns
        -------
        tuple of Finding
        """
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def as_dict(self) -> dict[str, Any]:
        """Give the report as values that JSON can hold."""
        return asdict(self)


def name_list(names: list[str], limit: int = MOST_NAMED) -> str:
    """Join the first names, and say how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def percent(share: float) -> str:
    """Format a fraction as percent, such that only 0 is "0 %" and only 1 is "100 %"."""
    if share in {0, 1}:
        return f"{share:.0%}".replace("%", " %")
    digits = 0 if 0.1 <= share < 0.99 else 1 if 0.01 <= share < 0.99 else 2
    text = (
        f"{100 * share:.{digits}f}" if share >= 0.01 else np.format_float_positional(100 * share, 1, fractional=False)
    )
    return "> 99.99 %" if text == "100.00" else f"{text.rstrip('.')} %"
