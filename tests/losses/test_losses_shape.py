"""Losses about imbalance and shape against numbers worked out by hand, and against MONAI where it is right."""

from __future__ import annotations

import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.losses import build_loss
from napari_unetvnet.losses.thin import centre_line

# One channel of four pixels: TP = .9 + .6, FP = .2 + .4, FN = .1 + .4.
PROBABILITIES = torch.tensor([0.9, 0.2, 0.6, 0.4], dtype=torch.float64)
LABELS = torch.tensor([[1, 0, 1, 0]])
SAMPLE = PROBABILITIES.logit().reshape(1, 1, 4)


def cost(expression, logits=SAMPLE, target=LABELS, weight=None, head="binary", **options):
    return build_loss(expression, head=head, **options)(logits, target, weight).item()


def sure(mask):
    """Logits of a network that is sure of a mask, (B, 1, *S)."""
    return (mask.double() * 2 - 1).mul(50).unsqueeze(1)


def image(*rows):
    """A mask of shape (1, Y, X) from rows of . and #."""
    return torch.tensor([[[int(sign == "#") for sign in row] for row in rows]])


def a_square(corner, side=4, size=12):
    mask = torch.zeros(1, size, size, dtype=torch.long)
    mask[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side] = 1
    return mask


def test_tversky_of_the_sample():
    # T = (1.5 + 1) / (1.5 + .3 * .6 + .7 * .5 + 1)
    assert cost("tversky") == pytest.approx(1 - 2.5 / 3.03)
    assert cost("tversky", alpha=1.0, beta=0.0, smooth=0.0) == pytest.approx(1 - 1.5 / 2.1)
    assert cost("tversky", alpha=0.0, beta=1.0, smooth=0.0) == pytest.approx(1 - 1.5 / 2.0)


def test_tversky_with_equal_weights_is_plain_dice():
    for smooth in (0.0, 0.5, 3.0):
        tversky = cost("tversky", alpha=0.5, beta=0.5, smooth=smooth)
        assert tversky == pytest.approx(cost("dice", denominator="plain", smooth=2 * smooth))


def test_more_weight_on_misses_makes_missing_dearer_than_inventing():
    truth, none, too_much = a_square((4, 4)), a_square((4, 4), side=3), a_square((3, 3), side=5)
    missed, invented = (cost("tversky", sure(mask), truth, smooth=0.0) for mask in (none, too_much))
    # 7 of 16 pixels missed: T = 9 / (9 + .7 * 7); 9 invented: T = 16 / (16 + .3 * 9)
    assert missed == pytest.approx(1 - 9 / 13.9)
    assert invented == pytest.approx(1 - 16 / 18.7)


@pytest.mark.parametrize("gamma", [0.75, 1.0, 2.0])
def test_focal_tversky_is_a_power_of_tversky(gamma):
    assert cost("focal_tversky", gamma=gamma) == pytest.approx((0.53 / 3.03) ** gamma, abs=1e-8)


@pytest.mark.parametrize("name", ["tversky", "focal_tversky"])
def test_tversky_losses_of_nothing_where_nothing_is_cost_nothing_even_without_smoothing(name):
    logits = torch.full((1, 1, 4), -1e4, requires_grad=True)
    loss = build_loss(name, head="binary", smooth=0.0)(logits, torch.zeros(1, 4))
    loss.backward()
    assert loss == 0
    assert logits.grad.isfinite().all()


def test_the_centre_line_of_a_bar_runs_along_its_middle():
    bar = image(".......", ".#####.", ".#####.", ".#####.", ".......").double().unsqueeze(1)
    line = centre_line(bar, 2)[0, 0]
    assert line[2, 2:5].tolist() == [1, 1, 1]
    assert line[[0, 4]].sum() == line[:, [0, 6]].sum() == 0
    thin = image(".....", ".###.", ".....").double().unsqueeze(1)
    assert torch.equal(centre_line(thin, 3), thin)


def test_the_centre_line_is_that_of_max_pooling():
    cldice = pytest.importorskip("monai.losses.cldice")
    for size in [(9, 8), (7, 6, 5), (1, 6, 5), (2, 6, 5)]:
        soft = torch.rand(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(centre_line(soft, 3), cldice.soft_skel(soft, 3))


def test_centre_line_dice_of_a_broken_line_worked_out():
    whole, broken = image("......", "######", "......"), image("......", "##..##", "......")
    # A line of one pixel is its own centre line: P = 5/5, R = (4 + 1) / (6 + 1), C = 2 R / (1 + R) = 10/12.
    assert cost("clDice", sure(broken), whole, a=1.0) == pytest.approx(1 - 10 / 12)
    # D = (2 * 4 + 1) / (6 + 4 + 1)
    assert cost("clDice", sure(broken), whole, a=0.0) == pytest.approx(1 - 9 / 11)
    assert cost("clDice", sure(broken), whole, a=0.25) == pytest.approx(0.75 * 2 / 11 + 0.25 * 2 / 12)


def test_a_gap_costs_centre_line_dice_more_than_a_thinner_line_does_and_dice_less():
    tube = image(*["............"] * 2, *["############"] * 3, *["............"] * 2)
    gap, thin = tube.clone(), tube.clone()
    gap[..., 4:8] = 0
    thin[:, 2] = 0
    assert gap.sum() == thin.sum()
    assert cost("clDice", sure(gap), tube, a=0.0) == pytest.approx(cost("clDice", sure(thin), tube, a=0.0))
    assert cost("clDice", sure(gap), tube, a=1.0) > 2 * cost("clDice", sure(thin), tube, a=1.0)


def test_centre_line_dice_leaves_the_background_of_a_softmax_out():
    truth, logits = torch.randint(0, 2, (1, 8, 8)), torch.randn(1, 1, 8, 8, dtype=torch.float64)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    assert cost("clDice", two, truth, head="multiclass") == pytest.approx(cost("clDice", logits, truth))


def test_boundary_loss_on_a_distance_map_made_by_hand():
    truth = torch.tensor([[0, 0, 1, 1, 1, 0]])
    # distance to the nearest pixel of the other side: 2 1 | 1 2 1 | 1, and the longest side is 6
    p = torch.tensor([[[0.5, 0.25, 0.5, 1.0, 0.75, 0.5]]], dtype=torch.float64)
    by_hand = 2 * 0.5 + 0.25 + (1 - 0.5) + 2 * (1 - 1.0) + (1 - 0.75) + 0.5
    assert cost("boundary", p.logit(eps=1e-12), truth) == pytest.approx(by_hand / 6 / 6)


def test_boundary_loss_is_the_papers_up_to_a_number_that_no_prediction_changes():
    truth = a_square((3, 2))
    far = torch.tensor(
        [[min(((y - v) ** 2 + (x - u) ** 2) ** 0.5 for v in range(12) for u in range(12)
              if truth[0, v, u] != truth[0, y, x]) for x in range(12)] for y in range(12)]
    ).double()  # fmt: skip
    level = torch.where(truth.bool(), -far, far)
    logits = [torch.randn(1, 1, 12, 12, dtype=torch.float64) for _ in range(2)]
    paper = [(level * one.sigmoid()).mean().item() / 12 for one in logits]
    ours = [cost("boundary", one, truth) for one in logits]
    assert ours[0] - ours[1] == pytest.approx(paper[0] - paper[1], rel=1e-5)


def test_an_unknown_pixel_is_no_border():
    truth = torch.tensor([[0, IGNORE, 1, 1]])
    # distances 2 ? | 2 3, over the longest side 4
    p = torch.full((1, 1, 4), 0.5, dtype=torch.float64)
    assert cost("boundary", p.logit(), truth) == pytest.approx((2 + 2 + 3) * 0.5 / 3 / 4)


@pytest.mark.parametrize("name", ["boundary", "hausdorff"])
def test_an_error_costs_more_the_farther_it_lies_from_the_truth(name):
    truth = a_square((0, 0))
    near, far = truth.clone(), truth.clone()
    near[:, 2, 5] = far[:, 10, 10] = 1
    assert 0 < 4 * cost(name, sure(near), truth) < cost(name, sure(far), truth)


@in_one_case("name", ["boundary", "hausdorff"])
@in_one_case("truth", [0, 1])
def test_a_mask_without_a_border_costs_nothing(name, truth):
    target = torch.full((1, 6, 6), truth)
    assert cost(name, torch.randn(1, 1, 6, 6).clamp_max(-0.1), target) == 0


def test_a_distance_counts_in_lengths_of_the_patch():
    small, large = a_square((2, 2), 4, 8), a_square((20, 20), 40, 80)
    moved = a_square((2, 3), 4, 8), a_square((20, 30), 40, 80)
    for name in ("boundary", "hausdorff"):
        values = [cost(name, sure(mask), truth) for mask, truth in zip(moved, (small, large), strict=True)]
        assert 0.3 < values[0] / values[1] < 3


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hausdorff_of_a_shifted_square_is_that_of_monai(alpha):
    theirs = pytest.importorskip("monai.losses.hausdorff_loss").HausdorffDTLoss(
        alpha=alpha, sigmoid=True, include_background=True
    )
    truth, logits = a_square((3, 3)), sure(a_square((4, 6))) / 40
    expected = theirs(logits, truth.unsqueeze(1).double()).item()  # it rounds distances to whole ones for whole labels
    assert cost("hausdorff", logits, truth, alpha=alpha) * 12**alpha == pytest.approx(expected, rel=1e-5)


def test_hausdorff_of_several_classes_in_a_volume_is_that_of_monai():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 7, 8, generator=generator) * 3
    truth = torch.randint(0, 3, (2, 6, 7, 8), generator=generator)
    theirs = pytest.importorskip("monai.losses.hausdorff_loss").HausdorffDTLoss(
        include_background=True, to_onehot_y=True, softmax=True
    )
    ours = cost("hausdorff", logits, truth, head="multiclass")
    assert ours * 8**2 == pytest.approx(theirs(logits, truth.unsqueeze(1)).item(), rel=1e-5)


def test_tversky_is_that_of_monai():
    theirs = pytest.importorskip("monai.losses").TverskyLoss(
        to_onehot_y=True, softmax=True, batch=True, alpha=0.2, beta=0.6, smooth_nr=1.0, smooth_dr=1.0
    )
    logits, truth = torch.randn(2, 3, 6, 7, 8), torch.randint(0, 3, (2, 6, 7, 8))
    ours = cost("tversky", logits, truth, head="multiclass", alpha=0.2, beta=0.6)
    assert ours == pytest.approx(theirs(logits, truth.unsqueeze(1)).item(), rel=1e-5)
