"""What the checks report: findings, how often each class occurs, and what to try."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["ClassShare", "Examined", "Finding", "Report", "Severity", "named", "percent"]

Severity = Literal["error", "warning", "advice"]
MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Parameters
    ----------
    severity : {"error", "warning", "advice"}
        Cannot be trained on; is probably a mistake; is worth knowing.
    kind : str
        Name of what was found, the same in every image.
    about : str
        Name of the image or labels; empty if it is about all.
    found, why, remedy : str
        A sentence each: what was found, why it matters, what to do.
    """

    severity: Severity
    kind: str
    about: str
    found: str
    why: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """All that is to say, without the name."""
        return " ".join(part for part in (self.found, self.why, self.remedy) if part)


@dataclass(frozen=True)
class ClassShare:
    """How often a class occurs.

    Parameters
    ----------
    name : str
    voxels : int
    share : float
        Of the labelled voxels.
    images : int
        In so many.
    """

    name: str
    voxels: int
    share: float
    images: int


@dataclass(frozen=True)
class Examined:
    """An image that was looked at.

    Parameters
    ----------
    image, labels : str
        Names.
    shape : tuple of 3 int
        Voxels z, y, x.
    channels : int
    dtype, unit : str
    spacing : tuple of 3 float
    split : {"", "train", "val"}
    voxels : dict of str to int
        Labelled voxels of each class; empty if they could not be counted.
    unknown : int
        Voxels that are not labelled, ignored or hidden by a mask, as far as they were read.
    read : float
        Smaller of the shares of image and labels that were looked at.
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
    images : tuple of Examined
    classes : tuple of ClassShare
        In all images together.
    suggestions : tuple of str
        What to try, a sentence each.
    """

    findings: tuple[Finding, ...]
    images: tuple[Examined, ...]
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
        """Give the report as JSON holds it.

        Returns
        -------
        dict
        """
        return asdict(self)


def named(names: list[str], most: int = MOST_NAMED) -> str:
    """Write some names and how many more there are.

    Parameters
    ----------
    names : list of str
    most : int

    Returns
    -------
    str
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def percent(share: float) -> str:
    """Write a share such that a small one is not 0, and one that is not all not 100 %.

    Parameters
    ----------
    share : float

    Returns
    -------
    str
    """
    if share in {0, 1}:
        return f"{share:.0%}".replace("%", " %")
    digits = 0 if 0.1 <= share < 0.99 else 1 if 0.01 <= share < 0.99 else 2
    text = (
        f"{100 * share:.{digits}f}" if share >= 0.01 else np.format_float_positional(100 * share, 1, fractional=False)
    )
    return "> 99.99 %" if text == "100.00" else f"{text.rstrip('.')} %"
