"""Accuracy of a training on a few strokes, from random weights and from a model of the same kind of images.

Run: python benchmarks/start_from.py --data FOLDER [--seconds 60] [--images 2] [--model NAME] [--write FILE]

FOLDER as for accuracy.py. Strokes on 1 % of the pixels, as in scribbles.py, of fluorescence images of the validation
part, which a model of the train part has never seen; seconds are CPU time. Scores are of the pixels without strokes:
the model as it is, a training from random weights, and one that starts from the model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from accuracy import SETS, splits_of
from scribbles import dice, scribbled
from tifffile import imread

CODE = (
    "import sys, time, types; from napari_unetvnet.training import loop; "
    "loop.time = types.SimpleNamespace(monotonic=time.process_time); "
    "from napari_unetvnet.__main__ import main; sys.exit(main())"
)
"""The program with a clock that a busy machine does not hurry."""


def run(*words):
    """Run a command of the program."""
    subprocess.run([sys.executable, "-c", CODE, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def segmented(image, model, folder, shape):
    """Label an image."""
    out = folder / "out.npy"
    run("segment", image, "--model", model, "--output", out, "--run", folder / "runs")
    return np.load(out).reshape(shape) > 0


def trained(image, folder, seconds, start):
    """Train on the strokes, from random weights or from a model."""
    model = folder / "model.safetensors"
    model.unlink(missing_ok=True)
    words = ["train", "--image", image, "--label", folder / "labels.npy", "--view", "2d", "--minutes", seconds / 60]
    words += ["--unlabelled", "ignore", "--background", "1", "--output", model, "--run", folder / "runs"]
    run(*words, "--start-from", start or "none")
    return model


def images_of(data, folder, count):
    """Give fluorescence images of the validation part as planes of one channel, with their nuclei."""
    kinds = splits_of(data)["dsb2018_nuclei"]["kind"]
    pairs = SETS["dsb2018_nuclei"][0](data, splits_of(data), folder)["val"]
    for image, labels in [pair for pair in pairs if kinds[pair[0].stem] != "he"][:count]:
        np.save(image, np.load(image)[0])
        yield image, (imread(labels) > 0).astype(np.uint8)


def main():
    """Train and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--model", default="nuclei_fluorescence")
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", ""]
    lines += ["| image | painted | model as it is | from random weights | from the model |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for image, truth in images_of(parsed.data, folder, parsed.images):
            painted = scribbled(truth, np.random.default_rng(0))
            np.save(folder / "labels.npy", painted)
            scores = [dice(segmented(image, parsed.model, folder, truth.shape), truth, painted == 0)]
            for start in (None, parsed.model):
                model = trained(image, folder, parsed.seconds, start)
                scores.append(dice(segmented(image, model, folder, truth.shape), truth, painted == 0))
            named = " | ".join(f"{score:.3f}" for score in scores)
            lines.append(
                f"| {image.stem[:8]} {truth.shape[0]} x {truth.shape[1]} | {(painted > 0).mean():.2%} | {named} |"
            )
            print("\n".join(lines), flush=True)
            if parsed.write:
                parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
