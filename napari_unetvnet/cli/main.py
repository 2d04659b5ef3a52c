"""The command line: everything that the widgets do, and more, without a viewer.

Exit status 0 is done, 2 wrong use or bad input (one line for each mistake), 1 a fault of the program, 130 stopped by
Ctrl-C or a termination signal (what was reached is kept).
"""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_unetvnet.cli.arguments import Formatter, Parser, add_fields, merge
from napari_unetvnet.cli.listings import add_listings
from napari_unetvnet.errors import SettingsProblem, UserError
from napari_unetvnet.training.processes import from_environment

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence

    from napari_unetvnet.cli.listings import Add
    from napari_unetvnet.events import Event, RunFinished
    from napari_unetvnet.settings import SegmentJob, TrainJob

    Job = TypeVar("Job", TrainJob, SegmentJob)

__all__ = ["main"]

STOPPED = 130
"""Exit status of a command that was stopped, as shells have it."""


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name.

    Returns
    -------
    int
        Exit status.
    """
    try:
        parsed = _parser(next(iter(arguments), "")).parse_args(arguments)
        command: Callable[[Namespace], int | None] = parsed.command
        _check_processes(command)
        return command(parsed) or 0
    except UserError as problem:
        for line in problem.lines:
            _complain(from_environment().label + line)
        return 2
    except BrokenPipeError:
        return 0  # whoever read the listing has enough
    except KeyboardInterrupt:
        return STOPPED
    except Exception:  # noqa: BLE001 (the one place where a fault becomes an exit status)
        _complain(traceback.format_exc().rstrip())
        _complain("This is a fault of the program; please report it with the lines above.")
        return 1


def _check_processes(command: Callable[[Namespace], int | None]) -> None:
    """See that processes which torchrun started work on one thing and not each on its own."""
    if command is not _run and from_environment().distributed:
        raise SettingsProblem(
            "Several processes work on a run folder together, with: torchrun --nproc_per_node N -m napari_unetvnet run "
            "FOLDER. Start all other commands without torchrun."
        )


def _parser(wanted: str) -> Parser:
    """Make the parser; only the command that is wanted gets the options that settings declare."""
    parser = Parser(
        prog="napari-unetvnet",
        description="Train U-Nets and V-Nets on a few labels and segment with them.",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, function: Callable[[Namespace], int | None], text: str) -> Parser:
        added = commands.add_parser(name, help=text, description=text, formatter_class=Formatter, allow_abbrev=False)
        added.set_defaults(command=function)
        return added

    _add_jobs(add, wanted)
    scoring = add("evaluate", _evaluate, "Compare labels with the ground truth.")
    if wanted == "evaluate":
        _add_evaluate_options(scoring)
    comparing = add("compare", _compare, "Rank trainings by their validation score.")
    comparing.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="Run folders, or folders of them.")
    comparing.add_argument("--json", action="store_true", help="Print JSON, with the full curves.")
    running = add("run", _run, "Run the job of a run folder; the viewer starts its jobs with this.")
    running.add_argument("folder", type=Path)
    running.add_argument("--resume", action="store_true", help="Continue where an earlier run of the folder ended.")
    for name, kind in (("minutes", float), ("epochs", int), ("steps", int)):
        text = f"With --resume: continue until this total number of {name}, whatever the job says."
        running.add_argument(f"--{name}", type=kind, help=text)
    add_listings(add)
    showing = add("demo", _demo, "Train on one half of a real image and segment the whole, in about a minute.")
    showing.add_argument("--minutes", type=float, default=1.0, help="Time to train. Default: 1.")
    showing.add_argument("--output", type=Path, default=Path("demo"), help="Folder for the results. Default: demo.")
    showing.add_argument("--no-viewer", action="store_true", help="Write files even where there is a display.")
    return parser


def _add_jobs(add: Add, wanted: str) -> None:
    """Add the commands that take the options of a training or of a segmentation."""

    def fields(parser: Parser, kind: str, positional: Sequence[str] = ()) -> None:
        if parser.prog.split()[-1] == wanted:
            from napari_unetvnet import settings  # takes longer than all the rest of the help

            add_fields(parser, getattr(settings, kind), positional)

    training = add("train", _train, "Train a model on images with labels.")
    fields(training, "TrainJob")
    segmenting = add("segment", _segment, "Segment an image with a model.")
    fields(segmenting, "SegmentJob", ["image"])
    checking = add("check", _check, "Look for mistakes in images and labels; takes the options of train.")
    fields(checking, "TrainJob")
    checking.add_argument("--json", action="store_true", help="Print JSON.")
    looking = add("augment", _augment, "Write augmented patches as training sees them; takes the options of train.")
    fields(looking, "TrainJob")
    looking.add_argument("--count", type=int, default=16, metavar="N", help="Number of patches (default 16).")
    text = "File for the patches (.npy or .tif); their labels go beside it."
    looking.add_argument("--patches", type=Path, metavar="FILE", required=True, help=text)
    sweeping = add("sweep", _sweep, "Train several networks and losses under one budget; takes the options of train.")
    fields(sweeping, "TrainJob")
    _add_sweep_options(sweeping)
    for job in (training, segmenting, checking, looking, sweeping):
        job.add_argument("--settings", type=Path, help="JSON file with any of these options, such as a run's job.json.")
        job.add_argument("--run", type=Path, help="Where to make the run folder (default: the user's data folder).")
    cleaning = add("clean", _clean, "Clean a label file, and divide it into objects.")
    fields(cleaning, "CleanJob", ["labels"])


def _add_sweep_options(parser: Parser) -> None:
    for option, text in (
        ("--networks", "Networks, such as unet_padding or 'unet_padding(width=16)'; each is trained with each loss."),
        ("--losses", "Losses or sums of them."),
    ):
        parser.add_argument(option, nargs="+", action="extend", default=[], metavar="TEXT", help=text)


def _add_evaluate_options(parser: Parser) -> None:
    from napari_unetvnet.metrics.options import EvaluateSettings

    parser.add_argument("prediction", metavar="PREDICTION", nargs="?", help="Label image to score, or a folder.")
    parser.add_argument("truth", metavar="TRUTH", nargs="?", help="Label image of the ground truth, or a folder.")
    parser.add_argument(
        "--pairs", type=Path, metavar="FILE", help="CSV file with the columns image (the prediction) and label (truth)."
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_const", const="json", dest="form", help="Print JSON.")
    forms.add_argument("--csv", action="store_const", const="csv", dest="form", help="Print CSV.")
    add_fields(parser, EvaluateSettings)


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


def _values(parsed: Namespace, kind: type[TrainJob | SegmentJob], command: str) -> dict[str, Any]:
    """Read settings from the command line and, if one was given, a settings file."""
    from napari_unetvnet.runs import absolute_paths, read_settings

    given = {name: value for name, value in vars(parsed).items() if name in kind.model_fields}
    given = absolute_paths(given, Path.cwd())
    stored = read_settings(parsed.settings) if parsed.settings else {}
    if (said := stored.pop("command", command)) != command:
        raise SettingsProblem(f"{parsed.settings} holds settings for {said}, not for {command}.")
    return merge(given, stored)


def _job(parsed: Namespace, kind: type[Job], command: str) -> Job:
    from napari_unetvnet.settings import checked

    job = checked(kind, _values(parsed, kind, command))
    if job.output is None and parsed.command not in {_check, _augment}:
        raise SettingsProblem("No output was given; say with --output where to write the result.")
    return job


def _train(parsed: Namespace) -> None:
    from napari_unetvnet.settings import TrainJob

    job = _job(parsed, TrainJob, "train")
    finished = _work(job, parsed.run, f"{Path(str(job.output)).stem}-{getattr(job, 'network', '')}")
    results = finished.results
    if "model" not in results:
        raise SettingsProblem("Stopped before the first step; there is no model yet.")
    _say(f"Model: {results['model']}")
    _say(f"Run: {results['run']}")
    if finished.state == "stopped":
        raise KeyboardInterrupt
    _say(f"Trained for {results['steps']} steps. To reproduce, add --steps {results['steps']}.")


def _segment(parsed: Namespace) -> None:
    from napari_unetvnet.settings import SegmentJob

    job = _job(parsed, SegmentJob, "segment")
    finished = _work(job, parsed.run, Path(str(job.output)).name.partition(".")[0] + "-segment")
    if finished.state == "stopped":
        raise KeyboardInterrupt
    _say(f"Labels: {finished.results['labels']}")
    if "objects" in finished.results:
        _say(f"Objects: {finished.results['objects']}")


def _work(job: TrainJob | SegmentJob, parent: Path | None, name: str) -> RunFinished:
    """Make a run folder for a job and do it here."""
    from napari_unetvnet.images.io import check_writable
    from napari_unetvnet.runs import create, discard_if_empty, new_folder
    from napari_unetvnet.settings import TrainJob

    if job.output is not None:
        check_writable(job.output, "model" if isinstance(job, TrainJob) else "labels")
    folder = new_folder(name, parent)
    create(folder, job)
    try:
        return _follow(folder, resume=False)
    except UserError:
        discard_if_empty(folder)  # nothing was done; the sentence says all that there is to say
        raise


def _run(parsed: Namespace) -> None:
    budget = {name: value for name in ("minutes", "epochs", "steps") if (value := getattr(parsed, name)) is not None}
    if budget and not parsed.resume:
        raise SettingsProblem(f"{', '.join(budget)} of a run are in its job.json; to train on for longer add --resume.")
    finished = _follow(parsed.folder, resume=parsed.resume, budget=budget)
    for name, value in finished.results.items():
        _say(f"{name}: {value}")
    if finished.state == "stopped":
        raise KeyboardInterrupt


def _follow(folder: Path, *, resume: bool, budget: Mapping[str, Any] | None = None) -> RunFinished:
    """Do a run and show its events; Ctrl-C or a termination signal asks it to stop, a second one ends it at once."""
    # Asked, the run ends after its present step and can be resumed to the result of one that was never stopped.
    from napari_unetvnet.cli.progress import Progress
    from napari_unetvnet.events import RunFinished
    from napari_unetvnet.runs import ask_to_stop, run

    asked: list[bool] = []

    def interrupt(*_: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        ask_to_stop(folder)

    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, interrupt) for number in signals]
    finished: Event | None = None
    try:
        with Progress(sys.stderr) as progress:
            for finished in run(folder, resume=resume, budget=budget):
                if from_environment().is_first:
                    progress.show(finished)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    if not isinstance(finished, RunFinished):
        msg = f"the run in {folder} ended without its last event"
        raise RuntimeError(msg)
    if finished.state == "stopped" and from_environment().is_first:
        _complain(f"Stopped. Progress is saved. Resume with: napari-unetvnet run {folder} --resume")
    return finished


def _check(parsed: Namespace) -> int:
    from napari_unetvnet.runs.check import as_text, check_files
    from napari_unetvnet.settings import TrainJob

    report = check_files(_job(parsed, TrainJob, "train"))
    _say(as_text(report, as_json=parsed.json))
    return 2 if report.of("error") else 0


def _clean(parsed: Namespace) -> None:
    from napari_unetvnet.runs.clean import clean_file
    from napari_unetvnet.settings import CleanJob, checked

    job = checked(CleanJob, {name: value for name, value in vars(parsed).items() if name in CleanJob.model_fields})
    table = clean_file(job)
    _say(f"Labels: {job.output}")
    if table is not None:
        _say(f"Objects: {table}")


def _augment(parsed: Namespace) -> None:
    from napari_unetvnet.runs.augment import labels_beside, training_patches, write_patches
    from napari_unetvnet.settings import TrainJob

    if parsed.count < 1:
        raise SettingsProblem(f"{parsed.count} patches cannot be drawn; give --count 1 or more.")
    write_patches(parsed.patches, *training_patches(_job(parsed, TrainJob, "train"), parsed.count))
    _say(f"Patches: {parsed.patches}")
    _say(f"Labels: {labels_beside(parsed.patches)}")


def _compare(parsed: Namespace) -> None:
    from napari_unetvnet.runs.comparison import as_text, compare

    _say(as_text(compare(parsed.runs), as_json=parsed.json, plain=_plain()))


def _sweep(parsed: Namespace) -> None:
    from napari_unetvnet.cli.sweep import members, sweep
    from napari_unetvnet.images.io import check_writable
    from napari_unetvnet.runs.comparison import as_text
    from napari_unetvnet.settings import TrainJob

    values = _values(parsed, TrainJob, "train")
    if parsed.run is None:
        raise SettingsProblem("Say with --run in which folder to keep the runs.")
    if output := values.get("output"):
        check_writable(output, "model")
    planned = members(values, parsed.networks, parsed.losses)
    for told in sweep(parsed.run, planned, _follow, Path(output) if output else None):
        _say(told if isinstance(told, str) else as_text(told, plain=_plain()))


def _plain() -> bool:
    """Whether the terminal shows no other signs than those of ASCII."""
    return not (sys.stdout.encoding or "ascii").lower().startswith("utf")


def _evaluate(parsed: Namespace) -> None:
    from napari_unetvnet.metrics import EvaluateSettings
    from napari_unetvnet.runs.evaluate import as_text, score
    from napari_unetvnet.settings import checked

    given = {name: value for name, value in vars(parsed).items() if name in EvaluateSettings.model_fields}
    result = score(parsed.prediction, parsed.truth, parsed.pairs, checked(EvaluateSettings, given))
    _say(as_text(result, parsed.form or "table"))


def _demo(parsed: Namespace) -> None:
    from napari_unetvnet.cli.demo import demo

    for line in demo(parsed.output, parsed.minutes, viewer=not parsed.no_viewer):
        _say(line)
