"""What size of tiles and overlap are worth: Dice to the truth, Dice to the result of the whole image, and time.

Run: python benchmarks/tiles.py --data FOLDER [--sets axondeepseg_sem qcanet_embryo3d] [--minutes 3] [--write FILE]

For each set, a network with batch norm and one with instance norm are trained on the training part, as accuracy.py
does it, and segment the validation part.
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


def dice(found, truth):
    """Give the mean Dice of the classes but the background."""
    classes = np.union1d(np.unique(found), np.unique(truth))
    scores = [2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum()) for k in classes if k]
    return float(np.mean(scores))


def labelled(model, image, tile, overlap):
    """Label an image; give the labels and the seconds."""
    job = SegmentJob(image=str(image), model="none", tile=tile, overlap=overlap, precision="fp32", tile_memory=16)
    volume, begun = read_image(job.image, job), time.perf_counter()
    labels = np.concatenate([slab.labels for slab in steps(model, volume, job)])
    return labels, time.perf_counter() - begun


def rows(name, model, pairs):
    """Measure all tiles and overlaps on the images of a set."""
    three = model.card.dims == 3
    truths = [np.asarray(read_labels(str(label), None).data)[0] for _, label in pairs]
    whole = [labelled(model, image, None, 0.25)[0] for image, _ in pairs]
    for edge in EDGES[name]:
        for overlap in (0, 0.25, 0.5) if edge else (0,):
            tile = None if edge is None else (edge if three else 1, edge, edge)
            found = [labelled(model, image, tile, overlap) for image, _ in pairs]
            to_truth = np.mean([dice(labels, truth) for (labels, _), truth in zip(found, truths, strict=True)])
            to_whole = np.mean([dice(labels, other) for (labels, _), other in zip(found, whole, strict=True)])
            yield edge or "whole", overlap, to_truth, to_whole, sum(seconds for _, seconds in found)


def main():
    """Print a table for each set and norm."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(EDGES), choices=EDGES)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    lines = [
        "| set | norm | tile | overlap | Dice to the truth | Dice to the whole | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in given.sets:
        for norm in ("batch", "instance"):
            with tempfile.TemporaryDirectory() as scratch:
                pairs = accuracy.SETS[name][0](given.data, accuracy.splits_of(given.data), Path(scratch))
                options = ["--network", "dynunet", "--option", "width=16", "--option", f"norm={norm}"]
                path = accuracy.trained(name, pairs, Path(scratch), given.minutes, options)
                model = load_model(path, SegmentJob(image="none", model="none", precision="fp32"))
                for tile, overlap, *scores, seconds in rows(name, model, pairs["val"]):
                    told = " | ".join(f"{score:.4f}" for score in scores)
                    lines.append(f"| {name} | {norm} | {tile} | {overlap} | {told} | {seconds:.2f} |")
                    print(lines[-1], flush=True)
    if given.write:
        given.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
