"""What drawing and augmenting a batch costs, as a share of the training step that it is for.

Run: python benchmarks/augment.py [--rounds 6] [--draws 60] [--threads 1] [--device cpu] [--write FILE]

A step is forward, Dice and cross-entropy, backward and AdamW of unet_padding with width 32, in bf16 where that pays, on
a batch that is there already. Drawing cuts patches out of images in memory. Augmentation is by the full strength of
each recipe. Batches differ in what is changed, so their times are means, beside the median step. The last column is
what is waited for, in the median, where one thread makes the next batch during a step; on a machine whose cores are all
busy, the step itself becomes longer by up to the share before that.
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
    "| task | step, s | recipe | draw, ms | augment, ms | share of the step | waited for, with a prefetch thread |\n"
    "|---|---|---|---|---|---|---|"
)


class Task:
    """A network, its data, and all that a step needs."""

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
        """Cut a batch out of the images."""
        images, target, _ = self.data.batch(rng, self.count, self.patch, (0, 0, 0))
        return torch.from_numpy(images).to(self.model.device), torch.from_numpy(target).to(self.model.device)

    def fitted(self, name):
        """Give a recipe of full strength."""
        return recipe(name, view=self.view, spacing=(1, 1, 1), mirror=("z", "y", "x"), patch=self.patch)

    def batch(self, name, seed):
        """Draw and augment."""
        rng = np.random.default_rng(seed)
        return augment(*self.draw(rng), {}, rng, self.fitted(name))[:2]

    def step(self, images, target):
        """Learn from a batch."""
        outputs, _ = self.model.supervised(images)
        loss = self.criterion(outputs.logits, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def blobs(shape, seed):
    """Make an image of bright blobs with noise, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, *(-(-n // 16) for n in shape), generator=generator)
    field = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0].numpy()
    noise = torch.randn(1, *shape, generator=generator).numpy()
    return Pair(Volume((field + noise / 2).astype(np.float32)), Volume((field > 0.5).astype(np.uint8)))


def seconds(call):
    """Time one call, all that it started included."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def making(task, name, draws):
    """Give the mean seconds of drawing and of augmenting."""
    fitted, drawing, changing = task.fitted(name), [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        made = []
        drawing.append(seconds(lambda rng=rng, made=made: made.extend(task.draw(rng))))
        changing.append(seconds(lambda rng=rng, made=made: augment(*made, {}, rng, fitted)))
    return statistics.mean(drawing), statistics.mean(changing)


def alone(task, rounds):
    """Give the median seconds of a step."""
    batch = task.batch("none", 0)
    return statistics.median([seconds(lambda: task.step(*batch)) for _ in range(rounds + 1)][1:])


def waited(task, name, rounds):
    """Give the median seconds that are waited for a batch which a thread makes during a step."""
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
    """Give the lines of a task."""
    task = Task(task_name, device)
    step = alone(task, 2 * rounds)
    for name in RECIPES:
        drawing, changing = making(task, name, draws)
        yield (
            f"| {task_name} | {step:.2f} | {name} | {1e3 * drawing:.1f} | {1e3 * changing:.1f} | "
            f"{(drawing + changing) / step:.1%} | {waited(task, name, rounds) / step:.1%} |"
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
