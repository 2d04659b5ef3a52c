"""Effect of tile size and overlap: Dice to the ground truth, Dice to the result of a single tile, and time.

Run: python benchmarks/tiles.py --data FOLDER [--sets axondeepseg_sem qcanet_embryo3d] [--minutes 3] [--write FILE]

For each set, a network with batch norm and one with instance norm are trained on the training set as in accuracy.py,
and segment the validation set.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import accuracy
import numpy as np

from napari_unetvnet.images.io import read_labels
from napari_unetvnet.inference import steps
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.inputs import read_image
from napari_unetvnet.settings import SegmentJob

EDGES = {"axondeepseg_sem": (128, 256, 512, None), "qcanet_embryo3d": (32, None)}


def dice(labels, truth):
    """Return the mean Dice of the foreground classes."""
    scores = []
    for k in np.union1d(np.unique(labels), np.unique(truth)):
        if k:
            a, b = labels == k, truth == k
            scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(scores))


def segment(model, image, tile, overlap):
    """Segment an image; return the labels and the seconds."""
    job = SegmentJob(image=str(image), model="none", tile=tile, overlap=overlap, precision="fp32", tile_memory=16)
    volume, start = read_image(job.image, job), time.perf_counter()
    labels = np.concatenate([slab.labels for slab in steps(model, volume, job)])
    return labels, time.perf_counter() - start


def rows(name, model, pairs):
    """Measure all tile sizes and overlaps on the images of a data set."""
    truths = [np.asarray(read_labels(str(label), None).data)[0] for _, label in pairs]
    whole = [segment(model, image, None, 0.25)[0] for image, _ in pairs]
    for edge in EDGES[name]:
        for overlap in (0, 0.25, 0.5) if edge else (0,):
            tile = None if edge is None else (edge if model.card.dims == 3 else 1, edge, edge)
            results = [segment(model, image, tile, overlap) for image, _ in pairs]
            to_truth = np.mean([dice(labels, truth) for (labels, _), truth in zip(results, truths, strict=True)])
            to_whole = np.mean([dice(labels, other) for (labels, _), other in zip(results, whole, strict=True)])
            yield edge or "whole", overlap, to_truth, to_whole, sum(seconds for _, seconds in results)


def main():
    """Print a table for each set and norm."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(EDGES), choices=EDGES)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    lines = [
        "| set | norm | tile | overlap | Dice to ground truth | Dice to one tile | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in parsed.sets:
        for norm in ("batch", "instance"):
            with tempfile.TemporaryDirectory() as scratch:
                pairs = accuracy.SETS[name][0](parsed.data, accuracy.splits_of(parsed.data), Path(scratch))
                options = ["--network", "dynunet", "--option", "width=16", "--option", f"norm={norm}"]
                path = accuracy.train(name, pairs, Path(scratch), parsed.minutes, options)
                model = load_model(path, SegmentJob(image="none", model="none", precision="fp32"))
                for tile, overlap, *scores, seconds in rows(name, model, pairs["val"]):
                    cells = " | ".join(f"{score:.4f}" for score in scores)
                    lines.append(f"| {name} | {norm} | {tile} | {overlap} | {cells} | {seconds:.2f} |")
                    print(lines[-1], flush=True)
    if parsed.write:
        parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
