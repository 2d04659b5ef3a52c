"""The evaluate command: compare label files with their ground truth, one pair or many."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.conventions import WHITE
from napari_unetvnet.errors import DataProblem, FileProblem, SettingsProblem, UserError
from napari_unetvnet.images.formats import listed
from napari_unetvnet.images.io import find_pairs, read_labels, read_pairs_csv
from napari_unetvnet.images.layouts.cases import labelled_cases
from napari_unetvnet.images.pairs import MOST_NAMED, files_in, shortened
from napari_unetvnet.images.resample import spacing_in
from napari_unetvnet.images.same_grid import brought_onto, difference
from napari_unetvnet.images.sources import is_folder, paths_of, split_time, stem_of
from napari_unetvnet.images.subjects import subjects_of
from napari_unetvnet.images.units import unit_name
from napari_unetvnet.metrics import Evaluation, Summary, evaluate, summarise
from napari_unetvnet.metrics.report import COLUMNS, evaluation_rows, evaluation_table, summary_rows, summary_table
from napari_unetvnet.runs.outputs import table_beside
from napari_unetvnet.runs.time_points import paired_points
from napari_unetvnet.settings import checked
from napari_unetvnet.settings.class_names import ClassName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.layouts.cases import Cases
    from napari_unetvnet.images.volume import Volume
from napari_unetvnet.metrics import EvaluateSettings

__all__ = ["as_text", "score", "score_cases", "score_files"]

TURNED = "The prediction is stored along other axes than the truth; both were brought together by their positions."
Files = tuple[str, str]
"""A prediction and its ground truth."""


def score(
    prediction: str | None,
    truth: str | None,
    pairs: str | Path | None,
    settings: EvaluateSettings,
    *,
    in_order: bool = False,
    label_kind: str = "",
) -> Evaluation | Summary:
    """Compare predictions with ground truth.

    Parameters
    ----------
    prediction, truth : str or None
        Two files, or two folders whose files are paired by name. The truth may be a data set of a known kind, whose
        images have the names of the predictions.
    pairs : str, Path or None
        Instead of them, a CSV file with the columns image (the prediction) and label (the ground truth).
    in_order : bool
        Pair the files of folders in their order, not by name.
    label_kind : str
        Which labels of the truth, if it is a BIDS folder with several kinds.

    Returns
    -------
    Evaluation or Summary
        A summary for folders and tables, even of a single case, and for time series, a case for each time point.

    Raises
    ------
    SettingsProblem
        If neither or both are given, or settings are in conflict.
    FileProblem
        If a file is missing or cannot be read.
    DataProblem
        If files cannot be paired, or a prediction cannot be compared with its ground truth; one line each.
    """
    if (pairs is None) == (prediction is None or truth is None) or (pairs and prediction):
        raise SettingsProblem("Give a prediction and a truth, two files or two folders, or --pairs and nothing else.")
    if pairs is not None:
        return score_cases([(row.image, row.label) for row in read_pairs_csv(pairs)], settings)
    sources = str(prediction), str(truth)
    if (
        is_folder(Path(sources[0]).expanduser())
        and not in_order
        and (cases := _labelled(sources[1], label_kind)) is not None
    ):
        return _score_data_set(sources[0], cases, settings)
    if any(is_folder(Path(source).expanduser()) for source in sources):
        kinds = ("predictions", "truth files")
        return score_cases(find_pairs([sources[0]], [sources[1]], kinds, in_order=in_order), settings)
    if len(points := paired_points(*sources, settings.axes or "")) > 1:
        return score_cases(points, settings)
    return score_files(*sources, settings)


def _labelled(truth: str, label_kind: str) -> Cases | None:
    """List the labels of a data set; None for a folder of labels, or a file."""
    folder = Path(truth).expanduser()
    if subjects_of(truth):
        raise FileProblem(
            f"{folder.name} holds images that were cut out; give the folder that it was made of, whose labels have the "
            "grids of the results."
        )
    try:
        return labelled_cases(folder, label_kind) if is_folder(folder) else None
    except DataProblem:
        if not files_in(folder):
            raise
        return None  # names that do not fit together as images and labels: all may be labels


def _score_data_set(prediction: str, cases: Cases, settings: EvaluateSettings) -> Summary:
    """Compare the results of a folder with the labels of a data set, by the names of its images."""
    results = {stem_of(Path(file)).casefold(): file for file in files_in(Path(prediction).expanduser())}
    labels = {case.name.casefold(): case.label for case in cases.cases}
    if not (pairs := [(results[name], label) for name, label in labels.items() if name in results]):
        found = listed(shortened([Path(file).name for file in results.values()], 3)) or "no image"
        expected = listed(shortened([case.name for case in cases.cases], 3))
        raise DataProblem(
            f"No file in {prediction} is named like an image of the data set: there is {found}, expected {expected}."
        )
    notices = [cases.sentence]
    for text, names in (
        ("labelled image(s) have no prediction and are not scored", labels.keys() - results.keys()),
        ("prediction(s) have no labels and are not scored", results.keys() - labels.keys()),
    ):
        notices += [f"{len(names)} {text}: {listed(shortened(sorted(names), MOST_NAMED))}."] if names else []
    summary = score_cases(pairs, _completed(settings, cases.settings))
    return replace(summary, notices=(*notices, *summary.notices))


def _completed(settings: EvaluateSettings, described: Mapping[str, Any]) -> EvaluateSettings:
    """Set what a data set says of its labels, where the settings leave it open."""
    values = {"class_names": described.get("class_names"), "regions": described.get("regions")}
    values |= {"ignore": described.get("ignore_value")}
    chosen = settings.model_dump(exclude_unset=True)
    values = {name: value for name, value in values.items() if value is not None and name not in chosen}
    return checked(EvaluateSettings, values | {name: getattr(settings, name) for name in chosen})


def score_files(prediction: str | Path, truth: str | Path, settings: EvaluateSettings) -> Evaluation:
    """Compare one label file with another.

    Parameters
    ----------
    settings : EvaluateSettings
        If no spacing or unit is set, that of the ground truth file is used, or else that of the prediction; if no
        class names are set, those of the prediction, or else those of the ground truth. If truth_is is "auto" and a
        table of objects lies beside the prediction, values are read as object ids.

    Returns
    -------
    Evaluation

    Raises
    ------
    FileProblem
        If a file is missing or cannot be read.
    DataProblem
        If a file holds no labels, or the shapes differ.
    SettingsProblem
        If settings are in conflict.
    """
    predicted, true = (read_labels(path, axes=settings.axes or "") for path in (prediction, truth))
    stored, predicted = predicted, brought_onto(predicted, true.grid)
    notices = [TURNED] if predicted is not stored else []
    notices += _grid_notices(predicted, true, spacing_is_set=settings.spacing is not None)
    source = true if true.geometry.has_spacing or not predicted.geometry.has_spacing else predicted
    values = np.asarray(true.data[0])
    if white := settings.ignore != WHITE and _is_white_mask(values) and np.asarray(predicted.data[0]).max() <= 1:
        values = (values == WHITE).astype(np.uint8)
    names = [ClassName(value=value, name=name) for value, name in predicted.class_names or true.class_names]
    update = {"spacing": settings.spacing or source.spacing, "unit": settings.unit or source.unit}
    update["class_names"] = settings.class_names or tuple(names)
    has_table = table_beside(split_time(Path(prediction))[0]).exists()
    has_ids = settings.truth_is == "auto" and not settings.regions and has_table
    update |= {"truth_is": "objects"} if has_ids else {}
    evaluation = evaluate(predicted.data[0], values, settings.model_copy(update=update))
    if settings.spacing is not None and source.geometry.has_spacing:
        notices += _overridden(source, settings.spacing, settings.unit or source.unit)
    notices += [f"The truth holds 0 and {WHITE}, the prediction 0 and 1: {WHITE} was read as 1."] if white else []
    return replace(evaluation, notices=(*notices, *evaluation.notices))


def score_cases(pairs: list[Files], settings: EvaluateSettings) -> Summary:
    """Compare several label files with their ground truth.

    Parameters
    ----------
    pairs : list of (prediction, truth)
        At least one; of time series, each time point is a case.
    settings : EvaluateSettings
        If truth_is is "auto" and any ground truth is read as object ids, all are.

    Returns
    -------
    Summary

    Raises
    ------
    DataProblem
        If any pair cannot be read or compared; one line each.
    """
    files = _named([each for pair in pairs for each in paired_points(*pair, settings.axes or "")])
    cases = _each(files, settings)
    if len({evaluation.truth_is for evaluation in cases.values()}) > 1:  # a few objects look like classes
        settings = settings.model_copy(update={"truth_is": "objects"})
        as_classes = {name: files[name] for name, evaluation in cases.items() if evaluation.truth_is == "classes"}
        cases |= _each(as_classes, settings)
    return replace(summarise(cases, settings), files=files)


def as_text(result: Evaluation | Summary, form: Literal["table", "json", "csv"]) -> str:
    """Format scores as text.

    Parameters
    ----------
    form : {"table", "json", "csv"}

    Returns
    -------
    str
        Without a line break at the end.
    """
    if form == "json":
        return json.dumps(result.as_dict(), indent=2, allow_nan=False)
    if form == "table":
        return evaluation_table(result) if isinstance(result, Evaluation) else summary_table(result)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(evaluation_rows(result) if isinstance(result, Evaluation) else summary_rows(result))
    return text.getvalue().rstrip("\n")


def _each(files: Mapping[str, Files], settings: EvaluateSettings) -> dict[str, Evaluation]:
    """Compare each pair and report all errors together."""
    cases, lines = {}, []
    for name, pair in files.items():
        try:
            cases[name] = score_files(*pair, settings)
        except SettingsProblem:
            raise
        except UserError as problem:
            lines += [line if line.startswith(name) else f"{name}: {line}" for line in problem.lines]
    if lines:
        raise DataProblem(*lines)
    return cases


def _named(pairs: list[Files]) -> dict[str, Files]:
    """Name each case after the file of its prediction, or by its full path if file names repeat."""
    names = [stem_of(paths_of(prediction)[0]) for prediction, _ in pairs]
    count = Counter(names)
    return {name if count[name] == 1 else pair[0]: pair for name, pair in zip(names, pairs, strict=True)}


def _is_white_mask(values: NDArray[Any]) -> bool:
    """Whether labels are a mask that was saved as a black and white picture."""
    return bool(values.max() == WHITE and np.isin(values, (0, WHITE)).all())


def _overridden(source: Volume, spacing: Spacing, unit: str) -> list[str]:
    """Say that a voxel size that was set takes the place of that of the files, if it is another one."""
    own = spacing_in(source.spacing, unit_name(source.unit), unit_name(unit))
    if own is not None and np.allclose(own, spacing, rtol=1e-4, atol=0):
        return []
    sizes = [" x ".join(f"{edge:.4g}" for edge in edges) for edges in (spacing, source.spacing)]
    return [f"Voxels of {sizes[0]} {unit} were set; {source.name} states {sizes[1]} {source.unit}."]


def _grid_notices(predicted: Volume, true: Volume, *, spacing_is_set: bool) -> list[str]:
    """Warn if two files of the same shape lie in different places, or differ in a voxel size that was not set."""
    found = difference(true.grid, predicted.grid, "the truth")
    if found is None or found.kind == "shape" or (spacing_is_set and found.kind in {"spacing", "unit"}):
        return []
    size = "" if spacing_is_set else ", with the voxel size of the truth"
    return [
        f"The prediction {found.text}. Voxels were compared by array index{size}; resample one file to the grid of the "
        "other if this is not intended."
    ]
