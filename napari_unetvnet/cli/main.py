"""The command line: everything the widgets do, and more, without a viewer.

Exit status: 0 success; 2 user error (one line per mistake); 1 a bug; 130 stopped by Ctrl-C, a termination signal or a
terminal that was closed (progress is saved).
"""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_unetvnet.cli.arguments import Formatter, Parser, add_fields, merge
from napari_unetvnet.cli.file_commands import clean, convert, evaluate
from napari_unetvnet.cli.listings import add_listings
from napari_unetvnet.cli.output import print_error, print_line
from napari_unetvnet.cli.runs import add_runs
from napari_unetvnet.cli.segment_cases import segment_cases
from napari_unetvnet.cli.signals import asked_to_stop, ended_by_signals
from napari_unetvnet.errors import SettingsProblem, UserError
from napari_unetvnet.training.processes import from_environment

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence

    from napari_unetvnet.cli.arguments import Add
    from napari_unetvnet.events import Event, RunFinished
    from napari_unetvnet.settings import InspectJob, Job, SegmentJob, TrainJob

    Kind = TypeVar("Kind", TrainJob, SegmentJob, InspectJob)

__all__ = ["main"]

OF_A_PATH = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EINVAL}
"""What is wrong with a path that was given, not with the program."""
STOPPED = 130
"""Exit status of a command that was stopped by Ctrl-C, as in shells."""


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
        _check_texts(arguments)
        parsed = _parser(next(iter(arguments), "")).parse_args(arguments)
        command: Callable[[Namespace], int | None] = parsed.command
        _check_processes(command)
        with ended_by_signals():
            return command(parsed) or 0
    except UserError as problem:
        for line in problem.lines:
            print_error(from_environment().label + line)
        return 2
    except BrokenPipeError:
        return 0  # the reader of a pipe, such as head, has exited
    except KeyboardInterrupt:
        return STOPPED
    except Exception as error:  # noqa: BLE001 (the one place where a bug becomes an exit status)
        if isinstance(error, OSError) and error.filename is not None and error.errno in OF_A_PATH:
            print_error(f"{error.filename} cannot be used ({error.strerror}); give another path.")
            return 2
        print_error(traceback.format_exc().rstrip())
        print_error("This is a bug in napari-unetvnet; please report it with the lines above.")
        return 1


def _check_texts(arguments: Sequence[str]) -> None:
    """Refuse arguments that no file can be named by."""
    for argument in arguments:
        if "\0" in argument:
            raise SettingsProblem(f"{argument!r} holds a NUL character, which no name of a file has; leave it out.")


def _check_processes(command: Callable[[Namespace], int | None]) -> None:
    """Reject commands that every process of torchrun would run separately."""
    if command is not _run and from_environment().distributed:
        raise SettingsProblem(
            "Only the run command supports several processes: torchrun --nproc_per_node N -m napari_unetvnet run "
            "FOLDER. Start all other commands without torchrun."
        )


def _parser(command: str) -> Parser:
    """Create the parser; only ``command`` gets the options that settings declare."""
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

    _add_jobs(add, command)
    scoring = add("evaluate", evaluate, "Compare labels with the ground truth.")
    if command == "evaluate":
        _add_evaluate_options(scoring)
    comparing = add("compare", _compare, "Rank trainings by their validation score.")
    comparing.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="Run folders, or folders of run folders.")
    comparing.add_argument("--json", action="store_true", help="Print JSON, with the full curves.")
    running = add("run", _run, "Run the job of a run folder; the viewer starts its jobs with this.")
    running.add_argument("folder", type=Path)
    running.add_argument("--resume", action="store_true", help="Continue where an earlier run of the folder ended.")
    for name, kind in (("minutes", float), ("epochs", int), ("steps", int)):
        text = f"With --resume: continue until this total number of {name}, instead of the budget in the job."
        running.add_argument(f"--{name}", type=kind, help=text)
    add_runs(add)
    add_listings(add)
    showing = add(
        "demo", _demo, "Segment a real image with a shipped model, then improve it by half a minute of training."
    )
    showing.add_argument("--minutes", type=float, default=0.5, help="Training time. Default: 0.5.")
    showing.add_argument("--output", type=Path, default=Path("demo"), help="Folder for the results. Default: demo.")
    showing.add_argument("--no-viewer", action="store_true", help="Only write files, do not open napari.")
    return parser


def _add_jobs(add: Add, command: str) -> None:
    """Add the commands that take the options of a training, of a segmentation, or of other jobs."""

    def fields(parser: Parser, kind: str, positional: Sequence[str] = ()) -> None:
        if parser.prog.split()[-1] == command:
            from napari_unetvnet import settings  # slow to import, so only if needed

            add_fields(parser, getattr(settings, kind), positional)

    training = add("train", _train, "Train a model on images with labels.")
    fields(training, "TrainJob")
    segmenting = add("segment", _segment, "Segment an image, or all images of a folder or a set, with a model.")
    fields(segmenting, "SegmentJob", ["image"])
    text = "Of a folder of images: ending of the results, such as .nii.gz (default: that of each image)."
    segmenting.add_argument("--ending", metavar="ENDING", help=text)
    inspecting = add("inspect", _inspect, "Show what a model computes besides labels, as maps on the grid of an image.")
    fields(inspecting, "InspectJob", ["image"])
    checking = add("check", _check, "Look for mistakes in images and labels; takes the options of train.")
    fields(checking, "TrainJob")
    checking.add_argument("--json", action="store_true", help="Print JSON.")
    augmenting = add("augment", _augment, "Write augmented patches as training sees them; takes the options of train.")
    fields(augmenting, "TrainJob")
    augmenting.add_argument("--count", type=int, default=16, metavar="N", help="Number of patches (default 16).")
    text = "File for the patches (.npy or .tif); their labels are written beside it."
    augmenting.add_argument("--patches", type=Path, metavar="FILE", required=True, help=text)
    text = "Replace also files that this program did not write, or that were changed since."
    augmenting.add_argument("--overwrite", action="store_true", help=text)
    sweeping = add("sweep", _sweep, "Train several networks and losses under one budget; takes the options of train.")
    fields(sweeping, "TrainJob")
    _add_sweep_options(sweeping)
    for job in (training, segmenting, inspecting, checking, augmenting, sweeping):
        text = "JSON file with any of these options, such as the job.json of a run."
        job.add_argument("--settings", type=Path, help=text)
        text = "Folder in which to create the run folder (default: the user's data folder)."
        job.add_argument("--run", type=Path, help=text)
    converting = add("convert", convert, "Make one HDF5 set of the files of many subjects with several modalities.")
    fields(converting, "ConvertJob", ["folder"])
    cleaning = add("clean", clean, "Clean a label file and divide it into objects.")
    fields(cleaning, "CleanJob", ["labels"])


def _add_sweep_options(parser: Parser) -> None:
    text = "Replace also a table of the comparison that this program did not write, or that was changed since."
    parser.add_argument("--overwrite", action="store_true", help=text)
    for option, text in (
        ("--networks", "Networks, such as unet_padding or 'unet_padding(width=16)'; each is trained with each loss."),
        ("--losses", "Losses or weighted sums of losses."),
    ):
        parser.add_argument(option, nargs="+", action="extend", default=[], metavar="TEXT", help=text)


def _add_evaluate_options(parser: Parser) -> None:
    from napari_unetvnet.metrics.options import EvaluateSettings

    parser.add_argument("prediction", metavar="PREDICTION", nargs="?", help="Label image to score, or a folder.")
    parser.add_argument("truth", metavar="TRUTH", nargs="?", help="Label image of the ground truth, or a folder.")
    parser.add_argument(
        "--pairs", type=Path, metavar="FILE", help="CSV file with the columns image (the prediction) and label (truth)."
    )
    text = "Pair the files of two folders in the order of their names and numbers, not by name."
    parser.add_argument("--in-order", action="store_true", help=text)
    text = "Of a BIDS folder with several kinds of labels: which, by a word of their names such as lesion."
    parser.add_argument("--label-kind", default="", metavar="NAME", help=text)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_const", const="json", dest="form", help="Print JSON.")
    forms.add_argument("--csv", action="store_const", const="csv", dest="form", help="Print CSV.")
    add_fields(parser, EvaluateSettings)


def _values(parsed: Namespace, kind: type[Job], command: str) -> dict[str, Any]:
    """Read settings from the command line and from a settings file if there is one."""
    from napari_unetvnet.runs import absolute_paths, read_settings
    from napari_unetvnet.runs.models import named_start

    values = {name: value for name, value in vars(parsed).items() if name in kind.model_fields}
    values = absolute_paths(values, Path.cwd())
    stored = read_settings(parsed.settings) if parsed.settings else {}
    if (stored_command := stored.pop("command", command)) != command:
        raise SettingsProblem(
            f"{parsed.settings} holds settings for {stored_command}, not for {command}; give a file for {command}."
        )
    return named_start(merge(values, stored))


def _job(parsed: Namespace, kind: type[Kind], command: str) -> Kind:
    from napari_unetvnet.settings import checked

    job = checked(kind, _values(parsed, kind, command))
    if job.output is None and parsed.command not in {_check, _augment}:
        raise SettingsProblem("No output was given; set --output to the file or folder for the result.")
    return job


def _train(parsed: Namespace) -> None:
    from napari_unetvnet.model.card import read_card
    from napari_unetvnet.settings import TrainJob

    job = _job(parsed, TrainJob, "train")
    finished = _run_job(job, parsed.run, f"{Path(str(job.output)).stem}-{getattr(job, 'network', '')}")
    results = finished.results
    if "model" not in results:
        raise SettingsProblem("Stopped before the first step; there is no model yet.")
    print_line(f"Model: {results['model']}")
    if score := read_card(results["model"]).score:
        print_line(f"Score: {score}")
    print_line(f"Run: {results['run']}")
    if finished.state == "stopped":
        raise KeyboardInterrupt
    print_line(f"Trained for {results['steps']} steps. To reproduce, add {results['repeat']}.")


def _segment(parsed: Namespace) -> None:
    from napari_unetvnet.settings import SegmentJob

    job = _job(parsed, SegmentJob, "segment")
    if segment_cases(job, parsed.ending, lambda one, name: _run_job(one, parsed.run, f"{name}-segment"), print_line):
        return
    finished = _run_job(job, parsed.run, Path(str(job.output)).name.partition(".")[0] + "-segment")
    if finished.state == "stopped":
        raise KeyboardInterrupt
    print_line(f"Labels: {finished.results['labels']}")
    for name in ("class names", "objects", "lines"):
        if name in finished.results:
            print_line(f"{name.capitalize()}: {finished.results[name]}")


def _inspect(parsed: Namespace) -> None:
    from napari_unetvnet.settings import InspectJob

    job = _job(parsed, InspectJob, "inspect")
    finished = _run_job(job, parsed.run, f"{Path(str(job.output)).name}-inspect")
    if finished.state == "stopped":
        raise KeyboardInterrupt
    print_line(f"Maps: {finished.results['maps']}")


def _run_job(job: Job, parent: Path | None, name: str) -> RunFinished:
    """Create a run folder for a job and run it in this process."""
    from napari_unetvnet.images.io import check_writable
    from napari_unetvnet.runs import create, discard_if_empty, new_folder
    from napari_unetvnet.settings import InspectJob, TrainJob

    if job.output is not None and not isinstance(job, InspectJob):
        check_writable(job.output, "model" if isinstance(job, TrainJob) else "labels")
    folder = new_folder(name, parent)
    try:
        create(folder, job)
        return _follow(folder, resume=False)
    except UserError:
        discard_if_empty(folder)  # nothing was computed, and the error message is enough
        raise


def _run(parsed: Namespace) -> None:
    budget = {name: value for name in ("minutes", "epochs", "steps") if (value := getattr(parsed, name)) is not None}
    if budget and not parsed.resume:
        raise SettingsProblem(
            f"{', '.join(budget)} of a new run are set in its job.json; to continue training for longer, add --resume."
        )
    _tell_outputs(parsed.folder)
    finished = _follow(parsed.folder, resume=parsed.resume, budget=budget)
    for name, value in finished.results.items():
        print_line(f"{name}: {value}")
    if finished.state == "stopped":
        raise KeyboardInterrupt


def _tell_outputs(folder: Path) -> None:
    """Say where a run will write outside of its folder: its job may be a stranger's."""
    from napari_unetvnet.images.same_file import same_or_inside
    from napari_unetvnet.runs import read
    from napari_unetvnet.runs.outputs import outputs_of

    outside = [path for path in outputs_of(read(folder)) if not same_or_inside(path, folder)]
    if outside and from_environment().is_first:
        print_error(f"This run writes outside of its folder: {', '.join(map(str, outside))}.")


def _follow(folder: Path, *, resume: bool, budget: Mapping[str, Any] | None = None) -> RunFinished:
    """Run and show the events; Ctrl-C and other signals request a stop."""
    # A run that is asked to stop ends after the current step; resumed, it gives the same result as without the stop.
    from napari_unetvnet.cli.progress import Progress
    from napari_unetvnet.events import RunFinished
    from napari_unetvnet.runs import ask_to_stop, run

    finished: Event | None = None
    with asked_to_stop(lambda: ask_to_stop(folder)), Progress(sys.stderr) as progress:
        for finished in run(folder, resume=resume, budget=budget):
            if from_environment().is_first:
                progress.show(finished)
    if not isinstance(finished, RunFinished):
        msg = f"the run in {folder} ended without its last event"
        raise RuntimeError(msg)
    if finished.state == "stopped" and from_environment().is_first:
        print_error(f"Stopped. Progress is saved. Resume with: napari-unetvnet run {folder} --resume")
    return finished


def _check(parsed: Namespace) -> int:
    from napari_unetvnet.runs.check import as_text, check_files
    from napari_unetvnet.runs.inputs import find_inputs
    from napari_unetvnet.settings import TrainJob

    inputs = find_inputs(_job(parsed, TrainJob, "train"))
    report = check_files(inputs)
    print_line(as_text(report, inputs, as_json=parsed.json))
    return 2 if report.of("error") else 0


def _augment(parsed: Namespace) -> None:
    from napari_unetvnet.images.written import claimed
    from napari_unetvnet.runs.augment import check_patches, labels_beside, training_patches, write_patches
    from napari_unetvnet.settings import TrainJob

    if parsed.count < 1:
        raise SettingsProblem(f"{parsed.count} patches cannot be drawn; give --count 1 or more.")
    job = _job(parsed, TrainJob, "train")
    check_patches(parsed.patches, job, overwrite=parsed.overwrite)
    with claimed([parsed.patches, labels_beside(parsed.patches)]) as unrecorded:
        if unrecorded:
            print_error(unrecorded)
        write_patches(parsed.patches, *training_patches(job, parsed.count))
    print_line(f"Patches: {parsed.patches}")
    print_line(f"Labels: {labels_beside(parsed.patches)}")


def _compare(parsed: Namespace) -> None:
    from napari_unetvnet.runs.comparison import as_text, compare

    print_line(as_text(compare(parsed.runs), as_json=parsed.json, plain=_plain()))


def _sweep(parsed: Namespace) -> None:
    from napari_unetvnet.cli.sweep import members, sweep
    from napari_unetvnet.images.io import check_writable
    from napari_unetvnet.runs.comparison import as_text
    from napari_unetvnet.settings import TrainJob

    values = _values(parsed, TrainJob, "train")
    if parsed.run is None:
        raise SettingsProblem("No folder for the runs was given; set --run.")
    if output := values.get("output"):
        check_writable(output, "model")
    planned = members(values, parsed.networks, parsed.losses)
    best = Path(output) if output else None
    for item in sweep(parsed.run, planned, _follow, best, overwrite=parsed.overwrite):
        print_line(item if isinstance(item, str) else as_text(item, plain=_plain()))


def _plain() -> bool:
    """Whether the terminal can only show ASCII characters."""
    return not (sys.stdout.encoding or "ascii").lower().startswith("utf")


def _demo(parsed: Namespace) -> None:
    from napari_unetvnet.cli.demo import demo

    for line in demo(parsed.output, parsed.minutes, viewer=not parsed.no_viewer):
        print_line(line)
