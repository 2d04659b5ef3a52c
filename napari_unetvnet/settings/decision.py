"""A setting that was chosen from the data, and the file of a run that lists all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unetvnet.json_files import read_json, validated

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Decision", "read_decisions"]


@dataclass(frozen=True)
class Decision:
    """A setting chosen by a rule: its name, its value as JSON, and the reason."""

    name: str
    value: Any
    reason: str


def read_decisions(path: Path, advice: str) -> tuple[Decision, ...]:
    """Read the plan of a run.

    Parameters
    ----------
    advice : str
        As for `read_json`.

    Returns
    -------
    tuple of Decision
        Empty if there is no plan.

    Raises
    ------
    FileProblem
        If it is damaged.
    """
    if not path.exists():
        return ()
    rows = json.dumps(read_json(path, list, advice))
    return validated(rows, tuple[Decision, ...], f"{path} has an invalid choice", advice)
