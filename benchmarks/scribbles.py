"""Accuracy after a minute of training on a few scribbles on one image, and on full labels of the same image.

Run: python benchmarks/scribbles.py --data FOLDER [--seconds 60] [--write FILE]

FOLDER as for accuracy.py. Random strokes (seeded) are drawn inside each class until just under 1 % of the pixels are
painted; scores are of the unpainted pixels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from accuracy import PROGRAM, SETS, splits_of
from tifffile import imread

PAINTED, LONGEST = 0.009, 40
IMAGES = {"dsb2018_nuclei": 0, "axondeepseg_sem": 0}
"""Index of the training image that is scribbled on."""


def scribbled(classes, rng):
    """Paint strokes one pixel wide inside the classes, equally for each class; 0 is unpainted, class k is k + 1."""
    painted = np.zeros_like(classes)
    values = np.unique(classes)
    share = PAINTED * classes.size / len(values)
    for value in values:
        inside = np.argwhere(classes == value)
        while (painted == value + 1).sum() < share:
            y, x = inside[rng.integers(len(inside))].astype(float)
            angle = rng.uniform(0, 2 * np.pi)
            for _ in range(LONGEST):
                row, column = round(y), round(x)
                within = 0 <= row < classes.shape[0] and 0 <= column < classes.shape[1]
                if not within or classes[row, column] != value or (painted == value + 1).sum() >= share:
                    break
                painted[row, column] = value + 1
                angle += rng.normal(0, 0.2)
                y, x = y + np.sin(angle), x + np.cos(angle)
    return painted


def dice(labels, truth, where):
    """Return the mean Dice of the foreground classes."""
    scores = []
    for value in np.unique(truth)[1:]:
        a, b = (labels == value) & where, (truth == value) & where
        scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(scores))


def train_and_segment(image, labels, folder, seconds, options):
    """Train on one image and label it."""
    np.save(folder / "labels.npy", labels)
    model, out = folder / "model.safetensors", folder / "out.npy"
    model.unlink(missing_ok=True)  # a training does not replace a model that it cannot be compared with
    command = ["train", "--image", image, "--label", folder / "labels.npy", "--view", "2d", "--minutes", seconds / 60]
    command += ["--start-from", "none"]  # shipped models have learnt these images
    for words in (
        [*command, *options, "--output", model, "--run", folder / "runs"],
        ["segment", image, "--model", model, "--output", out, "--run", folder / "runs"],
    ):
        subprocess.run([*PROGRAM, *map(str, words)], check=True, capture_output=True)
    return np.load(out).reshape(labels.shape)


def main():
    """Run both data sets and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", ""]
    lines += ["| set | painted | Dice from scribbles | Dice from full labels | ratio |", "|---|---|---|---|---|"]
    for name, index in IMAGES.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            image, label = SETS[name][0](parsed.data, splits_of(parsed.data), folder)["train"][index]
            truth = np.load(label) if label.suffix == ".npy" else imread(label)
            truth = truth.reshape(truth.shape[-2:])
            truth = (truth > 0).astype(np.uint8) if name == "dsb2018_nuclei" else truth.astype(np.uint8)
            painted = scribbled(truth, np.random.default_rng(0))
            unpainted = painted == 0
            options = ["--unlabelled", "ignore", "--background", "1"]
            sparse = train_and_segment(image, painted, folder, parsed.seconds, options)
            sparse = np.where(sparse > 0, sparse - 1, 0)  # the background is 0 in results
            full = train_and_segment(image, truth, folder, parsed.seconds, [])
        scores = [dice(labels, truth, unpainted) for labels in (sparse, full)]
        fraction = f"{(painted > 0).mean():.2%}"
        lines.append(f"| {name} | {fraction} | {scores[0]:.3f} | {scores[1]:.3f} | {scores[0] / scores[1]:.3f} |")
        print("\n".join(lines), flush=True)
        if parsed.write:
            parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
