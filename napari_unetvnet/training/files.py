"""The files of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TrainingFiles"]


@dataclass(frozen=True)
class TrainingFiles:
    """Where a training writes; whoever starts it chooses the places, in folders that exist.

    Parameters
    ----------
    model : Path
        The best model so far.
    state : Path
        Weights, optimizer and progress, from which it is resumed.
    final_fit : Path
        The same of its final fit.
    preview : Path
        Labels of a part of the first image.
    provenance : Path
        Only read, for the card of the model; need not be there.
    output : Path or None
        Only read: a model whose place the new one is to take, which is scored on the same hold-out.
    """

    model: Path
    state: Path
    final_fit: Path
    preview: Path
    provenance: Path
    output: Path | None = None
