"""Whether a final fit makes a model better on unseen images, and from how many labels on it no longer does.

Run: python benchmarks/final_fit.py [--data FOLDER] [--sets NAME ...] [--seeds 4] [--steps 240] [--results FILE]
[--write FILE]

FOLDER as for accuracy.py; the sets middle1, corner1 and rare1 are generated as in hold_out.py and need none. For every
set and seed, some training images (in 2D at half resolution) are drawn, and a small network is trained twice in the
same number of steps: with a final fit in the last of them, and without. All models are scored on images that no
training saw. The number in the name of a set is that of its training images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from accuracy import SETS as FILES
from accuracy import splits_of
from hold_out import corner, middle, rare, seen
from scribbles import scribbled

from napari_unetvnet.data.patches import Region
from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import loop
from napari_unetvnet.training.score import dice_on

PLANES = {"view": "2d", "patch": (1, 64, 64), "batch": 4, "option": {"width": 6, "depth": 4}}
BLOCKS = {"view": "3d", "patch": (16, 32, 32), "batch": 2, "option": {"width": 6, "depth": 3}}
COMMON = {"augment": "standard", "ema_decay": 0.98, "device": "cpu", "precision": "fp32"}
SMALL = {"view": "2d", "patch": (1, 32, 32), "batch": 4, "option": {"width": 4, "depth": 3}}
GENERATED = {"middle": middle, "corner": corner, "rare": rare}
STROKES = {"unlabelled": "ignore", "background": 1}
SETS = {
    "axon": ("axondeepseg_sem", 200, PLANES),
    "vessels": ("chasedb1", 200, PLANES),
    "hippocampus": ("msd_hippocampus", None, BLOCKS),
    "nuclei": ("dsb2018_nuclei", 128, PLANES),
    "scribbles": ("dsb2018_nuclei", 128, PLANES | STROKES),
}
"""Folder, edge of the images (voxels), settings."""
DEFAULT = ("axon1", "vessels1", "hippocampus3", "scribbles1", "axon3", "hippocampus12", "nuclei20")
UNSEEN, SHARE = 8, 0.15


def read_pair(files, edge, rng):
    """Read an image (C, Z, Y, X) with labels, and draw a part of it at half resolution."""
    image, labels = (np.load(path) if path.suffix == ".npy" else None for path in files)
    image = np.asarray(read_volume(files[0]).data) if image is None else image
    labels = np.asarray(read_labels(files[1]).data)[0] if labels is None else labels
    image = image if image.ndim == 4 else image.reshape(-1, 1, *image.shape[-2:])
    labels = labels.reshape(-1, *labels.shape[-2:])
    if edge is not None:
        image, labels = image[..., ::2, ::2], labels[..., ::2, ::2]
        y, x = (int(rng.integers(max(1, n - edge + 1))) for n in labels.shape[-2:])
        image, labels = (each[..., y : y + edge, x : x + edge] for each in (image, labels))
    return np.ascontiguousarray(image, dtype=np.float32), np.ascontiguousarray(labels)


def pairs_of(name, seed, data, folder):
    """Draw the training pairs of a set, and pairs that are not trained on."""
    kind = name.rstrip("0123456789")
    if kind in GENERATED:
        rng = np.random.default_rng([seed, 0xF17])
        train, *unseen = (seen(GENERATED[kind](rng), rng) for _ in range(1 + UNSEEN))
        return train, [pair for pairs in unseen for pair in pairs], SMALL
    source, edge, settings = SETS[kind]
    files, rng = FILES[source][0](data, splits_of(data), folder), np.random.default_rng([seed, 0xF17])
    order, count = rng.permutation(len(files["train"])), int(name.removeprefix(kind))
    rest = [files["train"][i] for i in order[count:]]
    sides = []
    for side in ([files["train"][i] for i in order[:count]], [*files["val"], *rest][:UNSEEN]):
        arrays = [read_pair(each, edge, rng) for each in side]
        if source == "dsb2018_nuclei":
            arrays = [(image, (labels > 0).astype(np.uint8)) for image, labels in arrays]
        sides.append(arrays)
    if kind == "scribbles":
        sides[0] = [(image, scribbled(labels[0], rng)[None].astype(np.uint8)) for image, labels in sides[0]]
    train, unseen = (
        [Pair(Volume(image, name=f"{name} {i}"), Volume(labels[None])) for i, (image, labels) in enumerate(side)]
        for side in sides
    )
    return train, unseen, settings


def train(pairs, settings, folder, **more):
    """Train, and return the model file."""
    folder.mkdir()
    values = COMMON | settings | more
    for _ in loop.steps(pairs, checked(TrainSettings, values), training_files(folder)):
        pass
    return folder / MODEL


def score(path, unseen, settings, *, before_fit=False):
    """Give the mean Dice of a model on unseen images."""
    from napari_unetvnet.data.targets import find_classes

    model = load_model(path, SegmentSettings(device="cpu", precision="fp32"), before_fit=before_fit)
    card = model.card
    classes = find_classes([pair.labels for pair in unseen], checked(TrainSettings, settings))
    regions = [
        Region(pair.image, np.asarray(pair.labels.data)[0].astype(np.uint8), intensity(pair.image, card.normalise))
        for pair in unseen
    ]
    return dice_on(regions, model, classes)[0]


def compare(name, seed, steps, data):
    """Train with and without a final fit; give the Dice on unseen images, and the score in the card."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs, unseen, settings = pairs_of(name, seed, data, folder)
        budget = {"steps": steps, "seed": seed}
        fitted = train(pairs, settings, folder / "with", final_fit=SHARE, **budget)
        plain = train(pairs, settings, folder / "without", **budget)
        plainly = {"view": settings["view"]}
        card = read_card(fitted)
        return {
            "set": name, "seed": seed, "steps": steps,
            "without": score(plain, unseen, plainly),
            "before": score(fitted, unseen, plainly, before_fit=True) if card.final_fit_steps else None,
            "with": score(fitted, unseen, plainly),
            "kept": card.final_fit_steps > 0,
            "card": card.scores.get("hold_out_dice"),
            "held_out": sum(card.scored.class_voxels.values()) if card.scored else 0,
            "cpu": time.process_time() - began,
        }  # fmt: skip


def table(rows):
    """Give the lines of the table."""
    lines = [
        "| set | seeds | without | before the fit | with | with minus without | better in | score in the card |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        values = {key: np.array([row[key] for row in of_set], float) for key in ("without", "before", "with", "card")}
        gain = values["with"] - values["without"]
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        means = {key: np.nanmean(each) for key, each in values.items()}
        lines.append(
            f"| {name} | {len(of_set)} | {means['without']:.3f} | {means['before']:.3f} | {means['with']:.3f} | "
            f"{gain.mean():+.3f} ± {error:.3f} | {(gain > 0).sum()} | {means['card']:.3f} |"
        )
    return lines


def main():
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", default=DEFAULT)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--results", type=Path, help="Rows are added to those that are there.")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    file = chosen.results
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []
    done = {(row["set"], row["seed"], row["steps"]) for row in rows}
    for seed in range(chosen.seeds):
        for name in chosen.sets:
            if (name, seed, chosen.steps) in done:
                continue
            rows.append(compare(name, seed, chosen.steps, chosen.data))
            if file:
                file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            print(rows[-1], flush=True)
    lines = table([row for row in rows if row["steps"] == chosen.steps])
    print("\n".join(lines))
    if chosen.write:
        chosen.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
