"""Comparison with nnU-Net v2: the same images, minutes and threads, one training of each in turn.

Run: python benchmarks/nnunet.py --data FOLDER --nnunet-python PYTHON [--sets NAME ...] [--minutes 10] [--write FILE]

PYTHON is an interpreter with nnunetv2, FOLDER as for accuracy.py. Planning and preprocessing of nnU-Net are not counted
in its minutes; reading, planning and checking are counted in ours. Both predict with their defaults and are scored by
the same command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from accuracy import SETS, predict, score, splits_of, train
from PIL import Image

CONFIGURATIONS = {"msd_hippocampus": "3d_fullres", "axondeepseg_sem": "2d", "chasedb1": "2d"}
LABELS = {
    "msd_hippocampus": {"background": 0, "anterior": 1, "posterior": 2},
    "axondeepseg_sem": {"background": 0, "axon": 1, "myelin": 2},
    "chasedb1": {"background": 0, "vessel": 1},
}


def raw_folder(name, pairs, folder):
    """Write the pairs in the format of nnU-Net."""
    raw = folder / "raw" / "Dataset001_set"
    ending = ".nii.gz" if CONFIGURATIONS[name] == "3d_fullres" else ".png"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / part).mkdir(parents=True)
    channels = 1
    for i, (image, label) in enumerate(pairs["train"]):
        channels = write_image(image, raw / "imagesTr" / f"case{i:03}_0000{ending}")
        write_labels(label, raw / "labelsTr" / f"case{i:03}{ending}")
    for i, (image, _) in enumerate(pairs["val"]):
        write_image(image, raw / "imagesTs" / f"case{i:03}_0000{ending}")
    named = {str(i): f"channel{i}" for i in range(channels)}
    described = {"channel_names": named, "labels": LABELS[name], "numTraining": len(pairs["train"])}
    (raw / "dataset.json").write_text(json.dumps(described | {"file_ending": ending}))
    return raw, ending


def write_image(source, path):
    """Write one image and return its number of channels."""
    if path.name.endswith(".nii.gz"):
        path.write_bytes(source.read_bytes())
        return 1
    image = np.load(source) if source.suffix == ".npy" else np.moveaxis(np.asarray(Image.open(source)), -1, 0)
    image = image.reshape(-1, *image.shape[-2:])
    Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1).copy()).save(path)
    return len(image)


def write_labels(source, path):
    """Write one label image."""
    if path.name.endswith(".nii.gz"):
        path.write_bytes(source.read_bytes())
        return
    from tifffile import imread

    labels = np.load(source) if source.suffix == ".npy" else imread(source)
    Image.fromarray(labels.reshape(labels.shape[-2:]).astype(np.uint8)).save(path)


def nnunet(name, pairs, folder, python, minutes):
    """Train and predict with nnU-Net, and score."""
    raw, ending = raw_folder(name, pairs, folder)
    variables = {f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")}
    command = [python, Path(__file__).with_name("nnunet_side.py"), "--configuration", CONFIGURATIONS[name]]
    command += ["--minutes", minutes, "--threads", os.environ.get("OMP_NUM_THREADS", os.cpu_count())]
    environment = os.environ | variables
    process = subprocess.run([*map(str, command)], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    steps = next(line for line in process.stdout.splitlines() if line.startswith("nnU-Net took"))
    rows = []
    for i, (_, truth) in enumerate(pairs["val"]):
        prediction = raw / "predicted" / f"case{i:03}{ending}"
        if ending == ".png":
            np.save(prediction.with_suffix(".npy"), np.asarray(Image.open(prediction)))
            prediction = prediction.with_suffix(".npy")
        rows.append((prediction, truth))
    return score(name, rows, folder), steps.removeprefix("nnU-Net took ")


def main():
    """Run the chosen sets and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nnunet-python", required=True)
    parser.add_argument("--sets", nargs="+", default=list(CONFIGURATIONS), choices=CONFIGURATIONS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--write", type=Path)
    parsed = parser.parse_args()
    lines = [f"`python {' '.join(Path(word).name for word in sys.argv)}`", ""]
    lines += ["| set | minutes | this program | nnU-Net v2 | nnU-Net's steps |", "|---|---|---|---|---|"]
    for name in parsed.sets:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            pairs = SETS[name][0](parsed.data, splits_of(parsed.data), folder)
            model = train(name, pairs, folder, parsed.minutes, [])
            ours = score(name, predict(name, pairs, model, folder), folder)
            theirs, steps = nnunet(name, pairs, folder / "nnunet", parsed.nnunet_python, parsed.minutes)
        lines.append(f"| {name} | {parsed.minutes:g} | {json.dumps(ours)} | {json.dumps(theirs)} | {steps} |")
        print("\n".join(lines), flush=True)
        if parsed.write:
            parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
