"""Accuracy after a minute of training on a few scribbles on one image, and on full labels of the same image.

Run: python benchmarks/scribbles.py --data FOLDER [--sets NAME ...] [--seconds 60] [--seeds 0] [--write FILE]

FOLDER as for accuracy.py; the sets are those of auto.py that are planes, of each the first training image. Random
strokes (seeded) are drawn inside each class until just under 1 % of the pixels are painted; scores are of the unpainted
pixels. Seconds are CPU time of one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from accuracy import splits_of

PAINTED, LONGEST = 0.009, 40
IGNORED = 255
CPU_CLOCK = """
import sys, time, types, torch
torch.set_num_threads(1)
from napari_unetvnet.training import loop
from napari_unetvnet.training.plan import pace
loop.time = pace.time = types.SimpleNamespace(monotonic=time.process_time)
from napari_unetvnet.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with minutes of CPU time."""


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
    """Train on one image, (Y, X) labels, and label it."""
    np.save(folder / "labels.npy", labels)
    model, out = folder / "model.safetensors", folder / "out.npy"
    model.unlink(missing_ok=True)  # a training does not replace a model that it cannot be compared with
    command = ["train", "--image", image, "--label", folder / "labels.npy", "--view", "2d", "--minutes", seconds / 60]
    command += ["--start-from", "none"]  # shipped models have learnt these images
    for words in (
        [*command, *options, "--output", model, "--run", folder / "runs"],
        ["segment", image, "--model", model, "--output", out, "--run", folder / "runs"],
    ):
        subprocess.run([sys.executable, "-c", CPU_CLOCK, *map(str, words)], check=True, capture_output=True)
    return np.load(out).reshape(labels.shape)


def measure(name, parsed, seed):
    """Give the line of the table for a set and a seed."""
    from auto import SETS, _classes, _read_labels  # which imports this module

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        image, label = SETS[name][0](parsed.data, splits_of(parsed.data), folder)["train"][0]
        truth = _classes(name, _read_labels(label))[0]
        known = truth != IGNORED
        painted = scribbled(np.where(known, truth, 0), np.random.default_rng(seed)) * known
        options = ["--unlabelled", "ignore", "--background", "1", "--seed", seed]
        sparse = train_and_segment(image, painted, folder, parsed.seconds, options)
        sparse = np.where(sparse > 0, sparse - 1, 0)  # the background is 0 in results
        whole = [
            "--seed",
            seed,
            *(["--ignore-value", IGNORED, "--unlabelled", "background"] if not known.all() else []),
        ]
        full = train_and_segment(image, truth, folder, parsed.seconds, whole)
    truth = np.where(known, truth, 0)
    scores = [dice(labels, truth, (painted == 0) & known) for labels in (sparse, full)]
    return f"| {name} | {(painted > 0).mean():.2%} | {scores[0]:.3f} | {scores[1]:.3f} | {scores[0] / scores[1]:.3f} |"


def main():
    """Run the chosen sets and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["nuclei", "axon", "vessels", "ovary", "disc"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", ""]
    lines += ["| set | painted | Dice from scribbles | Dice from full labels | ratio |", "|---|---|---|---|---|"]
    for name in parsed.sets:
        for seed in parsed.seeds:
            lines.append(measure(name, parsed, seed))
            print(lines[-1], flush=True)
            if parsed.write:
                parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
