"""Time and memory of each loss, forward and backward, and of the nearest loss of MONAI or torch in the same run.

Run: python benchmarks/losses.py [--only NAME ...] [--rounds 5] [--threads 1] [--write benchmarks/losses.md]

Logits are (2, 5, 96, 96, 96); the target is uint8: class indices, or one label per channel for losses of sigmoid
channels. For ours 2 % of it is IGNORE; the others cannot ignore voxels and get the class there. They get the target in
their shape, (2, 1, 96, 96, 96), and convert it to channels themselves, as ours do. Options are set for equal work.

Time is the median of the rounds, ours and theirs in turns. Memory is the growth of the process at the peak of one call,
as reported by the kernel, including the gradient of the logits: one process each, after a small call that loads
libraries.
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
    """Build a loss of MONAI for a target with one channel of class indices, or labels as float channels."""
    import monai.losses

    loss = getattr(monai.losses, name)(**options)
    return lambda logits, target: loss(logits, target.unsqueeze(1) if target.ndim < logits.ndim else target.float())


def entropy(**options):
    """Build torch's cross-entropy, which needs int64 targets."""
    return lambda logits, target: functional.cross_entropy(logits, target.long(), **options)


def binary_entropy(**options):
    """Build torch's binary cross-entropy, which needs float targets."""
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
    """Build cross-entropy with the inverse frequencies as weights."""

    def loss(logits, target):
        target = target.long()
        weight = target.numel() / target.flatten().bincount(minlength=logits.shape[1])
        return functional.cross_entropy(logits, target, weight=weight)

    return loss


def of_probabilities(change):
    """Build a loss from MONAI's Dice, probabilities and a target with one channel for each class."""
    import monai.losses
    from monai.networks import one_hot

    dice = monai.losses.DiceLoss(**SQUARED)

    def loss(logits, target):
        p, y = logits.softmax(1), one_hot(target.unsqueeze(1), num_classes=logits.shape[1])
        return change(dice, p, y)

    return loss


def of_both_sides(dice, p, y):
    """Return Dice of each class and of its complement."""
    return 0.8 * dice(p, y) + 0.2 * dice(1 - p, 1 - y)


def of_borders(dice, p, y):
    """Return Dice of soft borders."""

    def border(mask):
        return functional.max_pool3d(mask, 3, 1, 1) * functional.max_pool3d(1 - mask, 3, 1, 1)

    return dice(border(p), border(y))


def of_hard_voxels(_, p, y):
    """Return the hardness-weighted Dice of the paper, in plain torch."""
    weight = 0.6 * (p - y).abs() + 0.4
    intersection, total = ((weight * term).sum((2, 3, 4)) for term in (p * y, p + y))
    return 1 - ((2 * intersection + 1e-5) / (total + 1e-5)).mean()


def dice(**options):
    """Build MONAI's Dice of a softmax."""
    return monai("DiceLoss", **CLASSES, **SQUARED, **options)


def dice_focal(kind):
    """Build MONAI's Dice and focal loss."""
    return monai("DiceFocalLoss", **kind, **SQUARED)


def dice_focal_bce():
    """Build MONAI's Dice and focal loss of sigmoids with torch's binary cross-entropy."""
    return together(dice_focal(SIGMOID), binary_entropy(pos_weight=torch.tensor(99.0)))


def hausdorff():
    """Build MONAI's Hausdorff loss of all classes, as ours is."""
    return monai("HausdorffDTLoss", **CLASSES, include_background=True)


# For each loss: head, name of the loss it is compared with, and a function that builds that loss.
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
    """Return logits, a target for ours and a target without IGNORE for theirs; objects are blobs, as in images."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(shape[0], shape[1], *(max(n // 8, 1) for n in shape[2:]), generator=generator)
    field = functional.interpolate(coarse, size=shape[2:], mode="trilinear")
    full = (field > 0).to(torch.uint8) if head == "multilabel" else field.argmax(1).to(torch.uint8)
    logits = field.mul_(2).add_(torch.randn(shape, generator=generator)).requires_grad_()
    ignored = torch.rand(full.shape, generator=generator) < 0.02
    return logits, full.masked_fill(ignored, IGNORE), full


def sides(name, shape):
    """Return ours and theirs as functions without arguments that run forward and backward once."""
    head, _, theirs = PEERS[name]
    logits, target, full = inputs(head, shape)
    ours, other = build_loss(name, head=head), theirs()

    def run(loss, labels):
        logits.grad = None
        loss(logits, labels).backward()

    return {"ours": lambda: run(ours, target), "theirs": lambda: run(other, full)}


def times(name, rounds):
    """Return the median seconds of ours and theirs, run in turns."""
    seconds = {"ours": [], "theirs": []}
    calls = sides(name, SHAPE)
    for turn in range(rounds + 1):
        for side, call in calls.items():
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
    """Print the peak growth of this process in one call, in MiB."""
    sides(name, SMALL)[side]()
    call = sides(name, SHAPE)[side]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = in_status("VmRSS")
    call()
    print(in_status("VmHWM") - before)


def memory(name, side, threads):
    """Return the peak MiB of a call in a separate process that returns freed memory at once."""
    command = [sys.executable, __file__, "--grow", name, side, "--threads", str(threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def row(name, rounds, threads):
    """Return one row of the table."""
    seconds, other_seconds = times(name, rounds)
    mib, other_mib = (memory(name, side, threads) for side in ("ours", "theirs"))
    time_ratio, memory_ratio = seconds / other_seconds, mib / other_mib
    within = "yes" if max(time_ratio, memory_ratio) <= BOUND else "no"
    numbers = (
        f"{seconds:.2f} | {other_seconds:.2f} | {time_ratio:.2f} | {mib:.0f} | {other_mib:.0f} | {memory_ratio:.2f}"
    )
    return f"| `{name}` | {PEERS[name][1]} | {numbers} | {within} |"


HEADER = (
    "| loss | compared with | ours, s | theirs, s | ratio | ours, MiB | theirs, MiB | ratio | within 1.2 |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def introduction(chosen):
    """Return the introduction of the table."""
    return (
        "# Losses: time and memory\n\n"
        "Each loss, forward and backward, and the nearest loss of MONAI or torch in the same run: logits of shape\n"
        f"{SHAPE}, a uint8 target, 2 % of it IGNORE for ours. Time is the median of {chosen.rounds} rounds, ours and\n"
        "theirs in turns; memory is the peak growth of the process, including the gradient of the logits.\n\n"
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
