"""How well lines one voxel wide are found: as planned for lines, with the loss of the source, and with plain Dice.

Run: python benchmarks/lines.py [--seeds 5] [--steps 120 420] [--write benchmarks/lines.md]

Two lines (192 voxels each, one bright, one dark) and a block in noise are generated for each seed: 3 images to train
on, 4 to score on, which no training saw. Each row is trained from the same labels for the same steps. Scores are means
over both lines: Dice of the labels, Dice after `--thin`, and of the thinned lines the share that is found (recall) and
right (precision) to within 2 voxels. One process, one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import label_values, scores
from napari_unetvnet.model.model import load_model
from napari_unetvnet.model.normalisation import normalisation
from napari_unetvnet.postprocess import thinned
from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training.loop import steps

ROWS = {
    "`--lines 1 2`, as planned (`heatmap_dice_ce`)": {"lines": (1, 2), "loss": "heatmap_dice_ce"},
    "`--lines 1 2 --loss ten_channel`": {"lines": (1, 2), "loss": "ten_channel"},
    "`--loss dice_ce`": {"loss": "dice_ce"},
}
COMMON = {
    "view": "2d", "option": {"width": 6, "depth": 4}, "hold_out": 0, "patch": (1, 32, 32), "batch": 4,
    "ema_decay": 0.98, "device": "cpu", "precision": "fp32",
}  # fmt: skip
SIZE, LINES, BLOCK, NEAR = 192, (1, 2), 3, 2
COLUMNS = ("Dice of lines", "thinned", "recall", "precision", "Dice of block")


def scene(rng):
    """Return an image (Y, X) and its labels: lines 1 and 2, and the block 3."""
    y, x = np.mgrid[:SIZE, :SIZE]
    middle, radius = rng.uniform(60, SIZE - 60, 2), rng.uniform(20, 35)
    block = np.hypot(y - middle[0], x - middle[1]) < radius
    labels = np.where(block, BLOCK, 0).astype(np.uint8)
    image = gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 6) * 3 + block * 0.8
    along = np.arange(SIZE)
    for value, sign in ((1, 1), (2, -1)):
        wave = rng.uniform(5, 14) * np.sin(along * 2 * np.pi / rng.uniform(100, 250) + rng.uniform(0, 6))
        course = rng.uniform(0.15, 0.85) * SIZE + wave + rng.uniform(-0.25, 0.25) * (along - SIZE / 2)
        course = np.clip(course, 3, SIZE - 4)
        image += sign * 1.6 * np.exp(-((y - course) ** 2) / 2)
        labels[np.round(course).astype(int), along] = value
    image = gaussian_filter(image, 0.5) + rng.normal(0, 0.45, image.shape)
    return image.astype(np.float32), labels


def scenes(seed, first, count):
    """Return generated images and labels."""
    return [scene(np.random.default_rng([seed, first + i])) for i in range(count)]


def trained(pairs, chosen, seed, number):
    """Train on images with labels, and return the model."""
    settings = checked(TrainSettings, COMMON | chosen | {"seed": seed, "steps": number})
    volumes = [Pair(Volume(image[None, None]), Volume(labels[None, None])) for image, labels in pairs]
    with tempfile.TemporaryDirectory() as folder:
        files = training_files(Path(folder))
        for _ in steps(volumes, settings, files):
            pass
        return load_model(str(files.model), SegmentSettings(device="cpu", precision="fp32"))


def predicted(model, image):
    """Label an image (Y, X)."""
    volume = Volume(image[None, None])
    parts = scores(model, volume, SegmentSettings(), normalisation(volume, model.card))
    return np.concatenate([label_values(logits, model.card).numpy() for _, logits in parts])


def dice(a, b):
    """Return the Dice of two masks."""
    return 2 * (a & b).sum() / max(1, a.sum() + b.sum())


def share_near(a, b):
    """Return the share of the voxels of a mask that are near another."""
    return (distance_transform_edt(~b)[a] <= NEAR).mean() if a.any() and b.any() else 0.0


def quality(model, pairs):
    """Return the scores, as COLUMNS."""
    rows = []
    for image, labels in pairs:
        found = predicted(model, image)
        thin = thinned(found, LINES)[0]
        for value in LINES:
            mask, line, truth = found[0] == value, thin == value, labels == value
            block = dice(found[0] == BLOCK, labels == BLOCK)
            rows.append((dice(mask, truth), dice(line, truth), share_near(truth, line), share_near(line, truth), block))
    return np.mean(rows, axis=0)


def main():
    """Train each row with each seed and budget, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=[120, 420])
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", ""]
    lines += [f"| steps | recipe | {' | '.join(COLUMNS)} | Dice of lines by seed |", f"|{'---|' * (len(COLUMNS) + 3)}"]
    results = {(number, name): [] for number in parsed.steps for name in ROWS}
    for seed in range(parsed.seeds):
        training, unseen = scenes(seed, 0, 3), scenes(seed, 3, 4)
        for number, name in results:
            results[number, name].append(quality(trained(training, ROWS[name], seed, number), unseen))
            print(f"seed {seed} steps {number} {name}: {np.round(results[number, name][-1], 3)}", flush=True)
    for (number, name), rows in results.items():
        means = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
        by_seed = ", ".join(f"{row[0]:.3f}" for row in rows)
        lines.append(f"| {number} | {name} | {means} | {by_seed} |")
    print("\n".join(lines))
    if parsed.write:
        parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
