"""The commands that read and write files and need no run folder: clean, convert, evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.cli.output import print_error, print_line

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["clean", "convert", "evaluate"]


def clean(parsed: Namespace) -> None:
    """Clean a label file."""
    from napari_unetvnet.runs.clean import clean_file
    from napari_unetvnet.settings import CleanJob, checked

    job = checked(CleanJob, {name: value for name, value in vars(parsed).items() if name in CleanJob.model_fields})
    written = clean_file(job)
    print_line(f"Labels: {job.output}")
    for text in written.notices:
        print_error(text)
    for name, paths in written.tables.items():
        print_line(f"{name}: {', '.join(map(str, paths))}")


def convert(parsed: Namespace) -> None:
    """Make a set."""
    from napari_unetvnet.runs.convert import convert
    from napari_unetvnet.settings import ConvertJob, checked

    job = checked(ConvertJob, {name: value for name, value in vars(parsed).items() if name in ConvertJob.model_fields})
    for text in convert(job):
        print_line(text)


def evaluate(parsed: Namespace) -> None:
    """Print the scores of labels."""
    from napari_unetvnet.metrics import EvaluateSettings
    from napari_unetvnet.runs.evaluate import as_text, score
    from napari_unetvnet.settings import checked

    values = {name: value for name, value in vars(parsed).items() if name in EvaluateSettings.model_fields}
    sources = (parsed.prediction, parsed.truth, parsed.pairs)
    result = score(*sources, checked(EvaluateSettings, values), in_order=parsed.in_order, label_kind=parsed.label_kind)
    print_line(as_text(result, parsed.form or "table"))
