"""Train each network with each loss on each fold, one after the other, under the same budget.

Each training has its own run folder in the folder of the sweep, and the table is written after each, so an interrupted
sweep loses nothing: the same command continues it. A training that fails gets a row with the reason.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

from napari_unetvnet.errors import FileProblem, RunProblem, SettingsProblem, UserError
from napari_unetvnet.files import writing
from napari_unetvnet.images.written import delivering, refuse_foreign
from napari_unetvnet.losses.expression import read_terms
from napari_unetvnet.runs import EVENTS, JOB, LOG, create, read
from napari_unetvnet.runs.comparison import Row, Table, as_text, read_run, tabulate
from napari_unetvnet.runs.inputs import find_inputs, keep_inputs
from napari_unetvnet.runs.results import deliver
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.temporary import remove_strays

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.events import RunFinished

__all__ = ["TABLE", "Member", "members", "sweep"]

TABLE = "comparison.json"
LONGEST_NAME = 100


class Follow(Protocol):
    """Runs the job of a run folder and returns its last event."""

    def __call__(self, folder: Path, *, resume: bool) -> RunFinished:
        """Run the job."""


@dataclass(frozen=True)
class Member:
    """One training of a sweep; ``job`` is None if its settings are invalid, for the reasons in ``lines``."""

    name: str
    job: TrainJob | None
    lines: tuple[str, ...] = ()


def members(values: dict[str, Any], networks: Sequence[str] = (), losses: Sequence[str] = ()) -> list[Member]:
    """List the trainings: every network with every loss, on every fold.

    Parameters
    ----------
    values : dict
        Settings of TrainJob that all trainings share, before validation.
    networks : sequence of str
        Names, optionally with options: ``"unet_padding(width=16)"``. Default: that of the settings.
    losses : sequence of str
        Default: that of the settings.

    Returns
    -------
    list of Member

    Raises
    ------
    SettingsProblem
        If a fold is set, or the settings of every training are invalid.
    """
    if "fold" in values:
        raise SettingsProblem("A sweep trains all folds; leave out fold.")
    common = {name: value for name, value in values.items() if name != "output"}
    planned: list[Member] = []
    for network, loss in product(dict.fromkeys(networks) or [""], dict.fromkeys(losses) or [""]):
        planned += _folds(common, network, loss, {member.name for member in planned})
    if not any(member.job for member in planned):
        raise SettingsProblem(*dict.fromkeys(line for member in planned for line in member.lines))
    return planned


def _folds(common: dict[str, Any], network: str, loss: str, taken: set[str]) -> list[Member]:
    """List the trainings of one configuration, one for each fold."""
    name = _name(network, loss)
    if any(other == name or other.startswith(f"{name}-fold") for other in taken):
        name += f"-{len(taken)}"
    try:
        values = common | _chosen_network(common, network) | ({"loss": loss} if loss else {})
        job = checked(TrainJob, values)
        if job.folds == 1:
            return [Member(name, job)]
        return [Member(f"{name}-fold{i}", checked(TrainJob, values | {"fold": i})) for i in range(job.folds)]
    except UserError as problem:
        return [Member(name, None, problem.lines)]


def _name(network: str, loss: str) -> str:
    """Build the folder name of a configuration."""
    words = (re.sub(r"[^\w.=+]+", "_", word).strip("_.") for word in (network, loss) if word)
    return "-".join(words)[:LONGEST_NAME] or "train"


def _chosen_network(common: dict[str, Any], text: str) -> dict[str, Any]:
    """Parse a network with its options, which override the shared ones."""
    if not text:
        return {}
    terms = read_terms(text)
    if len(terms) != 1 or terms[0].weight != 1:
        raise SettingsProblem(f"Network {text!r} should be a name or name(option=value).")
    shared = common.get("option")
    options = (dict(shared) if isinstance(shared, dict) else {}) | terms[0].option
    return {"network": terms[0].name} | ({"option": options} if options else {})


def sweep(
    folder: Path, planned: Sequence[Member], follow: Follow, output: Path | None = None, *, overwrite: bool = False
) -> Iterator[str | Table]:
    """Run the unfinished trainings of a sweep.

    Parameters
    ----------
    folder : Path
        For the run folders and the table; created if missing.
    follow : callable
        Runs the job of a run folder.
    output : Path, optional
        File to which the best model is copied.
    overwrite : bool
        Replace also a table that this program did not write, or that was changed since.

    Yields
    ------
    str or Table
        Progress messages, and the table after each training and at the end.

    Raises
    ------
    KeyboardInterrupt
        If a training was stopped; the same sweep can be started again to continue.
    """
    _check_same(folder, planned)
    runs = [member for member in planned if member.job]
    if output is not None:
        remove_strays(output.absolute().parent)  # also where an earlier sweep was killed with its model in place
    _keep_inputs([folder / TABLE, *([output] if output else [])], runs)
    refuse_foreign([folder / TABLE], overwrite=overwrite)
    for number, member in enumerate(runs, 1):
        path = folder / member.name
        if not _to_do(path):
            yield f"{number} of {len(runs)}: {member.name} was trained before."
            continue
        yield f"{number} of {len(runs)}: {member.name}"
        state, lines = _train(path, member, follow)
        yield from lines
        yield _save(folder, planned)
        if state == "stopped":
            yield "Stopped. Run the same command to continue."
            raise KeyboardInterrupt
    table = _save(folder, planned)
    yield table
    if output is not None:
        yield from _deliver(folder, table, planned, output)


def _check_same(folder: Path, planned: Sequence[Member]) -> None:
    """Reject a folder that holds runs of the same names with different settings."""
    for member in planned:
        if member.job is None or not (folder / member.name / JOB).exists():
            continue
        old, new = read(folder / member.name).model_dump(mode="json"), member.job.model_dump(mode="json")
        if other := [name for name in new if old.get(name) != new[name]]:
            raise SettingsProblem(
                f"{folder / member.name} was trained with a different {', '.join(other)}; give another folder for this "
                "sweep, or the same settings as before."
            )


def _keep_inputs(outputs: Sequence[Path], runs: Sequence[Member]) -> None:
    """Refuse a model or a table in the place of what is read, which is the same for all trainings."""
    try:
        inputs = find_inputs(runs[0].job) if runs and runs[0].job else None
    except UserError:
        return  # nothing can be read, which each training tells in the table
    if inputs is not None:
        keep_inputs(outputs, inputs)


def _to_do(path: Path) -> bool:
    """Whether a run is missing, was interrupted, or failed, as where a disk was full."""
    return not (path / JOB).exists() or read_run(path).state != "done"


def _is_of_disk(problem: UserError) -> bool:
    """Whether a file could not be read or written, which is the cause behind the sentence."""
    cause: BaseException | None = problem
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return cause is not None


def _train(path: Path, member: Member, follow: Follow) -> tuple[str, tuple[str, ...]]:
    """Run one training; return its final state, and the reasons if it failed."""
    try:
        if not (path / JOB).exists() and member.job is not None:
            path.mkdir(parents=True, exist_ok=True)
            create(path, member.job)
        return follow(path, resume=(path / EVENTS).exists()).state, ()
    except UserError as problem:
        if _is_of_disk(problem):  # and not of the training, so that the next one would fail, too
            raise
        return "failed", problem.lines
    except OSError as error:
        raise FileProblem(f"{path} cannot be written ({error.strerror}); choose another folder.") from None
    except Exception:  # noqa: BLE001 (the log has the traceback; the other trainings continue)
        with (path / LOG).open("a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        return "failed", (f"This is a bug in napari-unetvnet; the traceback is in {path / LOG}.",)


def _rows(folder: Path, planned: Sequence[Member]) -> Iterator[Row]:
    for member in planned:
        if member.job is None:
            yield Row(member.name, state="refused", lines=member.lines)
        elif (folder / member.name / JOB).exists():
            yield read_run(folder / member.name)


def _save(folder: Path, planned: Sequence[Member]) -> Table:
    """Write the current table to the folder of the sweep."""
    table = tabulate(list(_rows(folder, planned)))
    with writing(folder / TABLE, "choose another folder"), delivering(folder / TABLE) as (part,):
        part.write_text(as_text(table, as_json=True) + "\n", encoding="utf-8")
    return table


def _deliver(folder: Path, table: Table, planned: Sequence[Member], output: Path) -> Iterator[str]:
    """Copy the best model; with folds, the best model of the best configuration."""
    valid = {member.name for member in planned if member.job}
    lost = [row for row in table.rows if row.state == "refused" or (row.state == "done" and not row.model)]
    if unread := [row for row in lost if row.name in valid]:
        names, reason = ", ".join(row.name for row in unread), "; ".join(unread[0].lines)
        raise RunProblem(
            f"No model was written to {output}, because {names} cannot be read and may be the best"
            f"{f' ({reason})' if reason else ''}; mend or remove it in {folder}, and run the same command again."
        )
    rows = [row for row in table.rows if row.model and row.dice is not None]
    if table.configurations:
        rows = [row for row in rows if row.configuration == table.configurations[0].name]
    if not rows or not table.comparable:
        raise RunProblem(
            f"No model was written to {output}, because no run could be ranked as the best; choose one in {folder}."
        )
    job = next(member.job for member in planned if member.job and member.name == rows[0].name)
    results, notices = deliver(folder / rows[0].name, job.model_copy(update={"output": output}))
    yield from notices
    yield f"Model: {results['model']} ({rows[0].name})"
