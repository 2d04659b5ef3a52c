"""Whether what surrounds an image changes its labels: frames of zeros, and one half of it set to zero.

Run: python benchmarks/frames.py --data FOLDER [--sets NAME ...] [--seconds 60] [--images 4] [-- OPTION ...]

FOLDER as for accuracy.py. A model is trained for some seconds of CPU time with automatic settings (and the options
after --), then segments some validation images as they are, in frames of zeros of 2, 8 and 32 voxels, and with each
half of each axis set to zero: with intensities measured in the content, and in all voxels, which for images without a
frame is the same model. The voxels of the other half whose label changes are counted by their distance to the cut; once
with the intensities measured on that half, as a segmentation does, and once with those of the whole image, which leaves
what the network sees at the cut.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import accuracy
import numpy as np
from accuracy import SETS, splits_of, train
from peers import CPU_CLOCK

from napari_unetvnet import inference
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.model.model import load_model
from napari_unetvnet.model.normalisation import normalisation
from napari_unetvnet.settings import SegmentSettings

WIDTHS = (2, 8, 32)
BANDS = (0, 8, 32, 64, 10**6)
"""Distances to the cut, in voxels."""
SETTINGS = SegmentSettings(device="cpu")


def labelled(model, data, volume, scale=None):
    """Segment an array (C, Z, Y, X) on the grid of a volume."""
    slabs = inference.steps(model, replace(volume, data=data), SETTINGS, scale=scale)
    return np.concatenate([slab.labels for slab in slabs], axis=-3)


def dice(labels, truth):
    """Give the mean Dice of the foreground classes."""
    values = [value for value in np.unique(truth) if value]
    sums = [2 * ((labels == v) & (truth == v)).sum() / ((labels == v).sum() + (truth == v).sum()) for v in values]
    return float(np.mean(sums))


def framed(model, volume, truth, plain):
    """Give by how much frames of zeros change Dice, and the fraction of the labels that they change."""
    data, rows = np.asarray(volume.data), []
    for width in WIDTHS:
        widths = [(width, width) if n > 1 else (0, 0) for n in data.shape[1:]]
        inner = tuple(slice(a, a + n) for (a, _), n in zip(widths, data.shape[1:], strict=True))
        labels = labelled(model, np.pad(data, [(0, 0), *widths]), volume)[inner]
        rows.append((abs(dice(labels, truth) - dice(plain, truth)), (labels != plain).mean()))
    return np.array(rows)


def halves(shape):
    """Give the axis, the kept half and the blacked half of each cut."""
    for axis in (i for i in range(3) if shape[i] > 1):
        n = shape[axis]
        for kept, blacked in ((slice(0, n // 2), slice(n // 2, n)), (slice(n // 2, n), slice(0, n // 2))):
            yield axis, *((slice(None),) * axis + (part,) for part in (kept, blacked))


def blacked(model, volume, plain):
    """Count voxels that change, and all, by their distance to the cut: own statistics, those of the whole image."""
    data, counts = np.asarray(volume.data), np.zeros((2, len(BANDS) - 1, 2))
    whole = normalisation(volume, model.card)
    for axis, kept, hidden in halves(data.shape[1:]):
        black = data.copy()
        black[(slice(None), *hidden)] = 0
        length = plain[kept].shape[axis]
        near = np.arange(length)[::-1] if kept[axis].start == 0 else np.arange(length)
        near = np.broadcast_to(near.reshape([-1 if i == axis else 1 for i in range(3)]), plain[kept].shape)
        for k, scale in enumerate((None, whole)):
            changed = labelled(model, black, volume, scale)[kept] != plain[kept]
            for band, (low, high) in enumerate(itertools.pairwise(BANDS)):
                inside = (near >= low) & (near < high)
                counts[k, band] += changed[inside].sum(), inside.sum()
    return counts


def measure(name, parsed, options):
    """Train on a set, and give the lines of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = (parsed.keep or Path(scratch)) / name
        folder.mkdir(parents=True, exist_ok=True)
        pairs = SETS[name][0](parsed.data, splits_of(parsed.data), folder)
        path = folder / "model.safetensors"
        if not path.exists():
            accuracy.PROGRAM = [sys.executable, "-c", CPU_CLOCK]
            path = train(name, pairs, folder, parsed.seconds / 60, ["--device", "cpu", *options])
        model = load_model(path, SETTINGS)
        images = [(read_volume(a), np.asarray(read_labels(b).data)[0]) for a, b in pairs["val"][: parsed.images]]
    for where in ("content", "all"):
        model.card = model.card.model_copy(update={"normalise_in": where})
        yield line(name, model, images)


def line(name, model, images):
    """Segment images in frames and halves, and give the line of the table."""
    frames, counts = [], 0
    for volume, truth in images:
        plain = labelled(model, np.asarray(volume.data), volume)
        frames.append(framed(model, volume, truth, plain))
        counts = counts + blacked(model, volume, plain)
    most = np.max(frames, axis=0)
    dice_changes = [f"{change:.4f}" for change in most[:, 0]]
    words = [name, model.card.network, model.card.normalise_in, *dice_changes, f"{most[:, 1].max():.2%}"]
    return f"| {' | '.join([*words, *_shares(counts)])} |"


def _shares(counts):
    """Give the changed fraction of all labels, and by distance; own statistics / those of the whole image."""
    totals = counts.sum(axis=1)
    yield " / ".join(f"{changed / n:.2%}" for changed, n in totals)
    for band in range(counts.shape[1]):
        yield " / ".join(f"{changed / n:.2%}" if n else "-" for changed, n in counts[:, band])


def main():
    """Measure the chosen sets and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["msd_hippocampus", "axondeepseg_sem"], choices=SETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--images", type=int, default=4, help="Validation images that are segmented.")
    parser.add_argument("--keep", type=Path, help="Folder for the models; one that is there is not trained again.")
    parser.add_argument("--write", type=Path)
    parsed, options = parser.parse_known_args()
    bands = [f"{a} to {b}" if b < BANDS[-1] else f"from {a}" for a, b in itertools.pairwise(BANDS)]
    words = ["set", "network", "measured in", *(f"frame {width}: change of Dice" for width in WIDTHS), "labels changed"]
    words += ["half blacked: labels changed", *(f"{band} voxels from the cut" for band in bands)]
    lines = [f"| {' | '.join(words)} |", "|---" * len(words) + "|"]
    for name in parsed.sets:
        lines += measure(name, parsed, [option for option in options if option != "--"])
    print("\n".join(lines), flush=True)
    if parsed.write:
        parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
