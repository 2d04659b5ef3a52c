"""Segment a volume larger than memory into zarr, kill the run halfway, resume it, compare with an uninterrupted run.

Run: python benchmarks/large_volume.py FOLDER [--size 512 2048 2048] [--limit-gib 2] [--write FILE]

The image (uint16) is created in FOLDER as zarr and reused the next time. The network is a 1 x 1 x 1 convolution, so
that reading, tiling, blending and writing are measured rather than a network. The resident memory is the peak of the
process as reported by the kernel (VmHWM). "killed" is a run that receives SIGKILL when half of the planes are finished;
"resumed" continues it. Each file of both results is compared.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import zarr
from torch import nn

from napari_unetvnet import runs
from napari_unetvnet.events import SlabDone
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.networks.base import SegmentationNetwork
from napari_unetvnet.settings import SegmentJob, SegmentSettings, checked

HEADER = "| run | planes | time, s | peak resident, MiB |\n|---|---|---|---|"
CHUNK = (16, 256, 256)


def image(path, size):
    """Create the image: noise that differs between chunks."""
    if path.exists() and zarr.open(str(path), mode="r").shape == size:
        return
    shutil.rmtree(path, ignore_errors=True)
    array = zarr.create_array(str(path), shape=size, chunks=CHUNK, dtype=np.uint16)
    block = np.random.default_rng(0).integers(0, 4096, (CHUNK[0] + 1, *size[1:]), np.uint16)
    for number, z in enumerate(range(0, size[0], CHUNK[0])):
        planes = np.roll(block, number * 7919, axis=2)[: min(CHUNK[0], size[0] - z)]
        array[z : z + len(planes)] = planes


class Pointwise(SegmentationNetwork):
    """A network of negligible cost."""

    def __init__(self, dims, in_channels, classes):
        super().__init__(dims, in_channels, classes)
        self.convolution = nn.Conv3d(in_channels, classes, 1)

    @property
    def divisor(self):
        """Divisor of valid sizes."""
        return (1,) * self.dims

    def forward(self, x):
        """Return logits (B, K, Z, Y, X) of images (B, C, Z, Y, X)."""
        return self.convolution(x)


NETWORKS._members["pointwise"] = "large_volume:Pointwise"


def network(path):
    """Write the network, untrained."""
    card = ModelCard(
        network="pointwise", head="binary", view="3d", values=(0, 1), patch=(8, 256, 256), normalise="zscore"
    )
    save_model(path, build_model(card, SegmentSettings(device="cpu")).network.state_dict(), card)


def start(folder, *, resume=False):
    """Start a run in a child process that also registers the network."""
    code = f"import sys, large_volume; from napari_unetvnet import runs; list(runs.run({folder!r}, resume={resume}))"
    code = code.replace("PosixPath(", "__import__('pathlib').Path(")
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)


def measure(folder, child, until=None):
    """Wait for a run, or kill it after ``until`` planes; return planes, seconds and peak resident MiB."""
    start, peak = time.monotonic(), 0
    offset = len(runs.follow(folder)[0])
    while child.poll() is None:
        peak = max(peak, resident(child.pid))
        slabs = [event for event in runs.follow(folder)[0][offset:] if isinstance(event, SlabDone)]
        if until and slabs and slabs[-1].stop >= until:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        time.sleep(0.05)
    slabs = [event for event in runs.follow(folder)[0][offset:] if isinstance(event, SlabDone)]
    if child.returncode != (-signal.SIGKILL if until else 0):
        raise SystemExit(f"The run ended with {child.returncode}; see {folder}.")
    return f"{slabs[0].start} to {slabs[-1].stop}", time.monotonic() - start, peak / 1024


def resident(pid):
    """Return the peak resident memory of a process in KiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def differing(one, other):
    """Count the files of two folders, and those that differ."""
    names = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (one, other)]
    same = [name for name in names[0] & names[1] if filecmp.cmp(one / name, other / name, shallow=False)]
    return len(names[0] | names[1]), len(names[0] | names[1]) - len(same)


def new_run(folder, name, values):
    """Create a run folder that writes labels and uncertainty as zarr."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir()
    outputs = {"output": str(folder / name / "labels.zarr"), "uncertainty": str(folder / name / "uncertainty.zarr")}
    runs.create(folder / name, checked(SegmentJob, values | outputs))
    return folder / name


def main():
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 2048, 2048), metavar=("Z", "Y", "X"))
    parser.add_argument("--limit-gib", type=float, default=2.0, help="Largest allowed resident memory.")
    parser.add_argument("--write", type=Path, help="A file for the table.")
    chosen = parser.parse_args()
    folder, size = chosen.folder, tuple(chosen.size)
    folder.mkdir(parents=True, exist_ok=True)
    image(folder / "image.zarr", size)
    network(folder / "model.safetensors")
    values = {"image": str(folder / "image.zarr"), "model": str(folder / "model.safetensors"), "device": "cpu"}
    values |= {"precision": "fp32"}
    whole, killed = new_run(folder, "whole", values), new_run(folder, "killed", values)
    rows = [("whole", *measure(whole, start(whole)))]
    rows.append(("killed", *measure(killed, start(killed), until=size[0] // 2)))
    rows.append(("resumed", *measure(killed, start(killed, resume=True))))
    counts = [differing(whole / name, killed / name) for name in ("labels.zarr", "uncertainty.zarr")]
    table = [HEADER, *(f"| {name} | {planes} | {seconds:.0f} | {peak:.0f} |" for name, planes, seconds, peak in rows)]
    files, others = (sum(pair) for pair in zip(*counts, strict=True))
    table.append(f"\n{' x '.join(map(str, size))} voxels, {files} files written, {others} of them differ.")
    print("\n".join(table))
    if chosen.write:
        chosen.write.write_text("\n".join(table) + "\n")
    return int(others > 0 or max(row[3] for row in rows) > 1024 * chosen.limit_gib)


if __name__ == "__main__":
    sys.exit(main())
