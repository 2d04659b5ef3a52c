"""Choose runs to remove by what a person asks for, and say why others stay."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unetvnet.errors import RunProblem, SettingsProblem, UserError
from napari_unetvnet.runs.comparison import read_run
from napari_unetvnet.runs.kept import find_run, remove_run, why_it_stays
from napari_unetvnet.runs.places import unfinished
from napari_unetvnet.runs.state import RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.runs.kept import KeptRun

__all__ = ["Criteria", "Pruned", "chosen", "prune"]


@dataclass(frozen=True)
class Criteria:
    """What is to be removed: runs that meet all that is given."""

    names: tuple[str, ...] = ()
    """Only these runs."""
    older_than: float | None = None
    """Seconds since something last happened in a run."""
    larger_than: int | None = None
    """Bytes."""
    without_model: bool = False
    """Only runs that hold no model."""
    keep_best: int | None = None
    """Only trainings with a score, and not so many of the best of each hold-out."""
    painted: bool = False
    """Also runs that hold labels which were painted in the viewer."""


@dataclass(frozen=True)
class Pruned:
    """A run that was removed, or why it was not."""

    run: KeptRun
    reason: str = ""
    """Empty if it was removed, or would be."""
    beside_output: tuple[Path, ...] = ()
    """What the run left outside its folder, which stays: results that are not whole."""


def chosen(runs: Sequence[KeptRun], criteria: Criteria, now: float | None = None) -> list[KeptRun]:
    """Choose the runs that meet all criteria.

    Parameters
    ----------
    now : float, optional
        Seconds since 1970.

    Returns
    -------
    list of KeptRun

    Raises
    ------
    SettingsProblem
        If there are no criteria: nobody asks to remove all by saying nothing.
    RunProblem
        If there is no run of a name.
    """
    if criteria in (Criteria(), Criteria(painted=True)):
        raise SettingsProblem(
            "Nothing says which runs to remove; name them, or give --older-than, --larger-than, --without-model or "
            "--keep-best."
        )
    if criteria.keep_best is not None and criteria.keep_best < 0:
        raise SettingsProblem(f"The best {criteria.keep_best} runs cannot be kept; give --keep-best 0 or more.")
    now = time.time() if now is None else now
    named = {find_run(name).folder for name in criteria.names}
    if unknown := named - {run.folder for run in runs}:
        raise RunProblem(f"{min(unknown)} is not directly in the folder of the runs, so it is not removed.")
    worse = None if criteria.keep_best is None else _worse(runs, criteria.keep_best)
    return [
        run
        for run in runs
        if (not named or run.folder in named)
        and (criteria.older_than is None or now - run.changed > criteria.older_than)
        and (criteria.larger_than is None or run.size > criteria.larger_than)
        and not (criteria.without_model and run.has_model)
        and (worse is None or run.folder in worse)
        and (named or run.state.name != RUNNING)
    ]


def _worse(runs: Sequence[KeptRun], count: int) -> set[object]:
    """Give the folders of the trainings that are not among the best of their hold-out."""
    scores: dict[str, list[tuple[float, object]]] = {}
    for run in runs:
        if run.command != "train" or not run.has_model or run.state.name == RUNNING:
            continue
        try:
            row = read_run(run.folder)
        except UserError:
            continue
        if row.dice is not None and row.scored_on:
            scores.setdefault(row.scored_on, []).append((row.dice, run.folder))
    ranked = (sorted(each, key=lambda pair: pair[0], reverse=True) for each in scores.values())
    return {folder for each in ranked for _, folder in each[count:]}


def prune(runs: Sequence[KeptRun], criteria: Criteria, *, dry_run: bool = False) -> Iterator[Pruned]:
    """Remove the runs that meet all criteria, one by one.

    Parameters
    ----------
    runs : sequence of KeptRun
        All that are kept.
    dry_run : bool
        Whether nothing is removed.

    Yields
    ------
    Pruned
    """
    left = list(runs)
    for run in chosen(runs, criteria):
        if run.painted and not criteria.painted:
            yield Pruned(run, "it holds labels that were painted in the viewer; add --painted to remove these, too")
            continue
        reason, grown = why_it_stays(run.folder, left), tuple(unfinished(run.folder))
        if not reason and not dry_run:
            try:
                remove_run(run.folder, left)
            except RunProblem as problem:
                reason = str(problem)
        if not reason:
            left.remove(run)
        yield Pruned(run, reason, grown)
