"""What bf16 changes of a segmentation: probabilities, labels, and the Dice to the truth, on two real sets.

Run: python benchmarks/precision.py --data FOLDER [--sets axondeepseg_sem msd_hippocampus] [--minutes 1] [--write FILE]

For each set MONAI's DynUNet of width 16 with instance norm and 3 poolings is trained on the training part, as
accuracy.py does it, and segments the validation part in both number formats.
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


def segmented(model, image, precision):
    """Give the labels and the probabilities of an image."""
    job = SegmentJob(image=str(image), model="none")
    model.move_to(model.device, precision)
    slabs = list(steps(model, read_image(job.image, job), job, probabilities=True))
    likely = np.concatenate([slab.probabilities for slab in slabs], axis=1).astype(np.float32)
    return np.concatenate([slab.labels for slab in slabs]), likely


def main():
    """Print a row for each set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["axondeepseg_sem", "msd_hippocampus"])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    lines = [
        "| set | images | largest change of a probability | labels alike | Dice to fp32 | to the truth: fp32 | bf16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in given.sets:
        with tempfile.TemporaryDirectory() as scratch:
            pairs = accuracy.SETS[name][0](given.data, accuracy.splits_of(given.data), Path(scratch))
            options = ["--network", "dynunet", "--option", "width=16", "--option", "poolings=3"]
            path = accuracy.trained(name, pairs, Path(scratch), given.minutes, options)
            model = load_model(path, SegmentJob(image="none", model="none", precision="fp32"))
            change, alike, same, scores = [], [], [], []
            for image, label in pairs["val"]:
                truth = np.asarray(read_labels(str(label), None).data)[0]
                (exact, likely), (found, other) = (segmented(model, image, name) for name in ("fp32", "bf16"))
                change.append(np.abs(likely - other).max())
                alike.append((exact == found).mean())
                same.append(dice(found, exact))
                scores.append((dice(exact, truth), dice(found, truth)))
            told = [f"{np.max(change):.4f}", f"{np.mean(alike):.5f}", f"{np.mean(same):.5f}"]
            told += [f"{score:.4f}" for score in np.mean(scores, axis=0)]
            lines.append(f"| {name} | {len(change)} | {' | '.join(told)} |")
            print(lines[-1], flush=True)
    if given.write:
        given.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
