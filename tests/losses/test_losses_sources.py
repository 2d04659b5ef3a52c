"""Every number that the sources' formulas give for their two samples, to the printed digits."""

from __future__ import annotations

import math

import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses import build_loss
from napari_unetvnet.losses.border import border

# Sample A: one channel of four pixels, and the same as two classes, 1 - p and p.
LABELS = torch.tensor([[1, 0, 1, 0]])
A = torch.tensor([0.9, 0.2, 0.6, 0.4], dtype=torch.float64)
EXTREME = torch.tensor([[[-1e4, 1e4, 1e4, -1e4]]], dtype=torch.float64)


def saturated(clip):
    """The sample p = 0, 1, 1, 0 as Keras sees it, clipped in single precision."""
    return torch.tensor([0.0, 1.0, 1.0, 0.0]).clamp(clip, 1 - clip).double()


def one_channel(p):
    return p.logit().reshape(1, 1, -1)


def two_classes(p):
    return torch.stack([1 - p, p]).log().unsqueeze(0)


def cost(expression, logits, target=LABELS, weight=None, head="binary", **more):
    return build_loss(expression, head=head)(logits, target, weight, **more).item()


def digits(text):
    """The number to its last printed digit, in which single precision, where a source has it, may be off by one."""
    exponent = int(text.partition("e")[2] or 0)
    decimals = len(text.partition("e")[0].partition(".")[2])
    return pytest.approx(float(text), rel=0, abs=1.001 * 10 ** (exponent - decimals))


def coefficient(text):
    """The loss 1 - D of a printed D; where a source prints the loss -D, that is D with the other sign."""
    return digits(f"{1 - abs(float(text)):.{len(text.partition('.')[2])}f}")


@in_one_case(
    "expression, printed",
    [
        ("dice", "0.915332"),
        ("dice(denominator=first)", "0.975610"),
        ("dice(denominator=plain, smooth=1e-5, per_image=true)", "-0.731708"),
        ("dice(denominator=plain)", "-0.784314"),
    ],
)
def test_dice_coefficients_of_sample_a(expression, printed):
    assert cost(expression, one_channel(A)) == coefficient(printed)


@in_one_case(
    "expression, printed",
    [
        ("bce", "0.337539"),
        ("ce", "0.337539"),
        ("reweighted_bce", "0.154341"),
        ("reweighted_bce(alpha=0.999)", "0.154076"),
        ("focal", "0.0207161"),
        ("focal(clamp=1e-7)", "0.0207161"),
        ("focal(alpha=0.25, clamp=1e-3, reduction=sum)", "0.0886898"),
        ("focal(alpha=0.25, reduction=sum)", "0.0886898"),
        ("bce_dice(bce_weight=100, alpha=0.999, denominator=first)", "15.43199"),
        ("bce_dice(bce_weight=0.01, alpha=0.999, denominator=first)", "0.0259311"),
        ("bce_dice(bce_weight=10, alpha=0.99)", "1.628079"),
        ("focal_bce_dice", "3.699689"),
        ("line", "3.699689"),
        ("focal_dice", "2.156278"),
        ("block", "2.156278"),
        ("bce_dice", "0.422207"),
        ("dice_ce", "0.422207"),
        ("weighted_dice(background=literal)", "0.0659473"),
        ("weighted_dice(background=literal) + reweighted_bce", "0.220288"),
        ("dice(smooth=1e-8)", "0.109792"),
        ("dice(smooth=0, epsilon=1e-8)", "0.109792"),
        ("vae", "0.109792"),
        ("hardness_dice", "0.292919"),
        ("hardness_dice(hardness=0.4)", "0.284542"),
        ("hardness_dice(hardness=0)", "0.275171"),
        ("hardness_dice(include_background=false)", "0.293179"),
        ("hardness_dice(hardness=0.4, include_background=false)", "0.281336"),
        ("hardness_dice(hardness=0, include_background=false)", "0.268292"),
        ("attention_dice", "0.292919"),
        ("generalised_dice", "0.275000"),
    ],
)
def test_losses_of_sample_a(expression, printed):
    assert cost(expression, one_channel(A)) == digits(printed)


@in_one_case(
    "expression, printed",
    [
        ("hardness_dice", "0.292919"),
        ("hardness_dice(hardness=0.4)", "0.284542"),
        ("hardness_dice(hardness=0)", "0.275171"),
        ("hardness_dice(include_background=false)", "0.293179"),
        ("dice(smooth=0, epsilon=1e-5)", "0.113258"),
        ("generalised_dice", "0.275000"),
        ("generalised_dice(weighting=simple)", "0.275000"),
        ("generalised_dice(weighting=uniform)", "0.275000"),
    ],
)
def test_losses_of_sample_a_as_two_classes(expression, printed):
    assert cost(expression, two_classes(A), head="multiclass") == digits(printed)


def test_the_brain_mask_is_the_weight():
    mask = torch.tensor([[1, 1, 1, 0]])
    loss = cost("dice(smooth=0, epsilon=1e-5)", two_classes(A), weight=mask, head="multiclass")
    assert loss == digits("0.0907252")


@in_one_case("weighting, printed", [("square", "0.396342"), ("simple", "0.366197"), ("uniform", ".325000")])
@in_one_case("logits, head", [(one_channel(A), "binary"), (two_classes(A), "multiclass")])
def test_generalised_dice_of_one_foreground_pixel(weighting, printed, logits, head):
    target = torch.tensor([[1, 0, 0, 0]])
    assert cost(f"generalised_dice(weighting={weighting})", logits, target, head=head) == digits(printed)


def test_generalised_dice_gives_a_class_that_is_nowhere_the_largest_weight_of_the_others():
    p = torch.tensor([[[0.7, 0.2, 0.6], [0.2, 0.7, 0.3], [0.1, 0.1, 0.1]]], dtype=torch.float64)
    target = torch.tensor([[0, 1, 0]])
    # r = 2, 1, 0; weights 1/4, 1, 1; overlaps 1.3, .7, 0; totals 2 + 1.5, 1 + 1.2, .3
    expected = 1 - 2 * (1.3 / 4 + 0.7) / (3.5 / 4 + 2.2 + 0.3)
    assert cost("generalised_dice", p.log(), target, head="multiclass") == pytest.approx(expected, abs=1e-6)


def test_generalised_dice_of_a_large_right_prediction_is_no_more_than_that_of_a_small_one():
    target = torch.zeros(1, 400, 400)
    target[:, 200:] = 1
    assert cost("generalised_dice", (2 * target - 1).unsqueeze(1) * 50, target) < 1e-9


@in_one_case(
    "expression, clip, printed",
    [
        ("bce", 1e-7, "8.01512"),
        ("reweighted_bce", 1e-7, "4.02908"),
        ("focal", 1e-7, "4.02908"),
        ("focal(alpha=0.25, reduction=sum)", 1e-3, "6.89396"),
    ],
)
def test_losses_of_the_saturated_sample(expression, clip, printed):
    assert cost(expression, one_channel(saturated(clip))) == digits(printed)


def test_focal_loss_clips_probabilities_on_demand():
    clipped = cost("focal(alpha=0.25, clamp=1e-3, reduction=sum)", EXTREME)
    assert clipped == pytest.approx(cost("focal(alpha=0.25, reduction=sum)", one_channel(saturated(1e-3))), rel=1e-5)
    assert clipped == pytest.approx(-(0.999**2) * math.log(1e-3))


@in_one_case("expression", ["bce", "reweighted_bce", "focal(alpha=0.25, reduction=sum)", "focal(gamma=0.5)"])
def test_without_clipping_too_a_saturated_voxel_costs_something_finite_and_has_a_gradient(expression):
    logits = EXTREME.clone().requires_grad_()
    loss = build_loss(expression, head="binary")(logits, LABELS)
    loss.backward()
    assert loss.isfinite()
    wrong = torch.tensor([[[True, True, False, False]]])
    assert logits.grad.isfinite().all()
    assert ((logits.grad != 0) == wrong).all()


@pytest.mark.parametrize("denominator", ["squared", "plain", "first"])
def test_dice_of_nothing_and_nothing_is_1(denominator):
    smooth = 0 if denominator == "first" else 1
    nothing = torch.full((1, 1, 4), -1e4)
    assert cost(f"dice(denominator={denominator}, smooth={smooth})", nothing, torch.zeros(1, 4)) == 0


def test_the_first_dice_can_exceed_1():
    assert cost("dice(denominator=first)", torch.full((1, 1, 1), 1e4), torch.ones(1, 1)) == pytest.approx(1 - 1.5)


def test_the_sane_weighted_dice_inverts_truth_and_prediction():
    # D = (2 * 1.5 + 1) / (2 + 1.37 + 1); of the background, y = 0, 1, 0, 1 and p = .1, .8, .4, .6
    expected = 0.8 * (1 - 4 / 4.37) + 0.2 * (1 - (2 * 1.4 + 1) / (2 + 1.17 + 1))
    assert cost("weighted_dice", one_channel(A)) == pytest.approx(expected)


def test_channel_weights_weigh_the_means_of_the_channels():
    p = torch.tensor([[[0.1, 0.8], [0.9, 0.3], [0.6, 0.5]]], dtype=torch.float64)
    target = torch.tensor([[[0, 1], [1, 0], [0, 0]]])
    means = [
        -(0.01 * math.log(0.9) + 0.99 * math.log(0.8)) / 2,
        -(0.99 * math.log(0.9) + 0.01 * math.log(0.7)) / 2,
        -(0.01 * math.log(0.4) + 0.01 * math.log(0.5)) / 2,
    ]
    expected = 0.02 * means[0] + 0.49 * means[1] + 0.49 * means[2]
    loss = cost("reweighted_bce(channel_weights=[0.02, 0.49, 0.49])", p.logit(), target, head="multilabel")
    assert loss == pytest.approx(expected)
    lost = [1 - (2 * 0.8 + 1) / (1 + 0.65 + 1), 1 - (2 * 0.9 + 1) / (1 + 0.9 + 1), 1 - 1 / (0.61 + 1)]
    loss = cost("reweighted_dice(channel_weights=[0.02, 0.49, 0.98])", p.logit(), target, head="multilabel")
    assert loss == pytest.approx((0.02 * lost[0] + 0.49 * lost[1] + 0.98 * lost[2]) / 1.49)
    with pytest.raises(DataProblem, match=r"2 channel weights .* 3 channels.*\.$"):
        cost("reweighted_dice(channel_weights=[1, 2])", p.logit(), target, head="multilabel")


def test_reweighting_without_an_opinion_is_half_the_cross_entropy_and_one_side_alone_is_possible():
    assert cost("reweighted_bce(alpha=0.5)", one_channel(A)) == pytest.approx(cost("bce", one_channel(A)) / 2)
    expected = -(math.log(0.9) + math.log(0.6)) / 4
    assert cost("reweighted_bce(alpha=1)", one_channel(A)) == pytest.approx(expected)


def test_the_log_of_dice_rewards_overlap():
    assert cost("log_dice", one_channel(A)) == pytest.approx(-math.log(4 / 4.37))
    assert cost("focal + log_dice", one_channel(A)) == pytest.approx(0.0207161 - math.log(4 / 4.37), abs=1e-7)


def test_a_class_against_the_rest_of_a_softmax_has_its_probability():
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 4, (2, 5), generator=generator)
    each = torch.stack([target == k for k in range(4)], 1)
    for name in ("reweighted_bce", "line", "block", "ten_channel"):
        as_sigmoids = cost(name, z.softmax(1).logit(), each, head="multilabel")
        assert cost(name, z, target, head="multiclass") == pytest.approx(as_sigmoids)


def test_focal_of_a_softmax_looks_at_the_right_class():
    # p of the right class is .8 and .6
    logits = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64).log()
    expected = -0.25 * (0.2**2 * math.log(0.8) + 0.4**2 * math.log(0.6)) / 2
    assert cost("focal(alpha=0.25)", logits, torch.tensor([[0, 1]]), head="multiclass") == pytest.approx(expected)


def test_blurred_masks_teach_cross_entropy_and_focal_loss():
    p, y = 0.7, 0.25
    logits, target = one_channel(torch.tensor([p], dtype=torch.float64)), torch.tensor([[[y]]])
    on, off = -y * math.log(p), -(1 - y) * math.log(1 - p)
    assert cost("bce", logits, target) == pytest.approx(on + off)
    assert cost("reweighted_bce", logits, target) == pytest.approx(0.99 * on + 0.01 * off)
    focal = 0.99 * (1 - p) ** 2 * on + 0.01 * p**2 * off
    assert cost("focal", logits, target) == pytest.approx(focal)


def test_border_dice_of_two_squares():
    target, predicted = torch.zeros(2, 1, 6, 6)
    target[:, 1:4, 1:4] = 1
    predicted[:, 2:5, 2:5] = 1
    logits = (2 * predicted - 1).unsqueeze(1) * 1e4
    assert cost("border_dice", logits, target) == coefficient("0.591837")
    assert cost("dice", logits, target) == coefficient("0.473684")


def test_the_border_of_a_square_is_all_but_its_middle():
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., 1:4, 1:4] = 1
    expected = torch.zeros(6, 6)
    expected[:5, :5] = 1
    expected[2, 2] = 0
    assert torch.equal(border(mask, torch.ones_like(mask, dtype=torch.bool))[0, 0], expected)


def test_there_is_no_border_between_the_known_and_the_unknown():
    mask, known = torch.zeros(1, 1, 6, 6), torch.ones(1, 1, 6, 6, dtype=torch.bool)
    mask[..., :3, :] = 1
    known[..., 3:, :] = False
    assert border(mask, known).sum() == 0


def test_ten_channels_are_a_background_eight_lines_and_a_block():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 10, 4, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, (2, 10, 4, 4), generator=generator)
    parts = {
        name: [cost(name, logits[:, c : c + 1], target[:, c]) for c in range(10)] for name in ("dice", "line", "block")
    }
    expected = parts["dice"][0] + 2 * sum(parts["line"][1:9]) + 4 * parts["block"][9]
    assert cost("ten_channel", logits, target, head="multilabel") == pytest.approx(expected)


# Probabilities of the foreground, the last pixel ignored.
VESSEL = torch.tensor([0.9, 0.2, 0.4, 0.5], dtype=torch.float64)
VESSEL_LABELS = torch.tensor([[1, 0, 0, IGNORE]])
vessel_heads = pytest.mark.parametrize(
    ("logits", "head"), [(one_channel(VESSEL), "binary"), (two_classes(VESSEL), "multiclass")]
)


@vessel_heads
def test_cross_entropy_and_dice_with_an_ignored_pixel(logits, head):
    assert cost("ce", logits, VESSEL_LABELS, head=head) == digits("0.279777")
    assert cost("weighted_ce(class_weights=[1, 2])", logits, VESSEL_LABELS, head=head) == digits("0.236173")
    # Dice of the background .800000, of the foreground .720000
    dice = cost("drive_ce_dice", logits, VESSEL_LABELS, head=head) - 0.236173
    assert dice == pytest.approx(0.24, abs=1e-6)
    assert cost("drive_ce_dice", logits, VESSEL_LABELS, head=head) == digits("0.476173")
    unweighted = cost("drive_ce_dice(class_weights=[1, 1])", logits, VESSEL_LABELS, head=head)
    assert unweighted == pytest.approx(0.279777 + 0.24, abs=1e-6)


@vessel_heads
def test_the_ignored_pixel_changes_nothing(logits, head):
    other = logits.clone()
    other[..., -1] = 7
    assert cost("drive_ce_dice", other, VESSEL_LABELS, head=head) == cost(
        "drive_ce_dice", logits, VESSEL_LABELS, head=head
    )


def test_dice_of_each_image_counts_the_same():
    logits = torch.cat([one_channel(VESSEL), one_channel(A)])
    target = torch.cat([VESSEL_LABELS, LABELS])
    each = [cost("drive_ce_dice", logits[i : i + 1], target[i : i + 1]) for i in (0, 1)]
    entropies = [cost("weighted_ce(class_weights=[1, 2])", logits[i : i + 1], target[i : i + 1]) for i in (0, 1)]
    together = cost("drive_ce_dice", logits, target) - cost("weighted_ce(class_weights=[1, 2])", logits, target)
    assert together == pytest.approx((sum(each) - sum(entropies)) / 2)


def test_more_than_two_classes_of_drive_weigh_the_same():
    p = torch.tensor([[[0.7, 0.2], [0.2, 0.7], [0.1, 0.1]]], dtype=torch.float64)
    target = torch.tensor([[0, 1]])
    dice = 1 - (2 * (2 * 0.7 / 1.9) + 0) / 3
    expected = -math.log(0.7) + dice
    assert cost("drive_ce_dice", p.log(), target, head="multiclass") == pytest.approx(expected, abs=1e-5)


def test_without_weights_all_classes_of_the_batch_count_the_same():
    p = torch.tensor([[[0.9, 0.2, 0.6, 0.4]]], dtype=torch.float64)
    target = torch.tensor([[1, 0, 0, IGNORE]])
    expected = (-math.log(0.9) - (math.log(0.8) + math.log(0.4)) / 2) / 2
    assert cost("weighted_ce", p.logit(), target) == pytest.approx(expected)
    assert cost("weighted_ce", p.logit(), target.unsqueeze(1), head="multilabel") == pytest.approx(expected)
    assert cost("weighted_ce", two_classes(p[0, 0]), target, head="multiclass") == pytest.approx(expected)
