"""Time and memory of each loss, forward and backward, beside MONAI's or torch's nearest in the same run.

Run: python benchmarks/losses.py [--only NAME ...] [--rounds 5] [--threads 1] [--write benchmarks/losses.md]

Logits are (2, 5, 96, 96, 96); the target is uint8, a class index a voxel (or a label a channel, for losses of sigmoid
channels) of which 2 % is IGNORE for ours. The others cannot ignore and get class 0 there; they get the target as they
want it, (2, 1, 96, 96, 96), and turn it into channels themselves, as ours do. Options are set for equal work.

Time is the median of the rounds, ours and theirs in turns. Memory is what the process of one call grew by at its peak,
as the kernel counts it, the gradient of the logits included: a process for each, after a small call for what is loaded
once.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn import functional

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.losses import LOSSES, build_loss

SHAPE = (2, 5, 96, 96, 96)
SMALL = (2, 5, 8, 8, 8)
BOUND = 1.2


def monai(name, **options):
    """Make a loss of MONAI's that takes a target with one channel of class indices, or labels as float channels."""
    import monai.losses

    made = getattr(monai.losses, name)(**options)
    return lambda logits, target: made(logits, target.unsqueeze(1) if target.ndim < logits.ndim else target.float())


def entropy(**options):
    """Make torch's cross-entropy, which wants int64."""
    return lambda logits, target: functional.cross_entropy(logits, target.long(), **options)


def binary_entropy(**options):
    """Make torch's binary cross-entropy, which wants float targets."""
    return lambda logits, target: functional.binary_cross_entropy_with_logits(logits, target.float(), **options)


def together(*parts):
    """Add losses up."""
    return lambda logits, target: sum(part(logits, target) for part in parts)


CLASSES = {"to_onehot_y": True, "softmax": True}
SIGMOID = {"sigmoid": True}
BATCH = {"smooth_nr": 1.0, "smooth_dr": 1.0, "batch": True}
SQUARED = {"squared_pred": True, **BATCH}
FOREGROUND = {"include_background": False}


def frequency_entropy():
    """Make cross-entropy with the inverse frequencies as weights."""

    def loss(logits, target):
        target = target.long()
        weight = target.numel() / target.flatten().bincount(minlength=logits.shape[1])
        return functional.cross_entropy(logits, target, weight=weight)

    return loss


def of_probabilities(change):
    """Make MONAI's Dice of what becomes of probabilities and of a target with one channel for each class."""
    import monai.losses
    from monai.networks import one_hot

    dice = monai.losses.DiceLoss(**SQUARED)

    def loss(logits, target):
        p, y = logits.softmax(1), one_hot(target.unsqueeze(1), num_classes=logits.shape[1])
        return change(dice, p, y)

    return loss


def of_both_sides(dice, p, y):
    """Give Dice of each class and of its rest."""
    return 0.8 * dice(p, y) + 0.2 * dice(1 - p, 1 - y)


def of_borders(dice, p, y):
    """Give Dice of soft borders."""

    def border(mask):
        return functional.max_pool3d(mask, 3, 1, 1) * functional.max_pool3d(1 - mask, 3, 1, 1)

    return dice(border(p), border(y))


def of_hard_voxels(_, p, y):
    """Give the hardness-weighted Dice as its authors wrote it, with torch's operations."""
    weight = 0.6 * (p - y).abs() + 0.4
    both, total = ((weight * part).sum((2, 3, 4)) for part in (p * y, p + y))
    return 1 - ((2 * both + 1e-5) / (total + 1e-5)).mean()


def dice(**options):
    """Make MONAI's Dice of a softmax."""
    return monai("DiceLoss", **CLASSES, **SQUARED, **options)


def dice_focal(kind):
    """Make MONAI's Dice and focal loss."""
    return monai("DiceFocalLoss", **kind, **SQUARED)


def dice_focal_bce():
    """Make MONAI's Dice and focal loss of sigmoids with torch's binary cross-entropy."""
    return together(dice_focal(SIGMOID), binary_entropy(pos_weight=torch.tensor(99.0)))


def hausdorff():
    """Make MONAI's Hausdorff loss of all classes, as ours is."""
    return monai("HausdorffDTLoss", **CLASSES, include_background=True)


# For each loss the head to run it with, what it is compared to, and how that is made.
PEERS = {
    "dice": ("multiclass", "DiceLoss", dice),
    "dice_ce": ("multiclass", "DiceCELoss", lambda: monai("DiceCELoss", **CLASSES, **SQUARED)),
    "bce_dice": (
        "multilabel",
        "DiceLoss + torch BCE",
        lambda: together(monai("DiceLoss", **SIGMOID, **SQUARED), binary_entropy()),
    ),
    "ce": ("multiclass", "torch cross_entropy", entropy),
    "bce": ("multilabel", "torch BCE", binary_entropy),
    "weighted_ce": ("multiclass", "torch cross_entropy, weights from bincount", frequency_entropy),
    "reweighted_bce": ("multilabel", "torch BCE, pos_weight", lambda: binary_entropy(pos_weight=torch.tensor(99.0))),
    "unet_weighted_ce": ("multiclass", "torch cross_entropy", entropy),
    "focal": ("multiclass", "FocalLoss", lambda: monai("FocalLoss", to_onehot_y=True, use_softmax=True)),
    "reweighted_dice": ("multiclass", "DiceLoss, weight", lambda: dice(weight=[1.0, 2.0, 1.0, 2.0, 1.0])),
    "weighted_dice": ("multiclass", "DiceLoss of both sides", lambda: of_probabilities(of_both_sides)),
    "generalised_dice": (
        "multiclass",
        "GeneralizedDiceLoss",
        lambda: monai("GeneralizedDiceLoss", **CLASSES, **BATCH),
    ),
    "log_dice": ("multiclass", "DiceLoss", dice),
    "focal_dice": ("multilabel", "DiceFocalLoss", lambda: dice_focal(SIGMOID)),
    "focal_bce_dice": ("multilabel", "DiceFocalLoss + torch BCE", dice_focal_bce),
    "line": ("multilabel", "DiceFocalLoss + torch BCE", dice_focal_bce),
    "block": ("multilabel", "DiceFocalLoss", lambda: dice_focal(SIGMOID)),
    "ten_channel": ("multilabel", "DiceFocalLoss + torch BCE", dice_focal_bce),
    "drive_ce_dice": ("multiclass", "DiceCELoss", lambda: monai("DiceCELoss", **CLASSES, **BATCH)),
    "border_dice": ("multiclass", "DiceLoss of max-pooled borders", lambda: of_probabilities(of_borders)),
    "hardness_dice": ("multiclass", "its authors' formula in torch", lambda: of_probabilities(of_hard_voxels)),
    "attention_dice": ("multiclass", "its authors' formula in torch", lambda: of_probabilities(of_hard_voxels)),
    "vae": ("multiclass", "DiceLoss", dice),
    "tversky": ("multiclass", "TverskyLoss", lambda: monai("TverskyLoss", **CLASSES, **BATCH)),
    "focal_tversky": ("multiclass", "TverskyLoss", lambda: monai("TverskyLoss", **CLASSES, **BATCH)),
    "clDice": ("multiclass", "SoftDiceclDiceLoss", lambda: monai("SoftDiceclDiceLoss", **CLASSES, **FOREGROUND)),
    "boundary": ("multiclass", "HausdorffDTLoss", hausdorff),
    "hausdorff": ("multiclass", "HausdorffDTLoss", hausdorff),
}


def inputs(head, shape):
    """Give logits, a target for ours and a target without IGNORE for theirs; objects are blobs, as in images."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(shape[0], shape[1], *(max(n // 8, 1) for n in shape[2:]), generator=generator)
    field = functional.interpolate(coarse, size=shape[2:], mode="trilinear")
    full = (field > 0).to(torch.uint8) if head == "multilabel" else field.argmax(1).to(torch.uint8)
    logits = field.mul_(2).add_(torch.randn(shape, generator=generator)).requires_grad_()
    unknown = torch.rand(full.shape, generator=generator) < 0.02
    return logits, full.masked_fill(unknown, IGNORE), full


def sides(name, shape):
    """Give ours and theirs as functions without arguments that run forward and backward once."""
    head, _, theirs = PEERS[name]
    logits, target, full = inputs(head, shape)
    ours, other = build_loss(name, head=head), theirs()

    def run(loss, given):
        logits.grad = None
        loss(logits, given).backward()

    return {"ours": lambda: run(ours, target), "theirs": lambda: run(other, full)}


def times(name, rounds):
    """Give the median seconds of ours and theirs, run in turns."""
    seconds = {"ours": [], "theirs": []}
    both = sides(name, SHAPE)
    for turn in range(rounds + 1):
        for side, call in both.items():
            start = time.perf_counter()
            call()
            if turn:  # the first warms up
                seconds[side].append(time.perf_counter() - start)
    return [statistics.median(values) for values in seconds.values()]


def in_status(field):
    """Read a number of MiB of this process from the kernel."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def print_growth(name, side):
    """Print by how many MiB this process grows at most in one call."""
    sides(name, SMALL)[side]()
    call = sides(name, SHAPE)[side]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = in_status("VmRSS")
    call()
    print(in_status("VmHWM") - before)


def memory(name, side, threads):
    """Give the peak MiB of a call in a process of its own that hands freed arrays back at once."""
    command = [sys.executable, __file__, "--grow", name, side, "--threads", str(threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def row(name, rounds, threads):
    """Give one line of the table."""
    ours, theirs = times(name, rounds)
    mine, others = (memory(name, side, threads) for side in ("ours", "theirs"))
    slow, large = ours / theirs, mine / others
    verdict = "yes" if max(slow, large) <= BOUND else "no"
    numbers = f"{ours:.2f} | {theirs:.2f} | {slow:.2f} | {mine:.0f} | {others:.0f} | {large:.2f}"
    return f"| `{name}` | {PEERS[name][1]} | {numbers} | {verdict} |"


HEADER = (
    "| loss | against | ours, s | theirs, s | ratio | ours, MiB | theirs, MiB | ratio | within 1.2 |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def introduction(chosen):
    """Say what the table holds and how it was made."""
    return (
        "# Losses: time and memory\n\n"
        "Each loss, forward and backward, beside the nearest of MONAI or torch in the same run: logits of\n"
        f"{SHAPE}, a uint8 target, 2 % of it IGNORE for ours. Time is the median of {chosen.rounds} rounds, ours and\n"
        "theirs in turns; memory is what the process grew by at its peak, the gradient of the logits included.\n\n"
        "Command: `python benchmarks/losses.py --write benchmarks/losses.md`\\\n"
        f"Machine: {os.cpu_count()} cores {platform.machine()} CPU ({chosen.threads} thread used), "
        f"torch {torch.__version__}, MONAI {version('monai')}\n\n"
    )


def main():
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--grow", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    if chosen.grow:
        print_growth(*chosen.grow)
        return
    lines = [HEADER]
    print(HEADER)
    for name in chosen.only:
        lines.append(row(name, chosen.rounds, chosen.threads))
        print(lines[-1], flush=True)
    if chosen.write:
        chosen.write.write_text(introduction(chosen) + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
