"""Compare trainings: read run folders, rank them by validation score, format them as a table or as JSON.

Only runs that were scored on the same voxels can be ranked, so each row also identifies its hold-out: the inputs, the
meaning of the labels, and the block or the volumes held out. Each fold has a different hold-out, and configurations are
ranked by their mean over the folds. Nothing here imports torch: the parameters of a network are counted from the shapes
in the header of its model file.
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
        Run folders, or folders that hold run folders; anything else in the latter is skipped.

    Returns
    -------
    Table

    Raises
    ------
    RunProblem
        If a folder neither is a training nor holds any.
    """
    runs = [run for folder in folders for run in runs_in(folder)]
    return tabulate([read_run(run) for run in {run.resolve(): run for run in runs}.values()])
