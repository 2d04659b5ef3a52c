"""Time of a training step and a forward pass of every network by memory format and precision, as ratios in one run.

Run: python benchmarks/layout.py [NETWORK ...] [--threads 1] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from napari_unetvnet.losses import build_loss
from napari_unetvnet.networks import NETWORKS, build_network
from napari_unetvnet.networks.layout import fast_layout

SIZES = {2: (128, 128), 3: (32, 64, 64)}


def variant(name, dims, option, *, last, half):
    """Create functions for one forward pass and one training step."""
    torch.manual_seed(0)
    network = build_network(name, dims, 1, 2, option)
    order = torch.contiguous_format
    if last:
        fast_layout(network, dims)
        order = torch.channels_last if dims == 2 else torch.channels_last_3d
    size = network.fit(SIZES[dims])
    x = torch.randn(4 if dims == 2 else 1, 1, *size).to(memory_format=order)
    out = network.eval()(x).shape
    target = torch.randint(0, 2, (out[0], *out[2:]))
    loss = build_loss("dice_ce", head="multiclass")

    def forward():
        network.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            network(x)

    def step():
        network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network.training_outputs(x).logits
        loss(logits, target).backward()

    return {"forward": forward, "step": step}


def main():
    """Print a table of medians relative to contiguous fp32."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=16)
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    ways = {"plain": (False, False), "last": (True, False), "bf16": (False, True), "last bf16": (True, True)}
    print("| network | dims | what | fp32 s | " + " | ".join(list(ways)[1:]) + " |")
    print("|---|---|---|---|" + "---|" * (len(ways) - 1))
    for name in parsed.networks:
        described = NETWORKS.describe(name)
        option = {"width": parsed.width} if "width" in described.defaults else {}
        for dims in described.facts.get("supported_dims", (2, 3)):
            variants = {way: variant(name, dims, option, last=a, half=b) for way, (a, b) in ways.items()}
            for what in ("forward", "step"):
                times = {way: [] for way in ways}
                for turn in range(parsed.rounds + 1):
                    for way, functions in variants.items():
                        start = time.perf_counter()
                        functions[what]()
                        if turn:
                            times[way].append(time.perf_counter() - start)
                medians = {way: statistics.median(t) for way, t in times.items()}
                cells = " | ".join(f"{medians[way] / medians['plain']:.2f}" for way in list(ways)[1:])
                print(f"| {name} | {dims} | {what} | {medians['plain']:.3f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
