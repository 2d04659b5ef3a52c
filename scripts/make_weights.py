"""Make the models in weights/: train on public data sets, score, and keep what scores better than what is there.

Run: python scripts/make_weights.py --data FOLDER [--only NAME ...] [--work FOLDER] [--output FOLDER]

FOLDER is that of benchmarks/accuracy.py: a folder for each data set, and splits.json. A model learns from the part
"train" of its set; the part "val" chooses the best epoch and gives the scores. An interrupted training is resumed, and
one that is finished in the work folder is only scored. With --readme only weights/README.md is written anew.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from weights_readme import write_readme
from weights_table import MODELS, Recipe

from napari_unetvnet.cli.main import main as program
from napari_unetvnet.events import EpochDone, RunFinished
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.json_files import write_json
from napari_unetvnet.model.card import ModelCard, read_card
from napari_unetvnet.model.saved import save_model
from napari_unetvnet.runs.folder import follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weights_table import Files, Pairs

    from napari_unetvnet.events import Event

ROOT = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-m", "napari_unetvnet"]
AGREEMENT = 0.999
"""Fraction of voxels to which float16 weights must give the same label as float32 ones."""
FROM_TRAIN_ALONE = ("--final-fit", "0", "--start-from", "none")
"""A final fit would learn the validation part, whose scores are shown; a shipped model may have seen it."""
COMPARED = 3
"""Images of the validation part on which that is measured, at most."""
CURVE = 10
"""Scores of the curve."""


def main() -> None:
    """Make the chosen models, and the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Folder of the data sets.")
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS), help="Models to make.")
    parser.add_argument("--work", type=Path, default=Path("build/weights"), help="Folder for trainings and results.")
    parser.add_argument("--output", type=Path, default=ROOT / "weights", help="Folder of the shipped models.")
    parser.add_argument("--readme", action="store_true", help="Only write README.md anew.")
    parsed = parser.parse_args()
    if parsed.data is None and not parsed.readme:
        parser.error("give --data FOLDER, or --readme")
    for name in [] if parsed.readme else parsed.only:
        make(name, parsed.data, (parsed.work / name).absolute(), parsed.output)
    write_readme(parsed.output)


def make(name: str, data: Path, work: Path, output: Path) -> None:
    """Train, score and, if it is better than the present one, publish a model."""
    work.mkdir(parents=True, exist_ok=True)
    recipe = MODELS[name]
    pairs = recipe.reader(data, json.loads((data / "splits.json").read_text()), work)
    run = train(recipe, pairs, work)
    candidate = scored_file(name, recipe, run / "model.safetensors", pairs["val"], work)
    score, target = read_card(candidate).scores[recipe.decides], output / f"{name}.safetensors"
    before = read_card(target).scores[recipe.decides] if target.exists() else 0.0
    if score <= before:
        print(f"{name}: {recipe.decides} {score:.4f} is not better than {before:.4f}; not replaced.", flush=True)
        return
    shutil.copyfile(candidate, target)
    records = output / "trainings.json"
    known = json.loads(records.read_text()) if records.exists() else {}
    write_json(records, dict(sorted((known | {name: record(recipe, run, work)}).items())))
    print(f"{name}: {recipe.decides} {score:.4f} instead of {before:.4f}; {target} is new.", flush=True)


def train(recipe: Recipe, pairs: Pairs, work: Path) -> Path:
    """Train on the training part, or finish a training that was interrupted.

    Returns
    -------
    Path
        The run folder.
    """
    with (work / "pairs.csv").open("w", newline="") as file:
        rows = [(image.absolute(), label.absolute(), part) for part, files in pairs.items() for image, label in files]
        csv.writer(file).writerows([("image", "label", "split"), *rows])
    runs = sorted(path.parent for path in (work / "runs").glob("*/job.json"))
    if runs and finished(follow(runs[-1])[0], recipe.steps):
        return runs[-1]
    begin = cpu_minutes()
    results = ("--output", str(work / "trained.safetensors"), "--run", str(work / "runs"))
    new = ("train", "--pairs", str(work / "pairs.csv"), *recipe.options, *FROM_TRAIN_ALONE, *results)
    words = ("run", str(runs[-1]), "--resume") if runs else new
    done = subprocess.run([*PROGRAM, *words, "--steps", str(recipe.steps)])
    spent = work / "minutes.json"
    before = json.loads(spent.read_text()) if spent.exists() else 0.0
    write_json(spent, before + cpu_minutes() - begin)
    done.check_returncode()
    return next(path.parent for path in sorted((work / "runs").glob("*/job.json"))[-1:])


def finished(events: Sequence[Event], steps: int) -> bool:
    """Say whether a training has come to its end, after so many steps or more.

    Returns
    -------
    bool
    """
    done = any(isinstance(event, RunFinished) and event.state == "done" for event in events)
    return done and max(event.step for event in events if isinstance(event, EpochDone)) >= steps


def cpu_minutes() -> float:
    """Give the CPU time of all commands that have ended.

    Returns
    -------
    float
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) / 60


def command(*words: str) -> str:
    """Run a command of the program, in this process, which loads torch once.

    Returns
    -------
    str
        What it printed.

    Raises
    ------
    SystemExit
        If it failed; it has said why.
    """
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = program(list(words))
    if status:
        raise SystemExit(status)
    return printed.getvalue()


def scored_file(name: str, recipe: Recipe, model: Path, val: Files, work: Path) -> Path:
    """Write a model as it is shipped, with a complete card: in half precision, if that hardly changes a label.

    Returns
    -------
    Path
    """
    path, weights, card = work / f"{name}.safetensors", load_file(model), read_card(model)
    save_model(path, weights, card, half=True)
    exact, half = (segmented(recipe, file, val[:COMPARED], work / file.stem) for file in (model, path))
    pairs = [(read_labels(a).data, read_labels(b).data) for a, b in zip(exact, half, strict=True)]
    by_ids = recipe.truth == "objects"  # one more object gives all later ones other ids
    same = [(a > 0) == (b > 0) if by_ids else a == b for a, b in pairs]
    agreement = sum(part.sum() for part in same) / sum(part.size for part in same)
    print(f"{name}: kernels in float16 give {agreement:.3%} of the voxels the same label.", flush=True)
    is_half = bool(agreement >= AGREEMENT)
    labels = segmented(recipe, path if is_half else model, val, work / "scored")
    scores = card.scores | validated(recipe, labels, val, work)
    save_model(path, weights, completed(recipe, card, scores), half=is_half)
    return path


def completed(recipe: Recipe, card: ModelCard, scores: dict[str, float]) -> ModelCard:
    """Add to a card what only the table of models knows.

    Returns
    -------
    ModelCard
    """
    about = {name: getattr(recipe, name) for name in ("task", "data", "licence", "attribution")}
    return card.model_copy(update={**about, "scores": {key: round(value, 4) for key, value in scores.items()}})


def segmented(recipe: Recipe, model: Path, val: Files, folder: Path) -> list[Path]:
    """Segment the images of the validation part.

    Returns
    -------
    list of Path
        Classes, or ids of objects if the recipe says so.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    results = [folder / f"{i}{'.nii.gz' if image.suffix == '.gz' else '.tif'}" for i, (image, _) in enumerate(val)]
    for (image, _), result in zip(val, results, strict=True):
        words = ("segment", str(image), "--model", str(model), "--output", str(result), *recipe.segment)
        command(*words, "--run", str(folder / "runs"))
    return results


def validated(recipe: Recipe, labels: Sequence[Path], val: Files, work: Path) -> dict[str, float]:
    """Score labels of the validation part: means over its images.

    Returns
    -------
    dict of str to float
        Keys begin with "val_".
    """
    with (work / "scored.csv").open("w", newline="") as file:
        rows = zip(labels, [truth for _, truth in recipe.truth_of(val, work)], strict=True)
        csv.writer(file).writerows([("image", "label"), *rows])
    words = ["evaluate", "--pairs", str(work / "scored.csv"), "--no-surfaces", "--json"]
    words += ["--truth-is", "objects" if recipe.truth == "objects" else "classes"]
    found: dict[str, Any] = json.loads(command(*words))
    mean = found.get("mean_over_cases", found)
    scores = {"val_dice": mean["mean_dice"]}
    if recipe.truth == "objects":
        return scores | {"val_object_f1": mean["object_f1"], "val_object_f1_pooled": found["pooled"]["objects"]["f1"]}
    classes = mean.get("parts") or mean["classes"]
    named = {value: item for value, item in classes.items() if value not in {"0", "foreground"}}
    return scores | ({f"val_dice_{value}": item["dice"] for value, item in named.items()} if len(named) > 1 else {})


def record(recipe: Recipe, run: Path, work: Path) -> dict[str, Any]:
    """Say how a model was trained.

    Returns
    -------
    dict of str to anything JSON can hold
    """
    epochs = [event for event in follow(run)[0] if isinstance(event, EpochDone) and event.dice is not None]
    chosen = [epochs[round(i * len(epochs) / CURVE) - 1] for i in range(1, CURVE + 1)]
    return {
        "train": [*recipe.options, *FROM_TRAIN_ALONE, "--steps", str(epochs[-1].step)],
        "segment": list(recipe.segment),
        "cpu_minutes": round(json.loads((work / "minutes.json").read_text()), 1),
        "curve": [[event.step, round(event.dice or 0.0, 3)] for event in chosen],
    }


if __name__ == "__main__":
    main()
