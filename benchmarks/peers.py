"""Comparison with what needs no network: Otsu's threshold and a random forest on filters, by equal CPU time.

Run: python benchmarks/peers.py --data FOLDER --results FILE.jsonl [--sets NAME ...] [--methods otsu forest network]
     [--seconds 30 120] [--write FILE.md]

FOLDER as for accuracy.py. All methods see the same training images and are scored by the same command on the same
validation images. Seconds are CPU time of the training, on one core. Scores are added to the results; those that are
there are not measured again, and the table and the picture are made from all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import accuracy
import nibabel
import numpy as np
from accuracy import SETS, boundary_truth, predict, score, splits_of, train
from PIL import Image
from tifffile import imread

CPU_CLOCK = """
import sys, time, types
from napari_unetvnet.training import loop
loop.time = types.SimpleNamespace(monotonic=time.process_time)
from napari_unetvnet.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with minutes of CPU time."""
PIXELS_PER_SECOND = 1000
"""Labelled pixels that the forest learns from, for a second of its budget."""
MOST_TREES = 100
SIGMAS = {"sigma_min": 1, "sigma_max": 16}
SCANNED = 500_000
"""Pixels on which the thresholds of Otsu are compared."""


def read(path):
    """Read an image with its channels last, (..., C), or labels (...)."""
    if path.suffix == ".gz":
        return np.asarray(nibabel.load(path).dataobj)
    if path.suffix in (".tif", ".tiff"):
        return imread(path).squeeze()
    array = np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))
    return np.moveaxis(array, 0, -1).squeeze() if array.ndim == 4 else array.squeeze()


def write(labels, path, like):
    """Write labels on the grid of their image."""
    if like.suffix == ".gz":
        path = path.with_name(f"{path.name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), nibabel.load(like).affine), path)
        return path
    path = path.with_name(f"{path.name}.npy")
    np.save(path, labels.astype(np.uint8))
    return path


class Task:
    """The pairs of a set, read: images (..., C) in z-scores and class labels."""

    def __init__(self, name, data, folder):
        self.name, self.folder = name, folder
        self.pairs = SETS[name][0](data, splits_of(data), folder)
        lines, objects = "boundaries" in SETS[name][1], name == "dsb2018_nuclei"
        self.files = {p: boundary_truth(f, folder) if lines else f for p, f in self.pairs.items()}
        ndim = read(self.files["val"][0][1]).ndim
        self.images = {part: [scaled(read(image), ndim) for image, _ in rows] for part, rows in self.files.items()}
        labels = {part: [read(label) for _, label in rows] for part, rows in self.files.items()}
        self.labels = {part: [row > 0 if objects else row for row in rows] for part, rows in labels.items()}
        self.classes = int(max(row.max() for row in self.labels["train"])) + 1

    def score(self, results, word):
        """Score label images of the validation set."""
        (self.folder / word).mkdir()
        rows = []
        for i, ((image, truth), labels) in enumerate(zip(self.files["val"], results, strict=True)):
            rows.append((write(labels, self.folder / word / f"case{i:03}", image), truth))
        return score(self.name, rows, self.folder)


def scaled(image, ndim):
    """Give z-scores of each channel, float32 (..., C)."""
    image = image[..., None] if image.ndim == ndim else image
    axes = tuple(range(image.ndim - 1))
    spread = image.std(axis=axes)
    return ((image - image.mean(axis=axes)) / np.where(spread > 0, spread, 1)).astype(np.float32)


def otsu(task, seconds):
    """Threshold each image by itself; of channels and orders of the classes, the one that fits its truth best."""
    del seconds
    return [best_thresholds(*row, task.classes) for row in zip(task.images["val"], task.labels["val"], strict=True)]


def best_thresholds(image, truth, classes):
    """Try each channel, and each order of the classes: bright or dark objects, for one class."""
    from skimage.filters import threshold_multiotsu

    channels = [np.digitize(each, threshold_multiotsu(each, classes)) for each in np.moveaxis(image, -1, 0)]
    orders = [np.array(order) for order in itertools.permutations(range(classes))]
    results = [order[channel] for channel in channels for order in orders]
    return max(results, key=lambda result: mean_dice(result, truth, classes))


def mean_dice(result, truth, classes):
    """Give the mean Dice of the foreground classes of about half a million pixels."""
    step = max(1, truth.size // SCANNED)
    a, b = result.ravel()[::step], truth.ravel()[::step]
    sums = [((a == k) & (b == k)).sum() * 2 / max(1, (a == k).sum() + (b == k).sum()) for k in range(1, classes)]
    return float(np.mean(sums))


def features(image):
    """Filter an image at several scales: smoothed, edges, and eigenvalues of the Hessian; (..., F)."""
    from skimage.feature import multiscale_basic_features

    many = multiscale_basic_features(image, channel_axis=-1, workers=1, **SIGMAS)
    return np.concatenate([many, image], axis=-1).astype(np.float32)


def forest(task, seconds):
    """Learn a random forest from random labelled pixels of the training images, in a budget of CPU time."""
    from sklearn.ensemble import RandomForestClassifier

    began, rng = time.process_time(), np.random.default_rng(0)
    order = rng.permutation(len(task.images["train"]))
    share = int(seconds * PIXELS_PER_SECOND) // len(order)
    rows, values = [], []
    for i in order:
        if rows and time.process_time() - began > seconds / 2:
            break
        many, labels = features(task.images["train"][i]), task.labels["train"][i]
        places = rng.choice(labels.size, min(labels.size, share), replace=False)
        rows.append(many.reshape(-1, many.shape[-1])[places])
        values.append(labels.ravel()[places])
    rows, values = np.concatenate(rows), np.concatenate(values)
    model = RandomForestClassifier(0, warm_start=True, random_state=0, n_jobs=1)
    while model.n_estimators < MOST_TREES and (time.process_time() - began < seconds or not model.n_estimators):
        model.n_estimators += 5
        model.fit(rows, values)
    print(f"  {len(rows)} pixels of {len(order)} images, {model.n_estimators} trees", flush=True)
    task.trained = time.process_time() - began
    return [classified(model, image) for image in task.images["val"]]


def classified(model, image):
    """Classify the pixels of an image."""
    many = features(image)
    return model.predict(many.reshape(-1, many.shape[-1])).reshape(image.shape[:-1])


def network(task, seconds):
    """Train this program with its automatic settings, and segment; minutes are CPU time."""
    program, accuracy.PROGRAM = accuracy.PROGRAM, [sys.executable, "-c", CPU_CLOCK]
    began = children()
    model = train(task.name, task.pairs, task.folder, seconds / 60, ["--device", "cpu"])
    task.trained, accuracy.PROGRAM = children() - began, program
    return partial(predict, task.name, task.pairs, model, task.folder)


def children():
    """Give the CPU time of the finished child processes, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


METHODS = {"otsu": otsu, "forest": forest, "network": network}


def measure(name, method, seconds, data):
    """Train and score one method on one set."""
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(name, data, Path(scratch))
        task.trained = 0.0
        began = time.process_time() + children()
        results = METHODS[method](task, seconds)
        rows = results() if callable(results) else None
        used = time.process_time() + children() - began
        scores = task.score(results, "scored") if rows is None else score(name, rows, task.folder)
    facts = {"set": name, "method": method, "budget": seconds, "train_s": task.trained}
    return facts | {"segment_s": used - task.trained} | scores


OBJECTS = ("dsb2018_nuclei", "qcanet_embryo3d")
"""Sets of which the truth are objects, or their connected components."""
WORDS = {"otsu": "Otsu", "forest": "random forest", "network": "this program"}


def table(rows):
    """Give the table of all scores."""
    lines = ["| set | method | training, s | segmenting, s | Dice | of each class | objects F1 |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda r: (list(SETS).index(r["set"]), list(METHODS).index(r["method"]), r["train_s"])):
        named = {key.removeprefix("dice_"): value for key, value in row.items() if key.startswith("dice_")}
        parts = [f"{key} {value:.3f}" for key, value in named.items() if key != "foreground"]
        objects = "" if row["set"] not in OBJECTS or row.get("object_f1") is None else f"{row['object_f1']:.3f}"
        segmenting = "" if row["segment_s"] is None else f"{row['segment_s']:.0f}"
        lines.append(
            f"| {row['set']} | {WORDS[row['method']]} | {row['train_s']:.0f} | {segmenting} | "
            f"{row['mean_dice']:.3f} | {', '.join(parts)} | {objects} |"
        )
    return "\n".join(lines) + "\n"


WIDTH, HEIGHT, EDGE, COLUMNS = 230, 170, 38, 3
COLOURS = {"otsu": "#777777", "forest": "#d17b0f", "network": "#1f6fb4"}
FIRST_S, LAST_S = 1.0, 1000.0


def picture(rows):
    """Draw Dice against the CPU time of the training, one diagram for each set."""
    names = [name for name in SETS if any(row["set"] == name for row in rows)]
    tall = -(-len(names) // COLUMNS) * HEIGHT + 24
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {tall}" font-family="sans-serif" '
             'font-size="10">', f'<rect width="{COLUMNS * WIDTH}" height="{tall}" fill="white"/>']  # fmt: skip
    for i, (method, colour) in enumerate(COLOURS.items()):
        parts.append(f'<circle cx="{EDGE + 130 * i}" cy="12" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{EDGE + 8 + 130 * i}" y="16">{WORDS[method]}</text>')
    for i, name in enumerate(names):
        parts += diagram([row for row in rows if row["set"] == name], name, i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT)
    return "\n".join([*parts, "</svg>\n"])


def diagram(rows, name, left, top):
    """Draw the diagram of one set."""
    right, low, high = left + WIDTH - 24, top + HEIGHT - 12, top + 46
    low_y = low - 16

    def place(row):
        along = np.log(max(row["train_s"], FIRST_S) / FIRST_S) / np.log(LAST_S / FIRST_S)
        return left + EDGE + along * (right - left - EDGE), low_y - row["mean_dice"] * (low_y - high)

    yield f'<text x="{left + EDGE}" y="{high - 6}" font-weight="bold">{name}</text>'
    for dice in (0, 0.5, 1):
        y = low_y - dice * (low_y - high)
        yield f'<path d="M{left + EDGE} {y:.1f}H{right}" stroke="#dddddd"/>'
        yield f'<text x="{left + EDGE - 4}" y="{y + 3:.1f}" text-anchor="end">{dice:g}</text>'
    for seconds in (1, 10, 100, 1000):
        x = place({"train_s": seconds, "mean_dice": 0})[0]
        yield f'<text x="{x:.1f}" y="{low_y + 12}" text-anchor="middle">{seconds} s</text>'
    for method, colour in COLOURS.items():
        points = sorted(place(row) for row in rows if row["method"] == method)
        if len(points) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            yield f'<path d="M{path}" stroke="{colour}" fill="none"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points)


def main():
    """Measure what is asked for, and write table and picture of all results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seconds", nargs="+", type=float, default=[30, 120])
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parsed.results.touch()
    rows = [json.loads(line) for line in parsed.results.read_text().splitlines()]
    done = {(row["set"], row["method"], row["budget"]) for row in rows}
    for method, seconds, name in itertools.product(parsed.methods, parsed.seconds, parsed.sets):
        case = name, method, 0 if method == "otsu" else seconds
        if case in done:
            continue
        done.add(case)
        rows.append(measure(*case, parsed.data))
        with parsed.results.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(json.dumps(rows[-1]), flush=True)
    if parsed.write:
        parsed.write.write_text(table(rows))
        parsed.write.with_suffix(".svg").write_text(picture(rows))


if __name__ == "__main__":
    main()
