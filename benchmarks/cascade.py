"""Compare segmentation in two stages with its first stage, on images that were not trained on.

The images are generated: a disc, a spot of 13 pixels on its rim, and 25 like spots elsewhere. The tiny object is
the spot on the rim. Both stages are cut at the same thresholds. Three comparisons, each with several seeds:

- fine_grained_unet, trained on the true region, the predicted one, or a mix; on the square or on the objects alone;
- a plain U-Net for both objects, and the same U-Net as first model of two, with a second one that has learnt the tiny
  object around the disc.

    python benchmarks/cascade.py --seeds 5 --steps 200
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps as segment
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import loop

SIZE, SPOTS, MARGIN = 64, 25, 5
CPU = SegmentSettings(device="cpu", precision="fp32")
SPOT = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2
"""13 pixels."""


def sample(seed: int) -> Pair:
    """Generate an image with masks of the disc and of the spot on its rim."""
    rng = np.random.default_rng([77, seed])
    y, x = np.mgrid[:SIZE, :SIZE]
    radius, centre = rng.uniform(8, 11), rng.uniform(18, SIZE - 18, 2)
    disc = np.hypot(y - centre[0], x - centre[1]) < radius
    angle = rng.uniform(0, 2 * np.pi)
    places = [centre + radius * np.array([np.sin(angle), np.cos(angle)])]
    near = ndimage.binary_dilation(disc, iterations=4)
    while len(places) <= SPOTS:
        place = rng.uniform(3, SIZE - 3, 2)
        if not near[tuple(place.astype(int))] and min(np.hypot(*(place - other)) for other in places) > 5.5:
            places.append(place)
    spots = np.zeros((len(places), SIZE, SIZE), bool)
    for mask, (row, column) in zip(spots, np.round(places).astype(int), strict=True):
        mask[row - 2 : row + 3, column - 2 : column + 3] = SPOT
    shown = disc + 1.0 * spots.any(axis=0) + rng.normal(0, 0.4, (SIZE, SIZE))
    masks = np.stack([disc, spots[0]]).astype(np.uint8)
    return Pair(Volume(shown[None, None].astype(np.float32)), Volume(masks[:, None]))


def train(pairs: list[Pair], seed: int, steps: int, **chosen: object) -> object:
    """Train a small model on pairs."""
    settings = {"label_values": "overlapping", "patch": (1, SIZE, SIZE), "batch": 2, "hold_out": 0,
                "loss": "dice + 2*reweighted_bce", "learning_rate": 5e-3, "device": "cpu",
                "precision": "fp32"}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = checked(TrainSettings, settings | {"seed": seed, "steps": steps} | chosen)
        for _ in loop.steps(pairs, made, training_files(Path(folder))):
            pass
        return load_model(Path(folder) / MODEL, CPU)


def labels_of(model: object, image: Volume, **chosen: object) -> np.ndarray:
    """Label an image: a mask for each class, (K, Y, X)."""
    slabs = segment(model, image, CPU.model_copy(update=chosen))
    return np.concatenate([slab.labels for slab in slabs], axis=-3)[:, 0] > 0


def dice(found: np.ndarray, true: np.ndarray) -> float:
    """Dice of two masks; 1 for two empty ones."""
    total = found.sum() + true.sum()
    return float(2 * (found & true).sum() / total) if total else 1.0


def scores(found: list[np.ndarray], pairs: list[Pair]) -> np.ndarray:
    """Mean Dice of each class over images."""
    true = [np.asarray(pair.labels.data[:, 0]) > 0 for pair in pairs]
    return np.mean([[dice(a[k], b[k]) for k in range(2)] for a, b in zip(found, true, strict=True)], axis=0)


def fine_grained(seed: int, steps: int, unseen: list[Pair], **option: object) -> dict[str, np.ndarray]:
    """Score both stages of a fine-grained network, and the first alone."""
    chosen = {"encoder": "resnet18", "width": 8, "roi_margin": MARGIN} | option
    model = train(trained_on(seed), seed, steps, network="fine_grained_unet", option=chosen)
    return {
        name: scores([labels_of(model, pair.image, cascade=cascade) for pair in unseen], unseen)
        for name, cascade in (("first stage", False), ("both stages", True))
    }


def two_models(seed: int, steps: int, unseen: list[Pair]) -> dict[str, np.ndarray]:
    """Score a U-Net for both objects, and its disc as the region of a second U-Net for the tiny object."""
    pairs, plain = trained_on(seed), {"network": "unet_padding", "option": {"width": 8, "depth": 4}}
    first = train(pairs, seed, steps, **plain)
    around = [region(np.asarray(pair.labels.data[0, 0]) > 0) for pair in pairs]
    near = [
        Pair(pair.image, pair.labels, mask=Volume(mask[None, None].astype(np.uint8)))
        for pair, mask in zip(pairs, around, strict=True)
    ]
    second = train(near, seed, steps, **plain)
    once = [labels_of(first, pair.image) for pair in unseen]
    twice = []
    for pair, found in zip(unseen, once, strict=True):
        tiny = labels_of(second, pair.image)[1] & region(found[0])
        twice.append(np.stack([found[0], tiny]))
    return {"one model": scores(once, unseen), "two models": scores(twice, unseen)}


def region(mask: np.ndarray) -> np.ndarray:
    """Fill the box around the largest object of a mask, with a margin."""
    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    filled = np.zeros_like(mask)
    if count:
        box = ndimage.find_objects(numbers)[np.bincount(numbers.ravel())[1:].argmax()]
        filled[tuple(slice(max(0, a.start - MARGIN), a.stop + MARGIN) for a in box)] = True
    return filled


def trained_on(seed: int) -> list[Pair]:
    """Give the images of a training."""
    return [sample(1000 * seed + i) for i in range(8)]


ROWS = {
    "square, true region": {},
    "square, predicted region": {"roi_training": "predicted"},
    "square, mixed": {"roi_training": "mixed"},
    "mask, true region": {"roi_crop": "mask"},
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=20, help="number of unseen images")
    parser.add_argument("--only", help="a part of the name of the rows to run")
    arguments = parser.parse_args()
    unseen = [sample(100_000 + i) for i in range(arguments.images)]
    print("| trained on | labelled by | disc Dice | tiny Dice | tiny Dice by seed | seconds |")
    print("|---|---|---|---|---|---|")
    rows = {name: lambda s, o=option: fine_grained(s, arguments.steps, unseen, **o) for name, option in ROWS.items()}
    rows["two U-Nets"] = lambda s: two_models(s, arguments.steps, unseen)
    for name, run in rows.items():
        if arguments.only and arguments.only not in name:
            continue
        began = time.monotonic()
        results = [run(seed) for seed in range(arguments.seeds)]
        seconds = (time.monotonic() - began) / arguments.seeds
        for kind in results[0]:
            values = np.array([result[kind] for result in results])
            each = " ".join(f"{value:.3f}" for value in values[:, 1])
            disc, tiny = values.mean(axis=0)
            print(f"| {name} | {kind} | {disc:.3f} | {tiny:.3f} | {each} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
