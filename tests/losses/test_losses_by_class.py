"""A loss for each class: against numpy, with its gradients, its text, and the roles of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import LossClasses, build_loss, parse_loss, write_loss
from napari_unetvnet.losses.total import DeepSupervision
from napari_unetvnet.networks.base import TrainingOutputs

RNG = np.random.default_rng(0)
SHAPE = (2, 5, 6)


def dice(p, y):
    return 1 - (2 * (p * y).sum() + 1) / ((p**2).sum() + (y**2).sum() + 1)


def reweighted_bce(p, y, alpha=0.99):
    return -(alpha * y * np.log(p) + (1 - alpha) * (1 - y) * np.log(1 - p)).mean()


def focal(p, y, alpha=0.99, gamma=2):
    return -(alpha * y * (1 - p) ** gamma * np.log(p) + (1 - alpha) * (1 - y) * p**gamma * np.log(1 - p)).mean()


def disc(p, y):
    return dice(p, y) + 10 * reweighted_bce(p, y)


def line(p, y):
    return disc(p, y) + 100 * focal(p, y)


def block(p, y):
    return dice(p, y) + 100 * focal(p, y)


def probabilities(logits, head):
    """The probability of each class that can be named, from logits of shape (B, K, *S)."""
    if head == "multiclass":
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)
    p = 1 / (1 + np.exp(-logits))
    return np.concatenate([1 - p, p], 1) if head == "binary" else p


def a_case(head, channels=3):
    """Logits, a target with ignored voxels, and the truth of each class and the known voxels in numpy."""
    logits = RNG.normal(size=(SHAPE[0], 1 if head == "binary" else channels, *SHAPE[1:]))
    classes = 2 if head == "binary" else channels
    unknown = RNG.random(SHAPE) < 0.2
    if head == "multilabel":
        target = RNG.integers(0, 2, (SHAPE[0], channels, *SHAPE[1:]))
        truth = target
        target = np.where(unknown[:, None], IGNORE, target)
    else:
        indices = RNG.integers(0, classes, SHAPE)
        truth = np.stack([indices == k for k in range(classes)], 1)
        target = np.where(unknown, IGNORE, indices)
    tensor = torch.tensor(logits, requires_grad=True)
    return tensor, torch.tensor(target), probabilities(logits, head), truth.astype(float), ~unknown


def of(formula, p, y, known, index):
    return formula(p[:, index][known], y[:, index][known])


def classes_of(head, names=("background", "big", "tiny"), **others):
    names = names[:2] if head == "binary" else names
    return LossClasses(names, tuple(range(len(names))), head, **others)


@in_one_case("head", ["binary", "multiclass", "multilabel"])
def test_it_costs_the_sum_of_the_losses_of_single_classes(head):
    logits, target, p, y, known = a_case(head)
    for text, expected in {
        "big: dice + 10*reweighted_bce; rest: dice + 10*reweighted_bce + 100*focal": lambda k: disc if k == 1 else line,
        "1: 2*line; background: block; rest: dice": lambda k: (block, lambda p, y: 2 * line(p, y), dice)[k],
        "0, 1: dice; rest: block" if head != "binary" else "0, 1: dice": lambda k: dice if k < 2 else block,
    }.items():
        if head == "binary" and text.startswith("1:"):
            text = text.removesuffix("; rest: dice")
        cost = build_loss(text, head=head, classes=classes_of(head))(logits, target)
        numbers = [of(expected(k), p, y, known, k) for k in range(p.shape[1])]
        assert cost.item() == pytest.approx(sum(numbers), rel=1e-6)
    joint = build_loss("dice_ce", head=head)(logits, target).item() if head != "binary" else 0
    if joint:  # a part without a class is for all together
        both = build_loss("dice_ce; tiny: 100*focal", head=head, classes=classes_of(head))(logits, target)
        assert both.item() == pytest.approx(joint + 100 * of(focal, p, y, known, 2), rel=1e-6)


@in_one_case("head", ["binary", "multiclass", "multilabel"])
def test_only_the_named_class_and_known_voxels_have_a_gradient(head):
    logits, target, _, _, known = a_case(head)
    there = torch.tensor(known)[:, None].expand_as(logits)
    with torch.no_grad():
        logits[~there] = float("nan")
    gradients = []
    for factor in (1, 2):  # what the factor changes is the gradient of the class
        loss = build_loss(f"big: {factor}*line; rest: dice", head=head, classes=classes_of(head))
        (gradient,) = torch.autograd.grad(loss(logits, target), logits)
        assert (gradient[~there] == 0).all()
        gradients.append(gradient)
    changed = (gradients[1] != gradients[0]).transpose(0, 1).flatten(1).any(1)
    assert changed.tolist() == ([False, True, False] if head == "multilabel" else [True] * len(changed))


def test_class_weights_weigh_the_voxels_of_a_class():
    for head in ("multiclass", "multilabel"):
        logits, target, p, y, known = a_case(head)
        weights = (1.0, 3.0, 0.5)
        cost = build_loss("big: bce; rest: bce", head=head, class_weights=weights, classes=classes_of(head))
        w = np.where(y == 1, np.array(weights)[:, None, None], 1) if head == "multilabel" else None
        if w is None:
            w = np.broadcast_to((y * np.array(weights)[:, None, None]).sum(1, keepdims=True), y.shape)

        def mean(k, p=p, y=y, w=w, known=known):
            q, t, v = (array[:, k][known] for array in (p, y, w))
            return -(v * (t * np.log(q) + (1 - t) * np.log(1 - q))).sum() / v.sum()

        assert cost(logits, target).item() == pytest.approx(sum(mean(k) for k in range(3)), rel=1e-6)


def test_two_heads_as_in_the_fine_grained_source():
    # big and tiny of the image, tiny of the region; what the region's head has no channel for is left out.
    logits, target, p, y, known = a_case("multilabel", channels=2)
    roi, _, roi_p, _, _ = a_case("multilabel", channels=2)
    text = "big: dice + 10*reweighted_bce; tiny: dice + 10*reweighted_bce + 100*focal"
    classes = LossClasses(("big", "tiny"), head="multilabel", background=None)
    loss = DeepSupervision(build_loss(text, head="multilabel", classes=classes))
    full = of(disc, p, y, known, 0) + of(line, p, y, known, 1)
    cost = loss(TrainingOutputs(logits, roi=roi), target)
    assert cost.item() == pytest.approx(full + of(line, roi_p, y, known, 1), rel=1e-6)
    levels = loss(TrainingOutputs(logits, auxiliary=(roi,)), target).item()
    assert levels == pytest.approx(full + (of(disc, roi_p, y, known, 0) + of(line, roi_p, y, known, 1)) / 2, rel=1e-6)


def test_two_lines_and_a_block_as_in_the_source():
    # Background, cell (the block), and two lines with three blurred copies each: ten channels.
    logits, target, p, y, known = a_case("multilabel", channels=10)
    classes = LossClasses(("background", "cell", "left", "right"), (0, 1, 2, 3), "multilabel", 0, (2, 3), 3)
    lines = sum(of(line, p, y, known, k) for k in range(2, 10))
    expected = of(dice, p, y, known, 0) + 2 * lines + 4 * of(block, p, y, known, 1)
    for text in (
        "ten_channel",
        "ten_channel(block=cell)",
        "ten_channel(lines=[left, right], block=1)",
        "background: dice; left, right: 2*line; cell: 4*block",
        "background: dice; cell: 4*dice + 400*focal; rest: 2*dice + 20*reweighted_bce + 200*focal",
    ):
        cost = build_loss(text, head="multilabel", classes=classes)(logits, target)
        assert cost.item() == pytest.approx(expected, rel=1e-6), text


def test_roles_follow_what_classes_are_and_not_their_place():
    # Line only: no blurred copy is taken for the block.
    logits, target, p, y, known = a_case("multilabel", channels=5)
    classes = LossClasses(("background", "line"), (0, 1), "multilabel", 0, (1,), 3)
    cost = build_loss("ten_channel", head="multilabel", classes=classes)(logits, target)
    expected = of(dice, p, y, known, 0) + 2 * sum(of(line, p, y, known, k) for k in range(1, 5))
    assert cost.item() == pytest.approx(expected, rel=1e-6)
    # Without a background, the foreground of a softmax is all of it.
    logits, target, *_ = a_case("multiclass")
    none = LossClasses(("a", "b", "c"), (1, 2, 3), "multiclass", background=None)
    order = [2, 0, 1]
    moved = torch.where(target == IGNORE, target, torch.tensor([*np.argsort(order), *[0] * 253])[target])
    for name in ("clDice", "hardness_dice(include_background=false)", "drive_ce_dice"):
        loss = build_loss(name, head="multiclass", classes=none)
        torch.testing.assert_close(loss(logits[:, order], moved), loss(logits, target))


@in_one_case(
    "text, classes, sentence",
    [
        ("ten_channel", LossClasses(("0", "1", "2"), (0, 1, 2), "multiclass"), "no class is a line"),
        ("ten_channel", LossClasses(("0", "a", "b", "c"), (0, 1, 2, 3), "multilabel", 0, (1,), 3), "not b, c; name it"),
        ("ten_channel(lines=a, block=a)", LossClasses(("0", "a"), (0, 1), "multiclass"), "class a has two roles"),
        ("ten_channel(lines=a, block=b)", LossClasses(("0", "a", "b", "c"), head="multiclass"), "class c has no role"),
        ("ten_channel(lines=ax)", LossClasses(("0", "axon"), head="multiclass"), "no class 'ax'; did you mean axon?"),
        ("axn: dice; rest: bce", LossClasses(("0", "axon"), head="multilabel"), "no class 'axn'; did you mean axon?"),
        ("axon: dice", LossClasses(("0", "axon"), head="multilabel"), "nothing for class 0; add it"),
        ("axon: dice", LossClasses(("0", "axon", "myelin"), head="multiclass"), "nothing for class myelin"),
        ("0, axon: dice; rest: bce", LossClasses(("0", "axon"), head="multilabel"), "leave out 'rest'"),
        ("axon: ten_channel", LossClasses(("0", "axon"), head="multiclass"), r"does not fit a single class \(axon\)"),
        ("axon, axon: dice", LossClasses(("0", "axon"), head="multiclass"), "each once"),
        (": dice", LossClasses(("0", "axon"), head="multiclass"), "should be class names"),
        ("axon: dice", None, "none are known"),
    ],
)
def test_what_does_not_fit_the_classes_is_refused_in_a_sentence(text, classes, sentence):
    with pytest.raises(SettingsProblem, match=sentence):
        build_loss(text, head=classes.head if classes else "multiclass", classes=classes)


@in_one_case(
    "text",
    [
        "big: dice + 10.0*reweighted_bce; tiny: dice + 100.0*focal(gamma=3.0)",
        "dice_ce; left line, 2: 0.5*line",
        "ten_channel(lines=[left line, right line], block=cell)",
        "a: dice; rest: weighted_ce(class_weights=[1.0, 2.0])",
    ],
)
def test_the_text_is_read_back(text):
    assert write_loss(parse_loss(text)) == text


def test_the_heat_maps_of_a_line_have_cross_entropy_and_no_dice():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 6, 5, 5, generator=generator, dtype=torch.float64)
    line = torch.zeros(5, 5, dtype=torch.float64)
    line[2] = 1
    blurs = [line * share for share in (0.5, 0.25, 0.125)]
    target = torch.stack([1 - line, line, *blurs, torch.eye(5, dtype=torch.float64)])[None]
    classes = LossClasses(("0", "line", "cell"), (0, 1, 2), "multilabel", 0, (1,), 3)
    found = build_loss("heatmap_dice_ce(heatmap_weight=2, line_weight=3)", head="multilabel", classes=classes)(
        logits, target
    )
    y, p = target[0], logits[0].sigmoid()
    weights = torch.stack([1 + (factor - 1) * channel for channel, factor in zip(y, (1, 3, 3, 3, 3, 1), strict=True)])
    entropy = -(weights * (y * p.log() + (1 - y) * (1 - p).log())).sum((1, 2)) / weights.sum((1, 2))
    squares = (weights * (y**2 + p**2)).sum((1, 2))
    dice = (2 * (weights * y * p).sum((1, 2)) + 1) / (squares + 1)
    own, maps = [0, 1, 5], [2, 3, 4]
    expected = (1 - dice[own] + entropy[own]).mean() + 2 * entropy[maps].mean()
    assert float(found) == pytest.approx(float(expected))
    without = LossClasses(("0", "a", "b", "c", "d", "e"), (), "multilabel")
    plain = build_loss("dice_ce", head="multilabel")(logits, target)
    assert float(build_loss("heatmap_dice_ce", head="multilabel", classes=without)(logits, target)) == float(plain)
