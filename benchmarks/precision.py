"""Effect of bf16 on a segmentation: probabilities, labels, and Dice to the ground truth, on two real data sets.

Run: python benchmarks/precision.py --data FOLDER [--sets axondeepseg_sem msd_hippocampus] [--minutes 1] [--write FILE]

For each set MONAI's DynUNet of width 16 with instance norm and 3 poolings is trained on the training set as in
accuracy.py, and segments the validation set in fp32 and in bf16.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import accuracy
import numpy as np
from tiles import dice

from napari_unetvnet.images.io import read_labels
from napari_unetvnet.inference import steps
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.inputs import read_image
from napari_unetvnet.settings import SegmentJob


def segment(model, image, precision):
    """Return the labels and the probabilities of an image."""
    job = SegmentJob(image=str(image), model="none")
    model.move_to(model.device, precision)
    slabs = list(steps(model, read_image(job.image, job), job, probabilities=True))
    probabilities = np.concatenate([slab.probabilities for slab in slabs], axis=1).astype(np.float32)
    return np.concatenate([slab.labels for slab in slabs]), probabilities


def main():
    """Print a row for each set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["axondeepseg_sem", "msd_hippocampus"])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    lines = [
        "| set | images | largest change of a probability | equal labels | Dice to fp32 "
        "| Dice to ground truth: fp32 | bf16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in parsed.sets:
        with tempfile.TemporaryDirectory() as scratch:
            pairs = accuracy.SETS[name][0](parsed.data, accuracy.splits_of(parsed.data), Path(scratch))
            options = ["--network", "dynunet", "--option", "width=16", "--option", "poolings=3"]
            path = accuracy.train(name, pairs, Path(scratch), parsed.minutes, options)
            model = load_model(path, SegmentJob(image="none", model="none", precision="fp32"))
            changes, equal, dice_to_fp32, scores = [], [], [], []
            for image, label in pairs["val"]:
                truth = np.asarray(read_labels(str(label), None).data)[0]
                (labels, p), (bf16_labels, bf16_p) = (segment(model, image, kind) for kind in ("fp32", "bf16"))
                changes.append(np.abs(p - bf16_p).max())
                equal.append((labels == bf16_labels).mean())
                dice_to_fp32.append(dice(bf16_labels, labels))
                scores.append((dice(labels, truth), dice(bf16_labels, truth)))
            cells = [f"{np.max(changes):.4f}", f"{np.mean(equal):.5f}", f"{np.mean(dice_to_fp32):.5f}"]
            cells += [f"{score:.4f}" for score in np.mean(scores, axis=0)]
            lines.append(f"| {name} | {len(changes)} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if parsed.write:
        parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
