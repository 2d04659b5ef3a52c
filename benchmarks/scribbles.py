"""What a handful of scribbles on one image gives in a minute, beside full labels of the same image in the same time.

Run: python benchmarks/scribbles.py --data FOLDER [--seconds 60] [--write FILE]

FOLDER as for accuracy.py. Strokes are drawn by chance (seeded) inside each class until a little under 1 % of the pixels
are painted; scored are the pixels that are not painted.
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
"""Which image of the training part is scribbled on."""


def scribbled(classes, rng):
    """Paint strokes of one pixel's width inside the classes, each class as much; 0 is unpainted, class k is k + 1."""
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


def dice(found, truth, where):
    """Give the mean Dice of the foreground classes."""
    scores = []
    for value in np.unique(truth)[1:]:
        a, b = (found == value) & where, (truth == value) & where
        scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(scores))


def learnt(image, labels, folder, seconds, options):
    """Train on one image and label it."""
    np.save(folder / "labels.npy", labels)
    model, out = folder / "model.safetensors", folder / "out.npy"
    command = ["train", "--image", image, "--label", folder / "labels.npy", "--view", "2d", "--minutes", seconds / 60]
    for words in (
        [*command, *options, "--output", model, "--run", folder / "runs"],
        ["segment", image, "--model", model, "--output", out, "--run", folder / "runs"],
    ):
        subprocess.run([*PROGRAM, *map(str, words)], check=True, capture_output=True)
    return np.load(out).reshape(labels.shape)


def main():
    """Run both sets and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", ""]
    lines += ["| set | painted | Dice from scribbles | Dice from full labels | ratio |", "|---|---|---|---|---|"]
    for name, place in IMAGES.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            image, label = SETS[name][0](given.data, splits_of(given.data), folder)["train"][place]
            truth = np.load(label) if label.suffix == ".npy" else imread(label)
            truth = truth.reshape(truth.shape[-2:])
            truth = (truth > 0).astype(np.uint8) if name == "dsb2018_nuclei" else truth.astype(np.uint8)
            painted = scribbled(truth, np.random.default_rng(0))
            rest = painted == 0
            few = learnt(image, painted, folder, given.seconds, ["--unlabelled", "ignore", "--background", "1"])
            few = np.where(few > 0, few - 1, 0)  # the background comes back as 0
            full = learnt(image, truth, folder, given.seconds, [])
        scores = [dice(found, truth, rest) for found in (few, full)]
        share = f"{(painted > 0).mean():.2%}"
        lines.append(f"| {name} | {share} | {scores[0]:.3f} | {scores[1]:.3f} | {scores[0] / scores[1]:.3f} |")
        print("\n".join(lines), flush=True)
        if given.write:
            given.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
