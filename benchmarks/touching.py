"""How many touching cells a network keeps apart with the U-Net weight map, and without it.

Run: python benchmarks/touching.py [--seeds 5] [--steps 150] [--write benchmarks/touching.md]

Images of touching cells are generated for each seed: 3 to train on, 4 to score on, which no training saw. Each row is
trained from the same labels (ids, learnt with a gap where objects touch), for the same steps, with the same patches. A
pair of touching cells counts as separated if the two are matched, at an IoU of at least 0.5, by different components of
the result. One process, one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.measure import label

from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import label_values, scores
from napari_unetvnet.model.model import load_model
from napari_unetvnet.model.normalisation import normalisation
from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training.loop import steps

ROWS = {
    "`ce` (no map)": {"loss": "ce"},
    "`dice_ce` (no map)": {"loss": "dice_ce"},
    "`ce`, classes weighted alike": {"loss": "ce", "class_weights": "inverse_frequency"},
    "`unet_weighted_ce`": {"loss": "unet_weighted_ce"},
}
COMMON = {
    "label_values": "objects", "objects_as": "separated", "view": "2d", "option": {"width": 6, "depth": 3},
    "hold_out": 0, "patch": (1, 64, 64), "batch": 4, "ema_decay": 0.98, "device": "cpu", "precision": "fp32",
}  # fmt: skip
SIZE, TRAINED, SCORED = 128, 3, 4


def cells(rng):
    """Return an image (Y, X) of cells that touch in groups, and their ids."""
    y, x = np.mgrid[:SIZE, :SIZE]
    seeds = [rng.uniform(0, SIZE, 2)]
    for _ in range(400):  # groups: a new cell is near an old one, but not too near
        near = seeds[rng.integers(len(seeds))] + rng.normal(0, 16, 2)
        far = rng.uniform(0, SIZE, 2)
        place = near if rng.random() < 0.9 else far
        if all(np.hypot(*(place - other)) > 12 for other in seeds) and len(seeds) < 40:
            seeds.append(place)
    radii = rng.uniform(6.5, 9.5, len(seeds))
    distances = np.array([np.hypot(y - a, x - b) / r for (a, b), r in zip(seeds, radii, strict=True)])
    ids = np.where(distances.min(axis=0) < 1, distances.argmin(axis=0) + 1, 0)
    levels = np.append(0, rng.uniform(0.8, 1.2, len(seeds)))
    image = levels[ids] * (1 - 0.25 * np.minimum(distances.min(axis=0), 1) ** 2)
    image = gaussian_filter(image, 1.2) + rng.normal(0, 0.08, ids.shape)
    return image.astype(np.float32), ids.astype(np.uint16)


def images(seed, first, count):
    """Return generated images and ids."""
    return [cells(np.random.default_rng([seed, first + i])) for i in range(count)]


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
    return np.concatenate([label_values(logits, model.card).numpy() for _, logits in parts])[0]


def touching(ids):
    """Return the pairs of ids that touch."""
    sides = [(ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])]
    both = np.concatenate([np.stack([a.ravel(), b.ravel()]) for a, b in sides], axis=1)
    both = np.sort(both[:, (both[0] != both[1]) & both.all(axis=0)], axis=0)
    return np.unique(both, axis=1).T


def grown(mask):
    """Return the components of a mask, each with the voxels around it that the gap took."""
    components = label(mask, connectivity=2)
    distance, nearest = distance_transform_edt(components == 0, return_indices=True)
    return np.where(distance <= 1.5, components[tuple(nearest)], 0)


def quality(model, pairs):
    """Return object F1 at an IoU of 0.5 and the fraction of touching pairs that are apart."""
    true = found = matched = apart = pairs_there = 0
    for image, ids in pairs:
        components = grown(predicted(model, image) == 1)
        overlap = np.zeros((ids.max() + 1, components.max() + 1))
        np.add.at(overlap, (ids.ravel(), components.ravel()), 1)
        union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
        hits = (overlap / union >= 0.5)[1:, 1:]
        is_matched = np.append(False, hits.any(axis=1))
        couples = touching(ids)
        true, found, matched = true + len(np.unique(ids)) - 1, found + components.max(), matched + is_matched.sum()
        apart, pairs_there = apart + is_matched[couples].all(axis=1).sum(), pairs_there + len(couples)
    return 2 * matched / (true + found), apart / pairs_there


def main():
    """Train each row with each seed and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    results = {name: [] for name in ROWS}
    for seed in range(parsed.seeds):
        training, unseen = images(seed, 0, TRAINED), images(seed, TRAINED, SCORED)
        for name, chosen in ROWS.items():
            results[name].append(quality(trained(training, chosen, seed, parsed.steps), unseen))
            print(f"seed {seed} {name}: F1 {results[name][-1][0]:.3f}, pairs {results[name][-1][1]:.3f}", flush=True)
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", ""]
    lines += ["| loss | touching pairs separated | object F1 |", "|---|---|---|"]
    for name, rows in results.items():
        f1, pairs = np.array(rows).T
        by_seed = [f"{values.mean():.3f} ({', '.join(f'{value:.3f}' for value in values)})" for values in (pairs, f1)]
        lines.append(f"| {name} | {' | '.join(by_seed)} |")
    print("\n".join(lines))
    if parsed.write:
        parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
