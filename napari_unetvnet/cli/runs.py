"""The commands that list, show and remove run folders, and limit the disk that they may keep."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from napari_unetvnet.cli.arguments import Formatter
from napari_unetvnet.cli.output import print_error, print_line

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from napari_unetvnet.cli.arguments import Add
    from napari_unetvnet.runs.kept import KeptRun

__all__ = ["add_runs"]


def add_runs(add: Add) -> None:
    """Add the command with its actions.

    Parameters
    ----------
    add : callable
        Adds a command, given its name, its function and its description.
    """
    command = add("runs", _list, "List, show or remove the runs that are kept on the disk.")
    command.set_defaults(json=False)
    actions = command.add_subparsers(metavar="ACTION", title="actions")

    def action(name: str, function: Any, text: str) -> Any:
        added = actions.add_parser(name, help=text, description=text, formatter_class=Formatter, allow_abbrev=False)
        added.set_defaults(command=function)
        return added

    listing = action("list", _list, "List the runs, the newest first: state, age, size and what each made.")
    showing = action("show", _show, "Show what a run is, what it made and how to continue it.")
    showing.add_argument("name", metavar="RUN", help="Name of a run, or a run folder.")
    for parser in (listing, showing):
        parser.add_argument("--json", action="store_true", help="Print JSON.")
    text = "Remove runs that meet all that is given; models that other runs need, and runs under way, stay."
    pruning = action("prune", _prune, text)
    pruning.add_argument("names", metavar="RUN", nargs="*", help="Names of runs (default: all).")
    text = "Runs in which nothing happened for so long, such as 30days, 12hours or 2weeks."
    pruning.add_argument("--older-than", metavar="AGE", help=text)
    pruning.add_argument("--larger-than", metavar="SIZE", help="Runs that take more, such as 500MB or 2GB.")
    pruning.add_argument("--without-model", action="store_true", help="Runs that hold no model.")
    text = "Trainings with a score, but not the best N of each hold-out."
    pruning.add_argument("--keep-best", metavar="N", type=int, help=text)
    text = "Also runs that hold labels which were painted in the viewer, and may be nowhere else."
    pruning.add_argument("--painted", action="store_true", help=text)
    pruning.add_argument("--dry-run", action="store_true", help="Only say what would be removed.")
    text = "Say or set how much all runs may keep; beyond it the oldest that can be computed again are removed."
    limiting = action("limit", _limit, text)
    limiting.add_argument("size", metavar="SIZE", nargs="?", help="Such as 20GB, or none. Default: say what it is.")


def _list(parsed: Namespace) -> None:
    from napari_unetvnet.files import amount
    from napari_unetvnet.runs.amounts import age_text
    from napari_unetvnet.runs.folder import runs_folder
    from napari_unetvnet.runs.kept import kept_runs

    runs, now = kept_runs(), time.time()
    if parsed.json:
        print_line(json.dumps([_row(run) for run in runs], indent=2))
        return
    rows = [(run.name, run.state.name, age_text(now - run.changed), amount(run.size), run.made) for run in runs]
    for line in _aligned([("run", "state", "age", "size", "made"), *rows]) if rows else ():
        print_line(line)
    print_line(f"{len(runs)} run{'s' * (len(runs) != 1)}, {amount(sum(run.size for run in runs))} in {runs_folder()}.")


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(run: KeptRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "command": run.command,
        "state": run.state.name,
        "changed": run.changed,
        "bytes": run.size,
        "made": run.made,
        "model": run.has_model,
        "painted": run.painted,
        "results": run.state.results,
        "lines": list(run.state.lines),
    }


def _show(parsed: Namespace) -> None:
    from napari_unetvnet.runs.kept import find_run

    run = find_run(parsed.name)
    if parsed.json:
        print_line(json.dumps(_row(run) | {"job": run.job}, indent=2))
        return
    for line in _described(run):
        print_line(line)


def _described(run: KeptRun) -> Iterator[str]:
    from napari_unetvnet.files import amount
    from napari_unetvnet.runs.amounts import age_text
    from napari_unetvnet.runs.kept import size_of

    yield f"{run.name}: {run.command or 'a job that cannot be read'}, {run.state.name}"
    yield f"    folder: {run.folder.absolute()}"
    yield f"    last change: {age_text(time.time() - run.changed)} ago"
    yield f"    size: {amount(run.size)}"
    for path in sorted(run.folder.iterdir()):
        size = size_of(path) if path.is_dir() and not path.is_symlink() else path.lstat().st_size
        yield f"        {path.name}: {amount(size)}"
    for name in ("image", "label", "model", "start_from", "output"):
        if value := run.job.get(name):
            yield f"    {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
    yield f"    made: {run.made or 'nothing'}"
    yield from (f"    {line}" for line in run.state.lines)
    if run.resumable:
        yield f"    Resume with: napari-unetvnet run {run.folder} --resume"


def _prune(parsed: Namespace) -> int:
    from napari_unetvnet.files import amount
    from napari_unetvnet.runs.amounts import read_age, read_size
    from napari_unetvnet.runs.kept import kept_runs
    from napari_unetvnet.runs.prune import Criteria, prune

    criteria = Criteria(
        names=tuple(parsed.names),
        older_than=read_age(parsed.older_than) if parsed.older_than else None,
        larger_than=read_size(parsed.larger_than) if parsed.larger_than else None,
        without_model=parsed.without_model,
        keep_best=parsed.keep_best,
        painted=parsed.painted,
    )
    freed, refused = 0, False
    for item in prune(kept_runs(), criteria, dry_run=parsed.dry_run):
        if item.reason:
            refused = refused or bool(parsed.names)
            print_error(f"{item.run.name} stays: {item.reason}")
        else:
            freed += item.run.size
            print_line(f"{'Would remove' if parsed.dry_run else 'Removed'} {item.run.name} ({amount(item.run.size)}).")
            for place in item.beside_output:
                print_line(f"    Its unfinished result is {place}; nobody can continue it: remove it by hand.")
    print_line(f"{amount(freed)} {'would be' if parsed.dry_run else 'were'} freed.")
    return 2 if refused else 0


def _limit(parsed: Namespace) -> None:
    from napari_unetvnet.files import amount
    from napari_unetvnet.runs.disk import disk_limit, set_disk_limit

    if parsed.size:
        set_disk_limit(parsed.size)
    limit = disk_limit()
    print_line("Runs may keep any amount." if limit is None else f"Runs may keep {amount(limit)}.")
