"""Runs beside each other: read from their folders, ranked by the hold-out, written as a table or as JSON.

Only runs that were scored on the same voxels can be ranked, so what each was scored on is part of what is read: the
inputs, what their labels mean, and the block or the volumes held out. With folds, each fold has voxels of its own, and
configurations are ranked by their mean over the folds. Nothing here loads torch: the parameters of a network are
counted from the shapes in the header of its model file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.runs.comparison.runs import Point, Row, read_run, runs_in
from napari_unetvnet.runs.comparison.table import Configuration, Table, as_text, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Configuration", "Point", "Row", "Table", "as_text", "compare", "read_run", "tabulate"]


def compare(folders: Sequence[Path]) -> Table:
    """Read runs and rank them.

    Parameters
    ----------
    folders : sequence of Path
        Run folders, or folders of several; among several, what is no training is passed over.

    Returns
    -------
    Table

    Raises
    ------
    RunProblem
        If a folder is no training and holds none.
    """
    found = [run for folder in folders for run in runs_in(folder)]
    return tabulate([read_run(run) for run in {run.resolve(): run for run in found}.values()])
