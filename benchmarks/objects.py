"""How well touching objects come out single: what the network learns of the ids, and how its classes become objects.

Run: python benchmarks/objects.py --data FOLDER --keep FOLDER [--sets NAME ...] [--targets NAME ...] [--seeds 1]
     [--seconds 60] [--width 16] [--results FILE] [--write benchmarks/objects.md]

FOLDER is that of `accuracy.py`. Each set is learnt once for each target and seed, for the same CPU time of one core,
with automatic settings; models are kept in a folder. A model is scored on the test part with several ways to divide its
classes into objects. Each score is a line of JSON in a file (scores.jsonl beside the models); what is in it is not
computed again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from pathlib import Path

import numpy as np
from accuracy import nuclei, splits_of
from PIL import Image
from scipy.ndimage import label
from tifffile import imread

from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import label_values, scores
from napari_unetvnet.metrics import evaluate
from napari_unetvnet.metrics.objects import pooled_objects
from napari_unetvnet.model.model import load_model
from napari_unetvnet.postprocess import postprocess
from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.settings import PostprocessSettings, SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import loop
from napari_unetvnet.training.objects import objects_learnt
from napari_unetvnet.training.plan import plan

TARGETS = {
    "foreground": {"objects_as": "foreground"},
    "separated": {"objects_as": "separated"},
    "separated, weight map": {"objects_as": "separated", "loss": "unet_weighted_ce"},
    "borders": {"objects_as": "borders"},
    "cores": {"objects_as": "cores"},
}
ALONE = ("foreground", "separated", "separated, weight map")
WAYS = {
    "components": (ALONE, {"objects": "components"}),
    "watershed": (ALONE, {"objects": "watershed"}),
    "border": (("borders", "cores"), {"objects": "border"}),
    "cores": (("borders", "cores"), {"objects": "cores"}),
    "the card": (tuple(TARGETS), None),
}
"""Ways to divide classes into objects, and the targets they are for; the card names its own, with sizes."""


def volume(array):
    """Make a volume of an image (C, Z, Y, X)."""
    return Volume(np.ascontiguousarray(array))


def ids_of(mask):
    """Take components (corners touch) for objects."""
    return label(mask, np.ones((3,) * mask.ndim))[0]


def dsb2018_nuclei(data, folder):
    """Nuclei, fluorescence and H&E: 75 images to train on, 15 to score."""
    (folder / "nuclei").mkdir(parents=True, exist_ok=True)
    parts = nuclei(data, splits_of(data), folder / "nuclei")
    return tuple([(np.load(i), imread(j)[None]) for i, j in parts[part]] for part in ("train", "val"))


def stardist_2d(data, _):
    """Nuclei in tissue: the left half to train on, the right half to score."""
    image, ids = (imread(data / "stardist_samples" / f"{name}2d.tif") for name in ("img", "mask"))
    middle = ids.shape[1] // 2
    return tuple([(image[None, None, :, half], ids[None, :, half])] for half in (slice(middle), slice(middle, None)))


def stardist_3d(data, _):
    """Packed nuclei, a tiny stack: the upper half to train on, the lower half to score."""
    image, ids = (imread(data / "stardist_samples" / f"{name}3d.tif") for name in ("img", "mask"))
    middle = ids.shape[1] // 2
    return tuple([(image[None, :, half], ids[:, half])] for half in (slice(middle), slice(middle, None)))


def qcanet_embryo3d(data, _):
    """Nuclei of an embryo, 3D, apart from each other; two of eight to score."""
    root = data / "qcanet_embryo3d"
    image, ids = imread(root / "raw_8_cell_stage.tif"), ids_of(imread(root / "nsn_8_cell_stage.tif") > 0)
    return tuple([(image[None, :, half], ids[:, half])] for half in (slice(47, None), slice(45)))


def drosophila_ovary(data, _):
    """Nurse cells of the ovary (components of class 2), RGB: four images to train on, one to score."""
    root, names = data / "pyimsegm_drosophila" / "drosophila_ovary_slice", splits_of(data)["pyimsegm_drosophila"]
    pairs = {"train": [], "val": []}
    for part, files in pairs.items():
        for name in names[part]["ovary"]:
            image = np.asarray(Image.open(root / "image" / f"{name}.jpg").convert("RGB"))
            ids = ids_of(np.asarray(Image.open(root / "annot_struct" / f"{name}.png")) == 2)
            files.append((np.moveaxis(image, -1, 0)[:, None], ids[None]))
    return pairs["train"], pairs["val"]


SETS = {
    "dsb2018_nuclei": dsb2018_nuclei, "stardist_2d": stardist_2d, "stardist_3d": stardist_3d,
    "qcanet_embryo3d": qcanet_embryo3d, "drosophila_ovary": drosophila_ovary,
}  # fmt: skip


def train(examples, chosen, seed, seconds, folder):
    """Train for a CPU time, unless the folder has a complete model; return the model."""
    files = training_files(folder)
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pairs = [Pair(volume(image), volume(ids[None].astype(np.int32))) for image, ids in examples]
        given = {"label_values": "objects", "minutes": seconds / 60, "seed": seed, "device": "cpu"} | chosen
        settings = plan(pairs, checked(TrainSettings, given), "cpu").settings
        loop.time = types.SimpleNamespace(monotonic=time.process_time)
        for _ in loop.steps(pairs, settings, files):
            pass
        (folder / "done").touch()
    return load_model(str(files.model), SegmentSettings(device="cpu"))


def wide(chosen, width):
    """Add the width of the network; without one, the plan takes it from the measured step time, which varies."""
    return chosen | ({"network": "unet_padding", "option": {"width": width}} if width else {})


def of_the_card(examples, chosen):
    """Give the way that the card of a model of these examples names; none for a model of classes."""
    settings = checked(TrainSettings, {"label_values": "objects"} | chosen)
    learnt = objects_learnt(
        [Pair(volume(image), volume(ids[None].astype(np.int32))) for image, ids in examples], settings
    )
    if learnt is None:
        return {"objects": "none"}
    return {"objects": learnt.rule, "split_depth": learnt.split_edges, "min_size": learnt.least_voxels}


def predicted(model, image):
    """Label an image (C, Z, Y, X)."""
    read = volume(image)
    parts = scores(model, read, SegmentSettings(), intensity(read, model.card.normalise, model.card.normalise_in))
    return np.concatenate([label_values(logits, model.card).numpy() for _, logits in parts])


def scored(classes, truths, way):
    """Score objects and foreground of all images."""
    settings = checked(PostprocessSettings, way)
    results = [postprocess(each, settings).labels for each in classes]
    rows = [evaluate(a, b, truth_is="objects", no_surfaces=True) for a, b in zip(results, truths, strict=True)]
    pooled = pooled_objects(row.objects for row in rows)
    return {
        "f1": pooled.f1, "pq": pooled.panoptic_quality, "mean_f1": float(np.mean([row.objects.f1 for row in rows])),
        "dice": float(np.mean([row.foreground.dice for row in rows])), "found": pooled.false_positives,
        "missed": pooled.false_negatives,
    }  # fmt: skip


def rows_of(parsed, done):
    """Train and score what is not done; yield a row for each score."""
    for seed in range(parsed.seeds):
        for name in parsed.sets:
            examples, test = SETS[name](parsed.data, parsed.keep)
            for target in parsed.targets:
                ways = [way for way, (of, _) in WAYS.items() if target in of]
                keys = {way: (name, target, seed, parsed.seconds, way) for way in ways}
                if all(key in done for key in keys.values()):
                    continue
                folder = parsed.keep / f"{name} {target} {seed} {parsed.seconds:g}"
                model = train(examples, wide(TARGETS[target], parsed.width), seed, parsed.seconds, folder)
                classes = [predicted(model, image) for image, _ in test]
                for way, key in keys.items():
                    chosen = WAYS[way][1] or of_the_card(examples, TARGETS[target])
                    score = scored(classes, [truth.astype(np.int32) for _, truth in test], chosen)
                    yield dict(zip(KEYS, key, strict=True)) | {"steps": model.card.steps} | score


KEYS = ("set", "target", "seed", "seconds", "way")


def table(rows):
    """Write the rows as a table."""
    lines = [
        "| set | target | objects by | object F1 | PQ | Dice | too many | missed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        f = " | ".join(f"{row[key]:.3f}" for key in ("f1", "pq", "dice"))
        lines.append(f"| {row['set']} | {row['target']} | {row['way']} | {f} | {row['found']} | {row['missed']} |")
    return "\n".join(lines) + "\n"


def main():
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True, help="Folder for models.")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--width", type=int, help="Of the network (default: planned).")
    parser.add_argument("--results", type=Path, help="Lines of JSON (default: in the folder of models).")
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    parsed.keep.mkdir(parents=True, exist_ok=True)
    parsed.results = parsed.results or parsed.keep / "scores.jsonl"
    text = parsed.results.read_text() if parsed.results.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows_of(parsed, {tuple(row[key] for key in KEYS) for row in rows}):
        rows.append(row)
        print(json.dumps(row), flush=True)
        with parsed.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(table(rows))
    if parsed.write:
        parsed.write.write_text(f"`python {' '.join(Path(word).name for word in sys.argv)}`\n\n{table(rows)}")


if __name__ == "__main__":
    main()
