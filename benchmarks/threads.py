"""Thread waiting policies: the default of torch, sleeping at once, and brief spinning, with an idle and a busy core.

Run: python benchmarks/threads.py [--rounds 5] [--write FILE]

Each policy is measured in separate processes, interleaved, with two threads: an addition of 51200 numbers, like the
small operations of a network, a tile of 64^3 in 3D in fp32, and a training step on 4 patches of 128 x 128. The busy
core runs another program. Slow jobs are repeated fewer times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from napari_unetvnet.cli.threads import wait_briefly

WAYS = {"torch's default": {}, "sleep at once": {"OMP_WAIT_POLICY": "passive"}, "spin for a moment": None}
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
KINDS = ["one thread", "two threads", "two threads, one core busy"]
MOST_SECONDS = 8.0


def median(job):
    """Return the median seconds of up to nine repetitions, after a warm-up."""
    job()
    times, begin = [], time.perf_counter()
    while len(times) < 9 and (not times or time.perf_counter() - begin < MOST_SECONDS):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure():
    """Print the milliseconds of an addition, a tile and a step, for each kind."""
    import torch

    from napari_unetvnet.model.device import keep_freed_memory
    from napari_unetvnet.networks import build_network

    numbers = torch.ones(51200)
    volume, plane = (build_network("dynunet", dims, 1, 3, {"width": 16}) for dims in (3, 2))
    plane = plane.to(memory_format=torch.channels_last)
    block, patches = torch.randn(1, 1, 64, 64, 64), torch.randn(4, 1, 128, 128)
    truth = torch.randint(0, 3, (4, 128, 128))
    optimizer = torch.optim.AdamW(plane.parameters())

    def addition():
        for _ in range(100):
            numbers + numbers

    def tile():
        with torch.inference_mode():
            volume(block)

    def step():
        optimizer.zero_grad()
        logits = plane(patches.to(memory_format=torch.channels_last))
        torch.nn.functional.cross_entropy(logits, truth).backward()
        optimizer.step()

    with keep_freed_memory():
        for kind in KINDS:
            torch.set_num_threads(1 if kind == "one thread" else 2)
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if kind.endswith("busy") else None
            print(1000 * median(addition) / 100, 1000 * median(tile), 1000 * median(step))
            if busy:
                busy.kill()
                busy.wait()


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--moment", action="store_true")
    parsed = parser.parse_args()
    if parsed.measure:
        if parsed.moment:
            wait_briefly()
        measure()
        return
    runs = {name: [] for name in WAYS}
    for _ in range(parsed.rounds):
        for name, way in WAYS.items():
            plain = {key: value for key, value in os.environ.items() if key not in NAMES}
            command = [sys.executable, __file__, "--measure", *(["--moment"] if way is None else [])]
            process = subprocess.run(command, capture_output=True, text=True, env=plain | (way or {}), check=True)
            runs[name].append([[float(ms) for ms in line.split()] for line in process.stdout.splitlines()])
    lines = [f"| {what}, ms | " + " | ".join(KINDS) + " |\n|---|---|---|---|" for what in ("addition", "tile", "step")]
    tables = []
    for i, header in enumerate(lines):
        rows = [header]
        for name in WAYS:
            medians = [statistics.median(run[k][i] for run in runs[name]) for k in range(len(KINDS))]
            rows.append(f"| {name} | " + " | ".join(f"{ms:.3g}" for ms in medians) + " |")
        tables.append("\n".join(rows))
    print(text := "\n\n".join(tables) + "\n")
    if parsed.write:
        parsed.write.write_text(text)


if __name__ == "__main__":
    main()
