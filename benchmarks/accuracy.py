"""Accuracy of automatic settings on real data sets in a fixed time: train, then score the validation set.

Run: python benchmarks/accuracy.py --data FOLDER [--sets NAME ...] [--minutes 10] [--write FILE] [-- OPTION ...]

FOLDER holds a folder for each data set and splits.json. Options after -- are passed to every training.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tifffile import imwrite

PROGRAM = [sys.executable, "-m", "napari_unetvnet"]


def read_image(path):
    """Read a colour or grey image as (C, 1, Y, X) without alpha."""
    image = np.asarray(Image.open(path).convert("RGB" if Image.open(path).mode in ("RGB", "RGBA", "P") else "L"))
    return (image[None, None] if image.ndim == 2 else np.moveaxis(image, -1, 0)[:, None]).copy()


def hippocampus(data, splits, folder):
    """Anterior and posterior hippocampus, 3D."""
    names = splits["msd_hippocampus"]
    root = data / "msd_hippocampus"
    return {part: [(root / "images" / n, root / "labels" / n) for n in names[part]] for part in ("train", "val")}


def nuclei(data, splits, folder):
    """Nuclei, fluorescence and H&E; grey images get three channels."""
    root, names = data / "dsb2018_nuclei", splits["dsb2018_nuclei"]
    pairs = {"train": [], "val": []}
    for part, files in pairs.items():
        for name in names[part]:
            image = read_image(next(root.glob(f"**/{name}*.png")))
            np.save(folder / f"{name}.npy", np.repeat(image, 3, axis=0) if len(image) == 1 else image)
            files.append((folder / f"{name}.npy", next(root.glob(f"**/{name}*.tif"))))
    return pairs


def axons(data, splits, folder):
    """Axon 1 and myelin 2."""
    root, names = data / "axondeepseg_sem", splits["axondeepseg_sem"]
    pairs = {"train": [], "val": []}
    for part, files in pairs.items():
        for name in names[part]:
            image = read_image(next(p for p in root.glob(f"**/{name}*.png") if "derivatives" not in p.parts))[:1]
            mask = read_image(next(root.glob(f"derivatives/**/{name}*axonmyelin*.png")))[0]
            labels = np.where(mask > 190, 1, np.where(mask > 60, 2, 0)).astype(np.uint8)
            np.save(folder / f"{name}.npy", image[0])
            np.save(folder / f"{name}_labels.npy", labels)
            files.append((folder / f"{name}.npy", folder / f"{name}_labels.npy"))
    return pairs


def vessels(data, splits, folder):
    """Vessels of the retina."""
    root, names = data / "chasedb1", splits["chasedb1"]
    pairs = {"train": [], "val": []}
    for part, files in pairs.items():
        for name in names[part]:
            labels = (np.asarray(Image.open(root / f"{name}_1stHO.png").convert("L")) > 127).astype(np.uint8)
            imwrite(folder / f"{name}_labels.tif", labels)
            files.append((root / f"{name}.jpg", folder / f"{name}_labels.tif"))
    return pairs


def membranes(data, splits, folder):
    """Boundaries of neurons in the planes of an isotropic stack: contacts of different ids, dilated by 1."""
    from tifffile import imread

    root, names = data / "fibsem_medulla", splits["fibsem_medulla"]
    ids = imread(root / "neuron_labels_zyx.tif")
    image = np.stack([read_image(path)[0, 0] for path in sorted((root / "raw").glob("*.png"))])
    pairs = {}
    for part in ("train", "val"):
        a, b = names[f"{part}_z"]
        np.save(folder / f"{part}.npy", image[a:b])
        np.save(folder / f"{part}_labels.npy", ids[a:b].astype(np.int32))
        pairs[part] = [(folder / f"{part}.npy", folder / f"{part}_labels.npy")]
    return pairs


def embryo(data, splits, folder):
    """Nuclei of an embryo, 3D; the first 45 rows, with two of the eight nuclei, are the validation set."""
    from tifffile import imread

    root = data / "qcanet_embryo3d"
    volume, labels = imread(root / "raw_8_cell_stage.tif"), (imread(root / "nsn_8_cell_stage.tif") > 0).astype(np.uint8)
    pairs = {}
    for part, rows in (("train", slice(47, None)), ("val", slice(0, 45))):
        np.save(folder / f"{part}.npy", volume[:, rows])
        np.save(folder / f"{part}_labels.npy", labels[:, rows])
        pairs[part] = [(folder / f"{part}.npy", folder / f"{part}_labels.npy")]
    return pairs


SETS = {
    "msd_hippocampus": (hippocampus, ["--view", "3d"], "mean_dice", 0.84),
    "dsb2018_nuclei": (nuclei, ["--view", "2d", "--label-values", "objects"], "mean_dice", 0.91),
    "axondeepseg_sem": (axons, ["--view", "2d"], "mean_dice", 0.865),
    "chasedb1": (vessels, ["--view", "2d"], "mean_dice", 0.77),
    "fibsem_medulla": (
        membranes,
        ["--view", "2.5d", "--label-values", "objects", "--objects-as", "boundaries", "--boundary-width", "2"],
        "",
        0.84,
    ),
    "qcanet_embryo3d": (embryo, ["--view", "3d", "--spacing", "2.18", "1", "1"], "mean_dice", 0.80),
}


def boundary_truth(pairs, folder):
    """Write the ground truth of the boundaries."""
    from napari_unetvnet.data.targets import boundaries

    truths = []
    for image, label in pairs:
        path = folder / f"{label.stem}_boundaries.npy"
        np.save(path, boundaries(np.load(label), width=2, planar=True).astype(np.uint8))
        truths.append((image, path))
    return truths


def splits_of(data):
    """Read the split into training and validation images."""
    return json.loads((data / "splits.json").read_text())


def train(name, pairs, folder, minutes, options):
    """Train on the training set and return the model file."""
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *pairs["train"]])
    model = folder / "model.safetensors"
    command = ["train", "--pairs", folder / "pairs.csv", "--minutes", minutes, *SETS[name][1]]
    command += ["--start-from", "none", *options]  # shipped models have learnt these images
    subprocess.run([*PROGRAM, *map(str, command), "--output", str(model), "--run", str(folder / "runs")], check=True)
    return model


def predict(name, pairs, model, folder):
    """Segment the validation set and return pairs of prediction and ground truth."""
    (folder / "predictions").mkdir()
    options, rows = SETS[name][1], []
    spacing = options[options.index("--spacing") : options.index("--spacing") + 4] if "--spacing" in options else []
    for image, truth in boundary_truth(pairs["val"], folder) if "boundaries" in options else pairs["val"]:
        out = (
            folder / "predictions" / f"{Path(image).name.split('.')[0]}.{'nii.gz' if image.suffix == '.gz' else 'npy'}"
        )
        words = ["segment", image, "--model", model, "--output", out, "--run", folder / "runs", *spacing]
        subprocess.run([*PROGRAM, *map(str, words)], check=True, capture_output=True)
        rows.append((out, truth))
    return rows


def score(name, rows, folder):
    """Score pairs of prediction and ground truth."""
    with (folder / "scored.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    command = ["evaluate", "--pairs", folder / "scored.csv", "--no-surfaces", "--json"]
    command += ["--truth-is", "objects"] if name == "dsb2018_nuclei" else []
    process = subprocess.run([*PROGRAM, *map(str, command)], check=True, capture_output=True, text=True)
    return _main_scores(json.loads(process.stdout))


def run(name, data, minutes, options, keep):
    """Train on one data set, segment its validation set, and return the scores."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep / name if keep else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        pairs = SETS[name][0](data, splits_of(data), folder)
        model = train(name, pairs, folder, minutes, options)
        return score(name, predict(name, pairs, model, folder), folder), SETS[name][3]


def _main_scores(scores):
    """Select the scores that have goals; a set of one case has no means."""
    mean = scores.get("mean_over_cases") or scores
    classes = mean.get("parts") or mean.get("classes", {})
    overall = {"mean_dice": mean["mean_dice"], "object_f1": mean.get("object_f1")}
    return overall | {f"dice_{name}": row["dice"] for name, row in classes.items() if name != "0"}


def main():
    """Run the chosen data sets and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--keep", type=Path, help="Folder for models, runs and labels; by default they are removed.")
    parsed, options = parser.parse_known_args()
    rows = ["| set | minutes | scores | goal |", "|---|---|---|---|"]
    for name in parsed.sets:
        scores, goal = run(name, parsed.data, parsed.minutes, [o for o in options if o != "--"], parsed.keep)
        rows.append(f"| {name} | {parsed.minutes:g} | {json.dumps(scores)[:300]} | {goal} |")
        print("\n".join(rows), flush=True)
    if parsed.write:
        parsed.write.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
