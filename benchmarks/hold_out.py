"""Whether a score can be believed: is each class held out, is that never trained on, does the score hold elsewhere.

Run: python benchmarks/hold_out.py [--seeds 60] [--trainings 20] [--write FILE]

Six layouts of objects, each drawn anew for every seed. For each, patches are drawn by the sampler of the training from
an image in which every voxel has its own value, and searched for held-out voxels. For some seeds a tiny network is
trained, and the score in its card is compared with its Dice on ten images that no training saw.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked

SETTINGS = {"network": "unet_padding", "option": {"width": 4, "depth": 3}, "view": "2d", "patch": (1, 32, 32),
            "batch": 4, "steps": 100, "steps_per_epoch": 10, "device": "cpu", "augment": "light"}  # fmt: skip
NOISE = 0.5
UNSEEN = 10


def disc(shape, centre, radius):
    """Give the mask of a disc, or of a ball where there are several planes."""
    grid = np.indices(shape)
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def corner(rng):
    """Draw one object in a corner."""
    y, x = (rng.choice([0, 63]) for _ in range(2))
    return [disc((1, 64, 64), (0, y, x), rng.integers(16, 24)).astype(np.uint8)]


def middle(rng):
    """Draw one object in the middle."""
    return [disc((1, 64, 64), (0, *rng.integers(28, 36, 2)), rng.integers(8, 14)).astype(np.uint8)]


def plane(rng):
    """Draw one object in one plane of a volume."""
    labels = np.zeros((16, 48, 48), np.uint8)
    labels[rng.integers(16)] = disc((48, 48), rng.integers(12, 36, 2), rng.integers(7, 11))
    return [labels]


def one_of_five(rng):
    """Draw five images, an object in one of them."""
    labels = [np.zeros((1, 48, 48), np.uint8) for _ in range(5)]
    labels[rng.integers(5)] = disc((1, 48, 48), (0, *rng.integers(12, 36, 2)), rng.integers(8, 12)).astype(np.uint8)
    return labels


def rare(rng):
    """Draw a large object, and a small one of a rare class."""
    labels = disc((1, 64, 64), (0, rng.integers(16, 48), 20), rng.integers(12, 16)).astype(np.uint8)
    labels[disc((1, 64, 64), (0, *rng.integers([8, 42], [56, 58])), rng.integers(3, 5))] = 2
    return [labels]


def stripes(rng):
    """Draw a stripe of each of four classes."""
    edges = np.arange(16, 64, 16) + rng.integers(-4, 5, 3)
    labels = np.broadcast_to(np.digitize(np.arange(64), edges), (1, 64, 64)).astype(np.uint8)
    return [np.ascontiguousarray(labels.swapaxes(1, 2) if rng.integers(2) else labels)]


LAYOUTS = {
    "object in a corner": corner, "object in the middle": middle, "object in one plane": plane,
    "object in one image of five": one_of_five, "two classes, one rare": rare, "stripes of four classes": stripes,
}  # fmt: skip


def numbered(labels):
    """Give pairs in which every voxel of every image has its own value."""
    ends = np.cumsum([0, *(each.size for each in labels)])
    pairs = []
    for i, (end, each) in enumerate(zip(ends[1:], labels, strict=True)):
        image = np.arange(end - each.size, end, dtype=np.float64).reshape(1, *each.shape)
        pairs.append(Pair(Volume(image, name=str(i)), Volume(each[None])))
    return pairs


def seen(labels, rng):
    """Give pairs with a noisy image of the labels."""
    pairs = []
    for i, each in enumerate(labels):
        image = each + gaussian_filter(rng.normal(0, NOISE * 3, each.shape), (0, 1, 1))
        pairs.append(Pair(Volume(image[None].astype(np.float32), name=str(i)), Volume(each[None])))
    return pairs


def faults(labels, patch, seed, batches=4):
    """Find classes that are not scored, and held-out voxels in training patches; give also what the margins take."""
    settings = checked(TrainSettings, {"normalise": "none", "seed": seed, "view": "3d" if patch[0] > 1 else "2d"})
    pairs = numbered(labels)
    data = prepare_data(pairs, settings, patch)
    values = np.concatenate([each.ravel() for each in labels])
    images = [np.asarray(pair.image.data)[0] for pair in pairs]
    held_out, train = (
        np.concatenate(
            [[], *(images[i][box.slices].ravel() for i in range(len(labels)) for box in data.parts(i)[side])]
        )
        for side in (1, 0)
    )
    found = sorted(set(np.unique(values)) - set(np.unique(values[held_out.astype(int)])))
    rng = np.random.default_rng(seed)
    for margin in ((0, 0, 0), (1, 8, 8)):
        for _ in range(batches):
            batch = data.batch(rng, 4, patch, margin)
            if np.isin(batch.images, held_out).any():
                found.append("a held-out voxel in a patch")
            inner = batch.images[:, 0, *(slice(m, m + p) for m, p in zip(margin, patch, strict=True))]
            known = batch.target != 255
            if (values[inner[known].astype(int)] != batch.target[known]).any():
                found.append("labels of another place")
    return found, 1 - (len(held_out) + len(train)) / len(values)


def score(layout, seed):
    """Train, and give the score in the card and the Dice on unseen images."""
    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.images.intensity import intensity
    from napari_unetvnet.model.card import read_card
    from napari_unetvnet.model.model import load_model
    from napari_unetvnet.runs.folder import MODEL, training_files
    from napari_unetvnet.training import loop
    from napari_unetvnet.training.score import dice_on

    rng = np.random.default_rng([seed, 1])
    pairs = seen(layout(rng), rng)
    settings = checked(TrainSettings, SETTINGS | {"seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        for _ in loop.steps(pairs, settings, training_files(Path(folder))):
            pass
        card = read_card(Path(folder) / MODEL)
        model = load_model(Path(folder) / MODEL, SegmentSettings(device="cpu"))
    classes = prepare_data(pairs, settings, settings.planned_patch).classes
    others = [pair for _ in range(UNSEEN) for pair in seen(layout(rng), rng)]
    regions = [Region(p.image, np.asarray(p.labels.data)[0], intensity(p.image, settings.normalise)) for p in others]
    return card.scores.get("hold_out_dice"), dice_on(regions, model, classes)[0]


def main():
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--trainings", type=int, default=20)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    lines = [
        "| layout | seeds | faults | margin, mean and most | trainings | card | unseen | card minus unseen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    differences = []
    for name, layout in LAYOUTS.items():
        patch = (4, 24, 24) if layout is plane else (1, 32, 32)
        checks = [faults(layout(np.random.default_rng(seed)), patch, seed) for seed in range(chosen.seeds)]
        margins = [margin for _, margin in checks]
        scores = np.array([score(layout, seed) for seed in range(chosen.trainings)], float).reshape(-1, 2)
        difference = scores[:, 0] - scores[:, 1]
        differences.extend(difference)
        card, unseen = scores.mean(axis=0)
        lines.append(
            f"| {name} | {chosen.seeds} | {sum(bool(found) for found, _ in checks)} | "
            f"{np.mean(margins):.3f}, {max(margins):.3f} | {chosen.trainings} | {card:.3f} | {unseen:.3f} | "
            f"{difference.mean():+.3f} (standard deviation {difference.std():.3f}) |"
        )
        print(lines[-1], flush=True)
    lines.append(f"\nCard minus unseen over all {len(differences)} trainings: {np.mean(differences):+.4f}.")
    print(lines[-1])
    if chosen.write:
        chosen.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
