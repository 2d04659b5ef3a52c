"""Losses against numbers worked out by hand, and the text form of their sums."""

from __future__ import annotations

import math

import pytest
import torch
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import LOSSES, LossTerm, build_loss, parse_loss, write_loss

# Sample A: one channel of four pixels.
PROBABILITIES = torch.tensor([0.9, 0.2, 0.6, 0.4], dtype=torch.float64)
LABELS = torch.tensor([[1, 0, 1, 0]])
SAMPLE = PROBABILITIES.logit().reshape(1, 1, 4)

# Two pixels of two classes: class 0 has p = .8, .4 and is at the first, class 1 has p = .2, .6 and is at the second.
TWO = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64).log()
TWO_LABELS = torch.tensor([[0, 1]])


def cost(expression, logits=SAMPLE, target=LABELS, weight=None, head="binary", **options):
    return build_loss(expression, head=head, **options)(logits, target, weight).item()


def test_dice_of_the_sample_is_that_of_the_source():
    # D = (2 * 1.5 + 1) / (2 + 1.37 + 1)
    assert cost("dice") == pytest.approx(1 - 0.915332, abs=1e-6)


def test_plain_dice_divides_by_the_plain_sums():
    # D = (2 * 1.5 + 1) / (2 + 2.1 + 1)
    assert cost("dice", denominator="plain") == pytest.approx(1 - 4 / 5.1)


@pytest.mark.parametrize(("denominator", "coefficient"), [("squared", 3 / 3.37), ("plain", 3 / 4.1)])
def test_dice_without_smoothing_is_the_bare_quotient(denominator, coefficient):
    assert cost("dice", denominator=denominator, smooth=0.0) == pytest.approx(1 - coefficient)


@in_one_case("denominator", ["squared", "plain"])
@in_one_case("smooth", [0.0, 1.0])
def test_dice_of_nothing_predicted_where_nothing_is_costs_nothing(denominator, smooth):
    logits = torch.full((1, 1, 4), -1e4, requires_grad=True)
    loss = build_loss("dice", head="binary", denominator=denominator, smooth=smooth)(logits, torch.zeros(1, 4))
    loss.backward()
    assert loss == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("denominator", ["squared", "plain"])
def test_dice_without_smoothing_costs_nothing_where_nothing_is_known(denominator):
    logits = torch.randn(1, 1, 4, requires_grad=True)
    target = torch.full((1, 4), IGNORE)
    loss = build_loss("dice", head="binary", denominator=denominator, smooth=0.0)(logits, target)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_dice_of_each_class_and_of_all_together():
    # class 0: (2 * .8 + 1) / (1 + .8^2 + .4^2 + 1), class 1: (2 * .6 + 1) / (1 + .2^2 + .6^2 + 1)
    each = 1 - (2.6 / 2.8 + 2.2 / 2.4) / 2
    together = 1 - (2 * 1.4 + 1) / (2 + 1.2 + 1)
    assert cost("dice", TWO, TWO_LABELS, head="multiclass") == pytest.approx(each)
    assert cost("dice", TWO, TWO_LABELS, head="multiclass", per_class=False) == pytest.approx(together)


def test_dice_sums_over_the_batch():
    halves = SAMPLE.reshape(2, 1, 2), LABELS.reshape(2, 2)
    assert cost("dice", *halves) == pytest.approx(cost("dice"))


def test_cross_entropies_of_the_sample():
    # -(ln .9 + ln .8 + ln .6 + ln .6) / 4
    assert cost("bce") == pytest.approx(0.337539, abs=1e-6)
    assert cost("ce") == pytest.approx(cost("bce"))


def test_cross_entropy_of_two_classes():
    assert cost("ce", TWO, TWO_LABELS, head="multiclass") == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)


def test_saturated_predictions_stay_finite():
    # p = [0, 1, 1, 0] clipped to [1e-7, 1 - 1e-7]: two right, two wrong by ln 1e-7
    clipped = torch.tensor([1e-7, 1 - 1e-7, 1 - 1e-7, 1e-7], dtype=torch.float64).logit().reshape(1, 1, 4)
    assert cost("bce", clipped) == pytest.approx(-math.log(1e-7) / 2, rel=1e-6)
    # D = (2 * 1 + 1) / (2 + 2 + 1)
    assert cost("dice", clipped) == pytest.approx(0.4, abs=1e-6)


def test_combined_losses_are_the_sums_that_they_name():
    assert cost("dice_ce") == pytest.approx(cost("dice") + cost("ce"))
    assert cost("dice_ce", ce_weight=3) == pytest.approx(cost("dice") + 3 * cost("ce"))
    assert cost("bce_dice") == pytest.approx(cost("dice") + cost("bce"))
    assert cost("bce_dice", bce_weight=0.5) == pytest.approx(cost("dice") + 0.5 * cost("bce"))


def test_an_ignored_pixel_leaves_the_mean_of_the_others():
    target = torch.tensor([[1, 0, 1, IGNORE]])
    assert cost("bce", target=target) == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.6)) / 3)
    # D = (2 * 1.5 + 1) / (2 + .81 + .04 + .36 + 1)
    assert cost("dice", target=target) == pytest.approx(1 - 4 / 4.21)


def test_one_label_of_a_voxel_can_be_unknown_while_the_others_count():
    logits = PROBABILITIES.logit().reshape(1, 2, 2)
    target = torch.tensor([[[1, 0], [1, IGNORE]]])
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.6)) / 3
    assert cost("bce", logits, target, head="multilabel") == pytest.approx(expected)


def test_one_unknown_channel_takes_a_softmax_voxel_out():
    target = torch.tensor([[[1, IGNORE], [0, 1]]])
    assert cost("ce", TWO, target, head="multiclass") == pytest.approx(-math.log(0.8))


@pytest.mark.parametrize("name", ["ce", "bce"])
def test_doubling_all_weights_leaves_a_mean_as_it_is(name):
    weight = torch.tensor([[1.0, 2.0, 0.5, 3.0]], dtype=torch.float64)
    assert cost(name, weight=2 * weight) == pytest.approx(cost(name, weight=weight))
    expected = -(math.log(0.9) + 2 * math.log(0.8) + 0.5 * math.log(0.6) + 3 * math.log(0.6)) / 6.5
    assert cost(name, weight=weight) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["ce", "bce", "dice"])
def test_a_pixel_of_weight_two_counts_like_the_pixel_twice(name):
    twice = torch.cat([SAMPLE, SAMPLE[..., :1]], dim=-1), torch.cat([LABELS, LABELS[:, :1]], dim=1)
    weight = torch.tensor([[2.0, 1.0, 1.0, 1.0]])
    assert cost(name, weight=weight) == pytest.approx(cost(name, *twice))


def test_soft_targets_are_compared_as_numbers():
    soft = torch.tensor([[[0.25, 0.0, 1.0, 0.5]]])
    by_pixel = [(0.25, 0.9), (0.0, 0.2), (1.0, 0.6), (0.5, 0.4)]
    expected = -sum(y * math.log(p) + (1 - y) * math.log(1 - p) for y, p in by_pixel) / 4
    assert cost("bce", target=soft) == pytest.approx(expected)


terms = st.builds(
    LossTerm,
    name=st.sampled_from(list(LOSSES)),
    weight=st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_subnormal=False),
)


@given(st.lists(terms, min_size=1, max_size=4).map(tuple))
def test_a_sum_that_is_written_reads_back_the_same(chosen):
    assert parse_loss(write_loss(chosen)) == chosen


@given(st.lists(st.tuples(st.sampled_from(list(LOSSES)), st.integers(1, 99_999)), min_size=1, max_size=4))
def test_a_sum_of_plain_factors_reads_back_the_same(chosen):
    plain = tuple(LossTerm(name=name, weight=factor / 100) for name, factor in chosen)
    assert parse_loss(write_loss(plain)) == plain


@in_one_case(
    "text, weights",
    [
        ("dice", [1]),
        (" 2 * dice ", [2]),
        ("dice+10*bce", [1, 10]),
        ("1e-3*dice + 2.5E+2*bce + ce", [1e-3, 250, 1]),
        (".5*dice + 3.*bce", [0.5, 3]),
    ],
)
def test_sums_are_read(text, weights):
    assert [term.weight for term in parse_loss(text)] == weights


@in_one_case(
    "text, fragments",
    [
        ("", ["''", "number*name"]),
        ("dice +", ["'dice +'", "number*name"]),
        ("dice - bce", ["'dice - bce'"]),
        ("dice*2", ["'dice*2'"]),
        ("-1*dice", ["'-1*dice'"]),
        ("2e+dice", ["'2e+dice'"]),
        ("0*dice", ["'0'", "above 0"]),
        ("1.2.3*dice", ["'1.2.3'", "above 0"]),
        ("dise", ["'dise'", "dice"]),
        ("2*dice + dise_ce", ["'dise_ce'", "dice_ce"]),
    ],
)
def test_what_is_no_sum_of_losses_is_refused_with_a_sentence(text, fragments):
    with pytest.raises(SettingsProblem, match=r"[.?]$") as caught:
        parse_loss(text)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_factor_beyond_all_numbers_is_refused():
    with pytest.raises(SettingsProblem, match="1e999"):
        parse_loss("1e999*dice")


def test_options_reach_every_term_that_has_them_and_others_are_refused():
    with_smooth = cost("dice + ce", smooth=0.0)
    assert with_smooth == pytest.approx(cost("dice", smooth=0.0) + cost("ce"))
    with pytest.raises(SettingsProblem, match="'smoth'"):
        build_loss("dice + ce", head="binary", smoth=0.0)
    with pytest.raises(SettingsProblem, match="denominator=cubed must be one of: squared, plain"):
        build_loss("dice", head="binary", denominator="cubed")


def test_an_option_of_one_term_is_its_own():
    terms = (LossTerm(name="dice", option={"smooth": "0"}), LossTerm(name="dice"))
    assert cost(terms) == pytest.approx(cost("dice", smooth=0.0) + cost("dice"))
