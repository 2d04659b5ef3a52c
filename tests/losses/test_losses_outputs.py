"""Losses that learn from more than logits and labels: weight maps, attention maps, an autoencoder, coarser levels."""

from __future__ import annotations

import math

import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.losses import LOSSES, build_loss, loss_needs, parse_loss
from napari_unetvnet.losses.autoencoder import divergence
from napari_unetvnet.losses.total import DeepSupervision
from napari_unetvnet.networks.base import TrainingOutputs

# One channel of four pixels, and the same as two classes.
LABELS = torch.tensor([[1, 0, 1, 0]])
A = torch.tensor([0.9, 0.2, 0.6, 0.4], dtype=torch.float64)
ONE_CHANNEL = A.logit().reshape(1, 1, 4)
TWO_CLASSES = torch.stack([1 - A, A]).log().unsqueeze(0)


def cost(expression, logits, target=LABELS, weight=None, head="binary", **more):
    return build_loss(expression, head=head)(logits, target, weight, **more).item()


def test_losses_say_what_they_need():
    terms = parse_loss("dice + unet_weighted_ce + vae + attention_dice")
    assert loss_needs(terms) == {
        "separation": "unet_weighted_ce",
        "reconstruction": "vae",
        "attention": "attention_dice",
    }


@pytest.mark.parametrize(("logits", "head"), [(ONE_CHANNEL, "binary"), (TWO_CLASSES, "multiclass")])
def test_the_weight_map_weighs_a_sum_over_the_number_of_voxels(logits, head):
    # The map is 9.231163 between two cells whose borders are 2 pixels apart.
    weight = torch.tensor([[1.0, 9.231163, 0.5, 0.0]], dtype=torch.float64)
    expected = -(math.log(0.9) + 9.231163 * math.log(0.8) + 0.5 * math.log(0.6)) / 3
    assert cost("unet_weighted_ce", logits, weight=weight, head=head) == pytest.approx(expected)
    assert cost("unet_weighted_ce", logits, weight=2 * weight, head=head) == pytest.approx(2 * expected)


def a_code():
    """Mean .5 and log variance -1, 128 numbers of each of two images."""
    return torch.full((2, 128), 0.5, dtype=torch.float64), torch.full((2, 128), -1.0, dtype=torch.float64)


@in_one_case(
    "divisor, printed", [("latent", 0.617879), ("half", 0.617879 / 2), ("voxels", 2.011326e-5), ("values", 5.028316e-6)]
)
def test_the_distance_of_a_code_from_the_normal_distribution(divisor, printed):
    image = torch.zeros(()).expand(2, 4, 160, 192, 128)
    assert divergence(*a_code(), image, divisor).item() == pytest.approx(printed, rel=1e-6)


def test_the_distance_is_a_sum_over_the_code():
    # .5^2 + 1/e + 1 - 1 for each of 128 numbers
    image = torch.zeros(2, 1, 1, 1)
    assert divergence(*a_code(), image, "voxels").item() == pytest.approx(79.088568, abs=5e-7)


def a_reconstruction():
    """An image of zeros given back as twos, with labels that are all unknown."""
    image = torch.zeros(2, 3, 4, 4)
    logits, target = torch.zeros(2, 1, 4, 4), torch.full((2, 4, 4), IGNORE)
    return image, logits, target, TrainingOutputs(logits, reconstruction=image + 2, latent=a_code())


def test_the_branch_loses_the_squared_error_of_the_image_and_the_distance_of_its_code():
    image, logits, target, outputs = a_reconstruction()
    more = {"outputs": outputs, "image": image}
    assert cost("vae", logits, target, **more) == pytest.approx(0.1 * 4 + 0.1 * 0.617879)
    assert cost("vae(reconstruction_weight=2, kl_weight=0)", logits, target, **more) == pytest.approx(2 * 4)
    halved = cost("vae(reconstruction_weight=0, kl_divisor=half)", logits, target, **more)
    assert halved == pytest.approx(0.1 * 0.617879 / 2)


def test_without_a_branch_only_the_dice_is_left():
    image, logits, target, _ = a_reconstruction()
    assert cost("vae", logits, target, outputs=TrainingOutputs(logits), image=image) == 0
    assert cost("vae", ONE_CHANNEL) == pytest.approx(cost("dice(smooth=1e-8)", ONE_CHANNEL))


# A plane of 4 x 4 in which one voxel is foreground, and a map of half its size.
PLANE = torch.zeros(1, 4, 4, dtype=torch.long)
PLANE[0, 0, 3] = 1
RIGHT = (2 * PLANE.double() - 1).unsqueeze(1) * 50
MAP = torch.tensor([[[[0.1, 0.7], [0.2, 0.3]]]], dtype=torch.float64)


def supervised(maps, target=PLANE, logits=RIGHT, head="binary", **options):
    chosen = ", ".join(f"{name}={value}" for name, value in options.items())
    return cost(f"attention_dice({chosen})", logits, target, head=head, outputs=TrainingOutputs(logits, attention=maps))


def test_maps_are_compared_with_the_foreground_that_they_cover():
    lost = 1 - 2 * 0.7 / (1.3 + 1)
    assert supervised((MAP,)) == pytest.approx(lost, abs=1e-5)
    assert supervised((MAP,), attention_weight=3) == pytest.approx(3 * lost, abs=1e-5)


def test_the_maps_of_all_levels_count_the_same():
    right = PLANE.double().unsqueeze(1)
    assert supervised((MAP, right)) == pytest.approx(supervised((MAP,)) / 2, abs=1e-5)


def test_every_class_but_the_background_is_foreground():
    maps, lost = (MAP,), supervised((MAP,))
    labels = 2 * PLANE
    logits = 100 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).double()
    assert supervised(maps, labels, logits, "multiclass") == pytest.approx(lost, abs=1e-5)
    both = torch.cat([RIGHT, torch.full_like(RIGHT, -50)], 1)
    assert supervised(maps, torch.stack([PLANE, 0 * PLANE], 1), both, "multilabel") == pytest.approx(lost, abs=1e-5)


def test_a_map_counts_only_where_it_covers_something_known():
    unknown = PLANE.clone()
    unknown[:, 2:, 2:] = IGNORE  # all that the last cell covers
    unknown[:, 2:, 0] = IGNORE  # half of what the third covers
    assert supervised((MAP,), unknown) == pytest.approx(1 - 2 * 0.7 / (1.0 + 1), abs=1e-5)
    for junk in (0.9, math.nan):
        other = MAP.clone()
        other[..., 1, 1] = junk
        assert supervised((other,), unknown) == supervised((MAP,), unknown)


def test_ignored_foreground_is_no_foreground():
    assert supervised((MAP,), PLANE.masked_fill(PLANE == 1, IGNORE)) == pytest.approx(1, abs=1e-4)


def test_maps_of_odd_sizes_and_of_volumes_are_pooled():
    target = torch.randint(0, 2, (2, 5, 16, 16), generator=torch.Generator().manual_seed(0))
    logits = (2 * target.double() - 1).unsqueeze(1) * 50
    maps = tuple(torch.full((2, 1, *size), 1.0, requires_grad=True) for size in [(5, 16, 16), (5, 8, 8), (3, 4, 4)])
    outputs = TrainingOutputs(logits, attention=maps)
    loss = build_loss("attention_dice", head="binary")(logits, target, outputs=outputs)
    loss.backward()
    assert 0 < loss < 1
    assert all(level.grad.isfinite().all() and level.grad.abs().sum() > 0 for level in maps)


def test_without_maps_hardness_dice_is_left():
    assert cost("attention_dice(hardness=0.4)", ONE_CHANNEL) == cost("hardness_dice(hardness=0.4)", ONE_CHANNEL)


LEVELS = tuple(ONE_CHANNEL + shift for shift in (0.5, -1, 2))


@in_one_case("name", [name for name in LOSSES if "binary" in LOSSES.describe(name).facts["head_modes"]])
def test_levels_of_weight_zero_leave_exactly_the_main_loss(name):
    loss = build_loss(name, head="binary")
    logits = ONE_CHANNEL.reshape(1, 1, 2, 2)
    outputs = TrainingOutputs(logits, tuple(level.reshape(1, 1, 2, 2) for level in LEVELS))
    target = LABELS.reshape(1, 2, 2)
    assert DeepSupervision(loss, (1, 0, 0, 0))(outputs, target) == loss(logits, target)


def test_levels_that_say_the_same_cost_the_sum_of_their_weights():
    loss = build_loss("dice_ce", head="binary")
    outputs = TrainingOutputs(ONE_CHANNEL, (ONE_CHANNEL,) * 3)
    once = loss(ONE_CHANNEL, LABELS).item()
    assert DeepSupervision(loss)(outputs, LABELS).item() == pytest.approx((1 + 0.5 + 0.25 + 0.125) * once)
    assert DeepSupervision(loss, (1, 0.5, 0.3, 0.2))(outputs, LABELS).item() == pytest.approx(2 * once)


def test_an_auxiliary_head_of_drive_counts_half():
    loss = build_loss("drive_ce_dice", head="binary")
    outputs = TrainingOutputs(ONE_CHANNEL, LEVELS[:1])
    expected = loss(ONE_CHANNEL, LABELS) + 0.5 * loss(LEVELS[0], LABELS)
    assert DeepSupervision(loss, (1, 0.5))(outputs, LABELS).item() == pytest.approx(expected.item())


def test_what_else_a_network_gives_is_learnt_from_once():
    image, logits, target, outputs = a_reconstruction()
    levels = TrainingOutputs(logits, (logits,) * 2, reconstruction=outputs.reconstruction, latent=outputs.latent)
    loss = build_loss("vae", head="binary")
    once = loss(logits, target, outputs=outputs, image=image)
    assert DeepSupervision(loss)(levels, target, image=image) == once
