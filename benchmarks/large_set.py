"""Peak memory of a training on a converted set that is larger than the memory.

Run: python benchmarks/large_set.py [--gib 20] [--steps 300] [--folder FOLDER]

A set in the layout of the convert command is made of a few compressed chunks that are written many times, so that it
takes seconds and little room on the disk, while each image differs from the others. Then it is trained on in a child
process, of which /proc tells the peak of the anonymous memory and of the file pages in memory, apart.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

EDGE, CHUNK, CHANNELS = 128, 64, 4
KINDS = 4
"""Different chunks with noise; all other chunks of an image are empty."""


def main() -> None:
    """Make the set, train, and print the peaks."""
    parser = argparse.ArgumentParser(description="Peak memory of a training on a large converted set.")
    parser.add_argument("--gib", type=float, default=20, help="Size of the images in the set, unpacked.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="Where the set is made (default: a temporary folder).")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        path = Path(place) / "set.h5"
        begin = time.monotonic()
        subjects = make(path, chosen.gib)
        size = path.stat().st_size / 2**30
        print(f"{subjects} subjects, {chosen.gib:g} GiB unpacked, {size:.2f} GiB on the disk, "
              f"made in {time.monotonic() - begin:.0f} s")  # fmt: skip
        begin = time.monotonic()
        peaks = train(path, chosen.steps)
        print(f"{chosen.steps} steps and the look at the data took {time.monotonic() - begin:.0f} s")
        print(", ".join(f"{name} {kib / 2**20:.2f} GiB" for name, kib in peaks.items()))


def make(path: Path, gib: float) -> int:
    """Write a set, and give its number of subjects."""
    count = max(3, round(gib * 2**30 / (CHANNELS * EDGE**3 * 4)))
    rng, shape = np.random.default_rng(0), (count, CHANNELS, EDGE, EDGE, EDGE)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {"axes": "NCZYX", "modalities": ["t1", "t1ce", "t2", "flair"], "unit": "mm", "settings": "{}"}
        )
        file.create_dataset("subject_ids", data=[f"s{i:05}" for i in range(count)], dtype=h5py.string_dtype())
        file["affine"], file["original_affine"] = (np.stack([np.eye(4, dtype=np.float32)] * count) for _ in range(2))
        file["crop_start"], file["crop_stop"] = np.zeros((count, 3), int), np.full((count, 3), EDGE)
        file["original_shape"] = np.full((count, 3), EDGE)
        file["orientation"] = np.stack([np.array([[0, 1], [1, 1], [2, 1]], float)] * count)
        data, truth = dataset(file, "data", shape, np.float32), dataset(file, "truth", (count, 1, *shape[2:]), np.uint8)
        images = [packed(file, data, image) for image in noise(rng)]
        labels = [packed(file, truth, label) for label in objects()]
        for i in range(count):
            corner = (np.array([i, i // KINDS, i // 2, i // 3]) * CHUNK) % EDGE  # differs between neighbours
            for c in range(CHANNELS):
                data.id.write_direct_chunk((i, c, *corner[1:]), images[(i + c) % KINDS])
            truth.id.write_direct_chunk((i, 0, *corner[1:]), labels[i % KINDS])
            data[i, :, -1, -1, -1] = i + np.arange(CHANNELS)  # no two images are the same
    return count


def dataset(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """Create a dataset as the convert command does."""
    chunks = (1, 1, CHUNK, CHUNK, CHUNK)
    return file.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip", shuffle=True)


def packed(file: Any, like: Any, array: Any) -> bytes:
    """Compress a chunk as a dataset does."""
    one = dataset(file, "packed", (1, 1, CHUNK, CHUNK, CHUNK), like.dtype)
    one[0, 0] = array
    stored: bytes = one.id.read_direct_chunk((0,) * 5)[1]
    del file["packed"]
    return stored


def noise(rng: np.random.Generator) -> list[Any]:
    """Make chunks of an image: a bright block in noise that compresses well."""
    return [100 + 10 * rng.integers(0, 4, (CHUNK,) * 3) + 80 * (label > 0) for label in objects()]


def objects() -> list[Any]:
    """Make chunks of labels: a block of one of two classes."""
    labels = np.zeros((KINDS, CHUNK, CHUNK, CHUNK), np.uint8)
    for i, label in enumerate(labels):
        label[20 : 36 + 2 * i, 16:40, 12 + i : 44] = 1 + i % 2
    return list(labels)


def train(path: Path, steps: int) -> dict[str, int]:
    """Train in a child process, and give its peaks in KiB."""
    command = [sys.executable, "-m", "napari_unetvnet", "train", "--image", str(path), "--steps", str(steps)]
    command += ["--view", "3d", "--patch", "32", "32", "32", "--batch", "2", "--option", "width=8", "--device", "cpu"]
    command += ["--output", str(path.with_name("m.safetensors")), "--run", str(path.parent)]
    peaks = {"VmHWM": 0, "RssAnon": 0, "RssFile": 0}
    with subprocess.Popen(command, env=os.environ) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            for line in status.splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(process.returncode)
    return peaks


if __name__ == "__main__":
    main()
