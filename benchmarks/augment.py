"""Time of drawing and augmenting a batch, relative to a training step.

Run: python benchmarks/augment.py [--rounds 6] [--draws 60] [--threads 1] [--device cpu] [--write FILE]

A step is forward, Dice and cross-entropy, backward and AdamW of unet_padding with width 32, in bf16 if it is faster,
without the time for the batch. Drawing crops patches from images in memory. Augmentation uses each recipe at full
strength. Batches are augmented differently, so their times are means; the time of a step is a median. The last column
is the median waiting time if one thread prepares the next batch during a step; on a machine whose cores are all busy,
the step itself becomes longer by up to the fraction in the column before.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from napari_unetvnet.data.augment import RECIPES, augment, recipe
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.losses import build_loss
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.device import keep_freed_memory
from napari_unetvnet.model.model import build_model
from napari_unetvnet.settings import TrainSettings

# View, patch, batch and the shape of an image.
TASKS = {
    "2D 256², batch 4": ("2d", (1, 256, 256), 4, (1, 512, 512)),
    "3D 64³, batch 2": ("3d", (64, 64, 64), 2, (96, 128, 128)),
}
HEADER = (
    "| task | step, s | recipe | draw, ms | augment, ms | fraction of a step | waiting time with prefetch thread |\n"
    "|---|---|---|---|---|---|---|"
)


class Task:
    """A network with its data, loss and optimizer."""

    def __init__(self, name, device):
        view, self.patch, self.count, shape = TASKS[name]
        settings = TrainSettings(network="unet_padding", option={"width": 32}, view=view, device=device, hold_out=0)
        self.view = view
        self.data = prepare_data([blobs(shape, seed) for seed in range(4)], settings, self.patch)
        card = ModelCard(
            network="unet_padding", option={"width": 32}, head="binary", view=view, values=(0, 1), patch=self.patch
        )
        self.model = build_model(card, settings)
        self.model.network.train()
        self.criterion = build_loss("dice_ce", head="binary")
        self.optimizer = torch.optim.AdamW(self.model.network.parameters(), lr=1e-3)

    def draw(self, rng):
        """Draw a batch of patches from the images."""
        images, target, _ = self.data.batch(rng, self.count, self.patch, (0, 0, 0))
        return torch.from_numpy(images).to(self.model.device), torch.from_numpy(target).to(self.model.device)

    def recipe(self, name):
        """Return a recipe at full strength."""
        return recipe(name, view=self.view, spacing=(1, 1, 1), mirror=("z", "y", "x"), patch=self.patch)

    def batch(self, name, seed):
        """Draw and augment."""
        rng = np.random.default_rng(seed)
        return augment(*self.draw(rng), {}, rng, self.recipe(name))[:2]

    def step(self, images, target):
        """Take a training step on a batch."""
        outputs, _ = self.model.supervised(images)
        loss = self.criterion(outputs.logits, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def blobs(shape, seed):
    """Generate a noisy image of bright blobs with labels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, *(-(-n // 16) for n in shape), generator=generator)
    field = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0].numpy()
    noise = torch.randn(1, *shape, generator=generator).numpy()
    return Pair(Volume((field + noise / 2).astype(np.float32)), Volume((field > 0.5).astype(np.uint8)))


def seconds(call):
    """Time one call, including pending GPU work."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def preparation_seconds(task, name, draws):
    """Return the mean seconds of drawing and of augmenting."""
    fitted, drawing, augmenting = task.recipe(name), [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        batch = []
        drawing.append(seconds(lambda rng=rng, batch=batch: batch.extend(task.draw(rng))))
        augmenting.append(seconds(lambda rng=rng, batch=batch: augment(*batch, {}, rng, fitted)))
    return statistics.mean(drawing), statistics.mean(augmenting)


def step_seconds(task, rounds):
    """Return the median seconds of a step."""
    batch = task.batch("none", 0)
    return statistics.median([seconds(lambda: task.step(*batch)) for _ in range(rounds + 1)][1:])


def waiting_seconds(task, name, rounds):
    """Return the median seconds of waiting for a batch that a thread prepares during a step."""
    waits, batch = [], task.batch(name, 0)
    with ThreadPoolExecutor(1) as thread:
        for seed in range(1, rounds + 1):
            following = thread.submit(task.batch, name, seed)
            task.step(*batch)
            start = time.perf_counter()
            batch = following.result()
            waits.append(time.perf_counter() - start)
    return statistics.median(waits)


def rows(task_name, rounds, draws, device):
    """Yield the rows of a task."""
    task = Task(task_name, device)
    step = step_seconds(task, 2 * rounds)
    for name in RECIPES:
        drawing, augmenting = preparation_seconds(task, name, draws)
        yield (
            f"| {task_name} | {step:.2f} | {name} | {1e3 * drawing:.1f} | {1e3 * augmenting:.1f} | "
            f"{(drawing + augmenting) / step:.1%} | {waiting_seconds(task, name, rounds) / step:.1%} |"
        )


def main():
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    lines = [HEADER]
    print(HEADER)
    with keep_freed_memory():
        for name in TASKS:
            for line in rows(name, chosen.rounds, chosen.draws, chosen.device):
                lines.append(line)
                print(line, flush=True)
    if chosen.write:
        command = (
            f"python benchmarks/augment.py --rounds {chosen.rounds} --draws {chosen.draws} "
            f"--threads {chosen.threads} --device {chosen.device}"
        )
        machine = f"{platform.machine()}, torch {torch.__version__}"
        text = "\n".join(["# Cost of augmentation", "", f"`{command}` ({machine})", "", *lines, ""])
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
