"""Accuracy of a training on a few strokes, from random weights and from a model of the same kind of images.

Run: python benchmarks/start_from.py --data FOLDER [--seconds 60] [--images 2] [--model NAME] [--corrections 12]
     [--write FILE]

FOLDER as for accuracy.py. Strokes on 1 % of the pixels, as in scribbles.py, of images of the validation part, which a
model of the train part has never seen: photographs of the retina for the model retinal_vessels, else fluorescence
images; seconds are CPU time. Scores are of the pixels without strokes:
the model as it is, a training from random weights, and one that starts from the model.

With --corrections, the innermost part of so many of the largest errors of the model is painted instead, as a user would
correct it. Scores are then of all pixels: the model as it is, a training that starts from it on the corrections alone,
and one as planned, which follows the model where nothing is painted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from accuracy import SETS, splits_of
from scipy.ndimage import distance_transform_edt, label
from scribbles import dice, scribbled
from tifffile import imread

LEAST_DEPTH, INNER = 1.5, 0.6
"""Errors that are painted reach so far, pixels, and the part of them that is painted so far relative to that."""

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


def trained(image, folder, seconds, start, options=()):
    """Train on the strokes, from random weights or from a model."""
    model = folder / "model.safetensors"
    model.unlink(missing_ok=True)
    words = ["train", "--image", image, "--label", folder / "labels.npy", "--view", "2d", "--minutes", seconds / 60]
    words += ["--unlabelled", "ignore", "--background", "1", "--output", model, "--run", folder / "runs"]
    run(*words, "--start-from", start or "none", *options)
    return model


def corrections(found, truth, count):
    """Paint the middle of the largest errors of a result (Y, X): 1 is background, 2 foreground."""
    depth = distance_transform_edt(found != (truth > 0))
    errors, _ = label(depth >= LEAST_DEPTH)
    painted = np.zeros(truth.shape, np.uint8)
    for error in np.argsort(-np.bincount(errors.ravel())[1:])[:count] + 1:
        inside = (errors == error) & (depth >= INNER * depth[errors == error].max())
        painted[inside] = truth[inside] + 1
    return painted


def corrected(image, truth, folder, parsed):
    """Give the line of the table for an image with corrections."""
    found = segmented(image, parsed.model, folder, truth.shape)
    painted = corrections(found, truth, parsed.corrections)
    np.save(folder / "labels.npy", painted)
    results = [found]
    for options in (["--distillation", "0", "--learning-rate", "0.002"], []):
        model = trained(image, folder, parsed.seconds, parsed.model, ["--hold-out", "0", *options])
        results.append(segmented(image, model, folder, truth.shape))
    scores = " | ".join(f"{dice(result, truth, painted >= 0):.3f}" for result in results)
    return f"| {image.stem[:8]} | {(painted > 0).sum()} pixels | {scores} |"


def images_of(data, folder, model, count):
    """Give images of the validation part that a model is for, with their nuclei or vessels."""
    if model == "retinal_vessels":
        for image, labels in SETS["chasedb1"][0](data, splits_of(data), folder)["val"][:count]:
            yield image, imread(labels)
        return
    kinds = splits_of(data)["dsb2018_nuclei"]["kind"]
    pairs = SETS["dsb2018_nuclei"][0](data, splits_of(data), folder)["val"]
    for image, labels in [pair for pair in pairs if kinds[pair[0].stem] != "he"][:count]:
        np.save(image, np.load(image)[0])
        yield image, (imread(labels) > 0).astype(np.uint8)


def strokes(image, truth, folder, parsed):
    """Give the line of the table for an image with strokes on 1 % of it."""
    painted = scribbled(truth, np.random.default_rng(0))
    np.save(folder / "labels.npy", painted)
    scores = [dice(segmented(image, parsed.model, folder, truth.shape), truth, painted == 0)]
    for start in (None, parsed.model):
        model = trained(image, folder, parsed.seconds, start)
        scores.append(dice(segmented(image, model, folder, truth.shape), truth, painted == 0))
    named = " | ".join(f"{score:.3f}" for score in scores)
    return f"| {image.stem[:8]} | {(painted > 0).mean():.2%} | {named} |"


HEADS = {
    strokes: "| image | painted | model as it is | from random weights | from the model |",
    corrected: "| image | painted | model as it is | corrections alone | as planned |",
}


def main():
    """Train and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--model", default="nuclei_fluorescence", help="A shipped model of nuclei or vessels.")
    parser.add_argument("--corrections", type=int, default=0)
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    measure = corrected if parsed.corrections else strokes
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", "", HEADS[measure], "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for image, truth in images_of(parsed.data, folder, parsed.model, parsed.images):
            lines.append(measure(image, truth, folder, parsed))
            print(lines[-1], flush=True)
            if parsed.write:
                parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
