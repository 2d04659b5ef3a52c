"""Segmentation of whole volumes: forward passes alone, this package, MONAI and nnU-Net, same weights and tiles.

Run: python benchmarks/inference.py [--only 3d defaults 2d stitching busy memory] [--rounds 5] [--write FILE]

The network of the 3D cases is MONAI's DynUNet with 16 to 128 channels and instance norm, which is nnU-Net's plain
layout; that of the 2D comparison with MONAI has 32 to 512. MONAI and nnU-Net (if installed) use it unchanged; this
package converts it to its memory format beforehand. Every job maps a uint8 volume to uint8 labels, with Gaussian
blending, one tile at a time. Jobs run interleaved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

from napari_unetvnet.cli.threads import wait_briefly

if "monai" not in sys.argv:
    wait_briefly()

import numpy as np
import torch
from torch import nn

from napari_unetvnet.images.intensity import Intensity
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import choose_precision, steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.device import bf16_pays, keep_freed_memory
from napari_unetvnet.model.model import Model
from napari_unetvnet.networks import build_network
from napari_unetvnet.networks.base import SegmentationNetwork
from napari_unetvnet.settings import SegmentSettings

CPU = torch.device("cpu")
CASES = {
    "3D, 128^3 by tiles of 64^3": (3, 128, 64, 0.25, 3),
    "3D, 144^3 by tiles of 96^3": (3, 144, 96, 0.5, 3),
    "2D, 768^2 by tiles of 256^2": (2, 768, 256, 0.5, 3),
    "stitching, 160^3 by tiles of 64^3, 3 classes": (3, 160, 64, 0.5, 3),
    "stitching, 160^3 by tiles of 64^3, 20 classes": (3, 160, 64, 0.5, 20),
}
"""Dimensions, edges of the image and of its tiles, overlap, number of classes."""
SCALE = Intensity(np.full(1, 100, np.float32), np.full(1, 50, np.float32))


class Pointwise(SegmentationNetwork):
    """A 1 x 1 x 1 convolution, so that the time is that of the stitching."""

    def __init__(self, dims, in_channels, classes):
        super().__init__(dims, in_channels, classes)
        self.net = nn.Conv3d(in_channels, classes, 1)

    @property
    def divisor(self):
        """Divisor of valid sizes: any size."""
        return (1, 1, 1)

    def forward(self, x):
        """Map (B, C, Z, Y, X) to (B, K, Z, Y, X)."""
        return self.net(x)


def blobs(shape, seed=0):
    """Generate a volume of smooth blobs, uint8."""
    return blobs_and_truth(shape, seed)[0]


def blobs_and_truth(shape, seed=0):
    """Generate a volume of smooth blobs, uint8, and its labels: 0 dark, 1 medium, 2 bright."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(1, 1, *(max(2, n // 8) for n in shape))).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0, 0].numpy()
    image = (100 + 60 * smooth + 8 * rng.standard_normal(shape, np.float32)).clip(0, 255).astype(np.uint8)
    return image, np.digitize(smooth, (-0.3, 0.3))


def trained_weights(dims):
    """Return the weights of the network after a short training on dark, medium and bright blobs."""
    network = dynunet(3, dims)[1].train()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    shape = (2, 32, 64, 64) if dims == 3 else (4, 1, 128, 128)
    for step in range(60):
        batch = [blobs_and_truth(shape[1:], step * shape[0] + i) for i in range(shape[0])]
        x = torch.from_numpy(np.stack([SCALE.apply(image[None]) for image, _ in batch]))
        truth = torch.from_numpy(np.stack([truth for _, truth in batch]))
        x, truth = (x, truth) if dims == 3 else (x[:, :, 0], truth[:, 0])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), truth).backward()
        optimizer.step()
    return network.state_dict()


def dynunet(classes=3, dims=3):
    """Build the network with random weights: unchanged, and for this package."""
    torch.manual_seed(0)
    option = {"width": 16, "poolings": 3} if dims == 3 else {"width": 32, "poolings": 4}
    network = build_network("dynunet", dims, 1, classes, option).eval()
    return deepcopy(network), network


def as_model(network, view, patch, classes, context=0):
    """Wrap a network as a model."""
    card = ModelCard(
        network="unet3d", head="multiclass", view=view, patch=patch, values=tuple(range(classes)), context=context
    )
    return Model(network.eval(), card, CPU)


def ours(model, data, **settings):
    """Label a volume."""
    labels = np.empty(data.shape, np.uint8)
    for slab in steps(model, Volume(data[None]), SegmentSettings(**settings), scale=SCALE):
        labels[slab.start : slab.start + len(slab.labels)] = slab.labels
    return labels


def monai(network, data, tile, overlap):
    """Label a volume, or a plane (1, Y, X), with MONAI's sliding window."""
    from monai.inferers import sliding_window_inference

    flat = len(data) == 1
    with torch.inference_mode():
        x = torch.from_numpy(SCALE.apply(data[None]))
        x, tile = (x, tile[1:]) if flat else (x[None], tile)
        logits = sliding_window_inference(x, tile, 1, network, overlap=overlap, mode="gaussian")
        labels = logits[0].argmax(0).to(torch.uint8).numpy()
        return labels[None] if flat else labels


def nnunet(network, data, tile, overlap, classes):
    """Label a volume with nnU-Net's predictor without mirroring."""
    from types import SimpleNamespace

    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=1 - overlap, use_mirroring=False, device=CPU, allow_tqdm=False, perform_everything_on_device=True
    )
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=list(tile))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=classes)
    x = torch.from_numpy(SCALE.apply(data[None]))
    logits = predictor.predict_sliding_window_return_logits(x)
    return logits.float().argmax(0).to(torch.uint8).numpy()


def has_nnunet():
    """Whether nnU-Net is installed."""
    from importlib.util import find_spec

    return find_spec("nnunetv2") is not None


def interleaved(jobs, rounds):
    """Time jobs in turn; return the seconds of each in all rounds."""
    for job in jobs.values():
        job()
    times = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return times


def median_ratio(times, name, other):
    """Return the median over rounds of the ratio of two jobs."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def table(title, times, against):
    """Format a row for each job."""
    lines = [f"\n**{title}**\n", "| what | s | " + " | ".join(f"over {name}" for name in against) + " |"]
    lines.append("|---|---|" + "---|" * len(against))
    for name, seconds in times.items():
        ratios = " | ".join(f"{median_ratio(times, name, other):.3f}" for other in against)
        lines.append(f"| {name} | {statistics.median(seconds):.3f} | {ratios} |")
    return lines


def grid(size, tile, overlap):
    """Count the tiles of MONAI."""
    step = max(1, int(tile * (1 - overlap)))
    return (1 + max(0, -(-(size - tile) // step))) ** 3


def volumes(rounds):
    """3D, exact fp32."""
    lines = []
    for _, size, edge, overlap, _ in list(CASES.values())[:2]:
        data, tile, count = blobs((size,) * 3), (edge,) * 3, grid(size, edge, overlap)
        plain, network = dynunet()
        model = as_model(network, "3d", tile, 3)
        x = torch.randn(1, 1, *tile)

        def forwards(run, x=x, count=count):
            with torch.inference_mode():
                for _ in range(count):
                    run(x)

        jobs = {
            "bare forwards, network as it is": lambda f=forwards, p=plain: f(p),
            "bare forwards, order of this package": lambda f=forwards, m=model: f(m.network),
            "MONAI": lambda p=plain, d=data, t=tile, o=overlap: monai(p, d, t, o),
        }
        if has_nnunet():
            jobs["nnU-Net"] = lambda p=plain, d=data, t=tile, o=overlap: nnunet(p, d, t, o, 3)
        jobs["this package"] = lambda m=model, d=data, t=tile, o=overlap: ours(m, d, tile=t, overlap=o)
        jobs["this package, its own choice of tile"] = lambda m=model, d=data: ours(m, d)
        same = float((jobs["this package"]() == jobs["MONAI"]()).mean())
        times = interleaved(jobs, rounds)
        title = f"3D: {size}^3, tiles of {edge}^3, overlap {overlap}, {count} tiles"
        title += f"; {100 * same:.4f} % of labels as MONAI's"
        lines += table(title, times, [*list(jobs)[:2], "MONAI"])
    return lines


def defaults(rounds):
    """Compare with MONAI at its defaults, each in a separate process, as a user starts it."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for dims in (2, 3):
            torch.save(trained_weights(dims), f"{folder}/{dims}.pt")
        for case in CASES:
            lines += one_case(case, rounds, folder)
    return lines


def one_case(case, rounds, folder):
    """Compare in one case, with weights from a folder."""
    names = {"monai": "MONAI", "fp32": "this package, fp32"}
    if bf16_pays() and not case.startswith("stitching"):
        names["auto"] = "this package, precision auto"
    times = {name: [] for name in names.values()}
    for _ in range(rounds):
        for who, name in names.items():
            times[name].append(in_child("--time", case, "--measure", who, WEIGHTS=folder))
    title = f"{case}, overlap {CASES[case][3]}; processes of their own, MONAI at its defaults"
    return table(title, times, ["MONAI"])


def in_child(*arguments, **environment):
    """Run this script in a child process and return the number that it prints."""
    plain = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, __file__, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, env=plain | environment, check=True)
    return float(process.stdout.split()[-1])


def one_time(who, case):
    """Print the seconds for an image, the median of two after a warm-up, including the choice of precision."""
    dims, size, edge, overlap, classes = CASES[case]
    shape, tile = (size,) * dims, (edge,) * dims
    if dims == 2:
        shape, tile = (1, *shape), (1, *tile)
    data = blobs(shape)
    plain, network = (Pointwise(3, 1, classes).eval(),) * 2 if case.startswith("stitching") else dynunet(classes, dims)
    if not case.startswith("stitching"):
        for each in (plain, network):
            each.load_state_dict(torch.load(f"{os.environ['WEIGHTS']}/{dims}.pt", weights_only=True))
    model = as_model(network, f"{dims}d", tile, classes)
    chosen = SegmentSettings(tile=tile, overlap=overlap, precision=who if who == "fp32" else "auto")

    def job():
        if who == "auto":
            choose_precision(model, Volume(data[None]), chosen, SCALE)
        ours(model, data, tile=tile, overlap=overlap)

    jobs = {"monai": lambda: monai(plain, data, tile, overlap), "fp32": job, "auto": job}
    with keep_freed_memory() if who != "monai" else nullcontext():
        jobs[who]()
        times = []
        for _ in range(2):
            start = time.perf_counter()
            jobs[who]()
            times.append(time.perf_counter() - start)
    print(statistics.median(times))


def planes(rounds):
    """2D and 2.5D."""
    torch.manual_seed(0)
    plane, stack = blobs((1, 2048, 2048)), blobs((64, 512, 512))
    flat = as_model(build_network("dynunet", 2, 1, 3, {"width": 16}), "2d", (1, 128, 128), 3)
    three = as_model(build_network("dynunet", 2, 3, 3, {"width": 16}), "2.5d", (1, 128, 128), 3, context=1)

    def forwards(model, channels, size, count):
        x = torch.randn(1, channels, *size)
        with torch.inference_mode():
            for _ in range(count):
                model.network(x)

    from napari_unetvnet.inference import plan_tiles

    tiles = plan_tiles(flat, plane.shape, SegmentSettings())
    jobs = {
        "bare forwards": lambda: forwards(flat, 1, tiles.size[1:], len(tiles.places)),
        "2048 x 2048": lambda: ours(flat, plane),
        "MONAI": lambda: monai(flat.network, plane, tiles.size, 0.25),
    }
    lines = table(
        f"2D: 2048 x 2048, {len(tiles.places)} tiles of {tiles.size[1:]}", interleaved(jobs, rounds), list(jobs)[::2]
    )
    jobs = {
        "bare forwards": lambda: forwards(flat, 1, (512, 512), 64),
        "planes of the stack": lambda: ours(flat, stack),
        "2.5D, one neighbour each side": lambda: ours(three, stack),
    }
    times = interleaved(jobs, rounds)
    return lines + table("2D and 2.5D: 64 planes of 512 x 512", times, ["bare forwards", "planes of the stack"])


def stitching(rounds):
    """Stitch the output of a network of negligible cost."""
    lines, data, tile = [], blobs((160,) * 3), (64,) * 3
    for classes in (3, 20):
        torch.manual_seed(1)
        network = Pointwise(3, 1, classes).eval()
        model = as_model(network, "3d", tile, classes)
        x = torch.randn(1, 1, *tile)

        def forwards(network=network, x=x):
            with torch.inference_mode():
                for _ in range(grid(160, 64, 0.5)):
                    network(x)

        jobs = {"the network alone": forwards, "MONAI": lambda n=network: monai(n, data, tile, 0.5)}
        if has_nnunet():
            jobs["nnU-Net"] = lambda n=network, k=classes: nnunet(n, data, tile, 0.5, k)
        jobs["this package"] = lambda m=model: ours(m, data, tile=tile, overlap=0.5)
        same = float((jobs["this package"]() == jobs["MONAI"]()).mean())
        title = (
            f"Stitching: 160^3, tiles of 64^3, overlap .5, {classes} classes; {100 * same:.4f} % of labels as MONAI's"
        )
        lines += table(title, interleaved(jobs, rounds), ["MONAI"])
    return lines


def busy(rounds):
    """Measure with one of two cores busy with another process."""
    data, tile = blobs((96,) * 3), (64,) * 3
    model = as_model(dynunet()[1], "3d", tile, 3)
    times = {"one thread, other core idle": [], "two threads, one core busy": [], "two threads, idle": []}

    def timed(name, threads):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        ours(model, data, tile=tile, overlap=0.5)
        times[name].append(time.perf_counter() - start)

    ours(model, data, tile=tile, overlap=0.5)
    for _ in range(rounds):
        timed("one thread, other core idle", 1)
        timed("two threads, idle", 2)
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        timed("two threads, one core busy", 2)
        other.kill()
        other.wait()
    return table("A busy machine: 96^3, 8 tiles of 64^3", times, ["one thread, other core idle"])


def one_memory(who, size):
    """Segment a volume in this process and print the additional memory in GB."""
    import psutil

    data, tile = np.random.default_rng(0).integers(0, 255, (size,) * 3, np.uint8), (96,) * 3
    network = Pointwise(3, 1, 3).eval()
    small = data[:96, :96, :96].copy()
    zarr_folder = os.environ.get("ZARR_FOLDER")
    jobs = {
        "ours": lambda d: ours(as_model(network, "3d", tile, 3), d, tile=tile),
        "zarr": lambda d: into_zarr(as_model(network, "3d", tile, 3), d, tile, zarr_folder),
        "monai": lambda d: monai(network, d, tile, 0.25),
        "nnunet": lambda d: nnunet(network, d, tile, 0.25, 3),
    }
    with keep_freed_memory():
        jobs[who](small)  # so that libraries loaded at first use do not count
        before = psutil.Process().memory_info().rss
        jobs[who](data)
    with Path("/proc/self/status").open() as file:
        high = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    print((high - before) / 1e9)


def into_zarr(model, data, tile, folder):
    """Label a volume into a zarr array."""
    import zarr

    array = zarr.create_array(
        f"{folder}/{len(data)}.zarr", shape=data.shape, chunks=(72, 256, 256), dtype="u1", overwrite=True
    )
    for slab in steps(model, Volume(data[None]), SegmentSettings(tile=tile), scale=SCALE):
        array[slab.start : slab.start + len(slab.labels)] = slab.labels


def memory(sizes, folder):
    """Measure peak memory, each in a separate process."""
    names = {"ours": "this package", "zarr": "this package, into zarr", "monai": "MONAI", "nnunet": "nnU-Net"}
    lines = ["\n**Memory on top of the volume, GB: one convolution of single voxels, 3 classes, tiles of 96^3**\n"]
    lines += ["| voxels | " + " | ".join(names.values()) + " |", "|---|" + "---|" * len(names)]
    for size in sizes:
        row = []
        for who in names:
            if (who == "nnunet" and not has_nnunet()) or (size > 512 and who in ("monai", "nnunet")):
                row.append("-")
                continue
            row.append(f"{in_child('--measure', who, '--size', size, ZARR_FOLDER=str(folder)):.2f}")
        lines.append(f"| {size}^3 | " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    return lines


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=["3d", "2d", "stitching", "busy", "defaults", "memory"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--measure")
    parser.add_argument("--size", type=int)
    parser.add_argument("--time")
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    if parsed.time:
        one_time(parsed.measure, parsed.time)
        return
    if parsed.measure:
        one_memory(parsed.measure, parsed.size)
        return
    lines = []
    parts = {"3d": volumes, "2d": planes, "stitching": stitching, "busy": busy}
    with keep_freed_memory():
        for name, part in parts.items():
            if name in parsed.only:
                lines += (rows := part(parsed.rounds))
                print("\n".join(rows), flush=True)
    if "defaults" in parsed.only:
        lines += (rows := defaults(parsed.rounds))
        print("\n".join(rows), flush=True)
    if "memory" in parsed.only:
        with tempfile.TemporaryDirectory() as folder:
            lines += (rows := memory(parsed.sizes, folder))
            print("\n".join(rows), flush=True)
    if parsed.write:
        parsed.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
