"""How threads wait: torch's default, sleeping at once, and a moment of spinning, with an idle and with a busy core.

Run: python benchmarks/threads.py [--rounds 5] [--write FILE]

Each way is measured in processes of its own, in turn, with two threads: an addition of 51200 numbers, as steps of a
network are, a tile of 64^3 in 3D in fp32, and a training step of 4 patches of 128 x 128. The busy core runs another
program. What takes too long is measured fewer times.
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
PATIENCE = 8.0


def median(job):
    """Give the median seconds of up to nine times, after one."""
    job()
    taken, begun = [], time.perf_counter()
    while len(taken) < 9 and (not taken or time.perf_counter() - begun < PATIENCE):
        start = time.perf_counter()
        job()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measured():
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
        found = plane(patches.to(memory_format=torch.channels_last))
        torch.nn.functional.cross_entropy(found, truth).backward()
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
    given = parser.parse_args()
    if given.measure:
        if given.moment:
            wait_briefly()
        measured()
        return
    found = {name: [] for name in WAYS}
    for _ in range(given.rounds):
        for name, way in WAYS.items():
            plain = {key: value for key, value in os.environ.items() if key not in NAMES}
            command = [sys.executable, __file__, "--measure", *(["--moment"] if way is None else [])]
            done = subprocess.run(command, capture_output=True, text=True, env=plain | (way or {}), check=True)
            found[name].append([[float(ms) for ms in line.split()] for line in done.stdout.splitlines()])
    lines = [f"| {what}, ms | " + " | ".join(KINDS) + " |\n|---|---|---|---|" for what in ("addition", "tile", "step")]
    tables = []
    for i, header in enumerate(lines):
        rows = [header]
        for name in WAYS:
            each = [statistics.median(run[k][i] for run in found[name]) for k in range(len(KINDS))]
            rows.append(f"| {name} | " + " | ".join(f"{ms:.3g}" for ms in each) + " |")
        tables.append("\n".join(rows))
    print(text := "\n\n".join(tables) + "\n")
    if given.write:
        given.write.write_text(text)


if __name__ == "__main__":
    main()
