"""Check that every network learns from real images: each trains for the same short time on the same data set.

Run: python benchmarks/zoo.py --data FOLDER [--seconds 40] [--only NAME ...] [--write docs/reference/zoo.md]

FOLDER holds ``fibsem_medulla``: a block of electron microscopy (raw/*.png, one file per plane) with neuron ids
(neuron_labels_zyx.tif). The networks learn the boundaries between neurons from planes 0 to 95, in 2D from planes and
in 3D from blocks, and are scored on planes 96 to 111. The trivial baseline is an intensity below Otsu's threshold.
Widths are small, as for a laptop; the defaults of the networks are the published sizes. One process, CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from skimage.filters import threshold_otsu
from skimage.segmentation import find_boundaries

from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps as segment
from napari_unetvnet.metrics import evaluate
from napari_unetvnet.model.model import load_model
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import loop

SMALL = {"width": 16, "feature_size": 12}
NARROWER = {"vnet2d": 4, "hypercolumn_unet": 4}  # 16 is their published width
IN_PLANES = ("dynunet", "swin_unetr")  # in 3D they need more planes than the 16 that are kept for the test
LAST_PLANE = 96


def medulla(folder):
    """Return the training pair and the test pair."""
    planes = sorted((folder / "raw").glob("*.png"))
    raw = np.stack([np.asarray(read_volume(plane).data[0, 0]) for plane in planes])
    ids = np.asarray(read_labels(folder / "neuron_labels_zyx.tif").data[0])
    boundary = find_boundaries(ids, mode="thick").astype(np.uint8)
    parts = (slice(0, LAST_PLANE), slice(LAST_PLANE, None))
    return [Pair(Volume(raw[None, part], name="medulla"), Volume(boundary[None, part])) for part in parts]


def dice(predicted, pair):
    """Return the Dice of the boundaries."""
    return evaluate(predicted, np.asarray(pair.labels.data[0]), truth_is="classes").foreground.dice


def darker_than_otsu(pair):
    """Return the trivial baseline."""
    image = np.asarray(pair.image.data[0])
    return (image < threshold_otsu(image)).astype(np.uint8)


def learn(name, pair, test, view, seconds):
    """Train a network for some seconds and label the test planes."""
    defaults = NETWORKS.describe(name).defaults
    option = {key: value for key, value in SMALL.items() if key in defaults}
    if view == "3d" and "width" in defaults:
        option["width"] = 8
    if name in NARROWER:
        option["width"] = NARROWER[name]
    values = {"network": name, "option": option, "view": view, "minutes": seconds / 60, "hold_out": 0,
              "steps_per_epoch": 100_000, "device": "cpu"}  # fmt: skip
    values |= {"patch": (1, 128, 128), "batch": 4} if view == "2d" else {"patch": (16, 64, 64), "batch": 2}
    with tempfile.TemporaryDirectory() as folder:
        for _ in loop.steps([pair], checked(TrainSettings, values), training_files(Path(folder))):
            pass
        model = load_model(Path(folder) / MODEL, SegmentSettings(device="cpu"))
    answer = np.concatenate([slab.labels for slab in segment(model, test.image, SegmentSettings())])
    return answer, model.card.steps, sum(p.numel() for p in model.network.parameters())


def main():
    """Print and write one row per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    pair, test = medulla(chosen.data / "fibsem_medulla")
    trivial = dice(darker_than_otsu(test), test)
    rows = []
    for name in chosen.only or NETWORKS:
        facts = NETWORKS.describe(name).facts
        if not all(find_spec(package) for package in facts.get("requires", ())):
            print(f"{name}: left out, needs {facts['requires']}")
            continue
        view = "2d" if name in IN_PLANES else f"{facts.get('supported_dims', (2, 3))[0]}d"
        begin = time.monotonic()
        answer, steps, parameters = learn(name, pair, test, view, chosen.seconds)
        mine = dice(answer, test)
        rows.append(f"| `{name}` | {view} | {parameters:,} | {steps} | {mine:.3f} |")
        print(rows[-1], f"{time.monotonic() - begin:.0f} s", "" if mine > trivial else "NOT BETTER", flush=True)
    print(f"darker than Otsu's threshold: {trivial:.3f}")
    if chosen.write:
        command = f"python benchmarks/zoo.py --data DATA --seconds {chosen.seconds:g} --write {chosen.write}"
        chosen.write.write_text(PAGE.format(command=command, trivial=f"{trivial:.3f}", rows="\n".join(rows)))


PAGE = """# Every network on real images

Made by `{command}`. Each network trained for the same short time, on a CPU and at a small width, to find the
boundaries between neurons in electron microscopy, and was scored on planes that it had not seen. The trivial answer,
darker than Otsu's threshold, has Dice {trivial}. The table says that each network learns, not which is best: that
takes longer trainings.

| network | view | parameters | steps | Dice |
|---|---|---|---|---|
{rows}
"""

if __name__ == "__main__":
    main()
